"""`--compile_for`, with the devices of this machine in place of TPUs."""

import importlib.util
import types

import jax
import pytest

from diffmavil_jax.aot import compiled, cuda
from diffmavil_jax.aot.chips import CHIPS, GPUS, TPUS, Chip
from diffmavil_jax.aot.table import compile_table
from diffmavil_jax.aot.topology import computed_on, find_topology
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.plan.macs import macs_per_clip

ROOMY = Chip('v0', 2**34, 1e12, 1e11, 1e10)


@pytest.fixture(scope='module')
def config(tiny):
    return tiny(parallel={'data': 2, 'fsdp': 2}, data={'source': 'tfds', 'path': 'not here'})


@pytest.fixture(scope='module')
def rehearsal(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, 'find_topology', lambda topology: (ROOMY, jax.devices()[:4]))
        return compiled.compile_all_buckets(config, 'v0:2x2')


def test_every_bucket_is_compiled_and_data_are_not_read(config, rehearsal):
    assert [b.batch for b in rehearsal.buckets] == [b.batch_size for b in make_plan(config).buckets]
    assert rehearsal.fits
    assert rehearsal.axes == {'data': 2, 'fsdp': 2, 'tensor': 1}
    # The optimizer has two moments and a count. Parameters without an `embed` axis are whole on each chip.
    assert rehearsal.optimizer == 2 * rehearsal.parameters + 4
    for bucket in rehearsal.buckets:
        assert bucket.temporaries > 0 and bucket.traffic > 0
        assert bucket.peak > rehearsal.parameters + rehearsal.optimizer
        assert {'all-gather', 'all-reduce'} <= {c.kind for c in bucket.collectives}


def test_only_parameters_and_what_is_contrasted_move_between_devices(config, rehearsal):
    """Each parameter moves once in the forward pass and once for its gradient; no activation moves."""
    whole = 2 * rehearsal.parameters  # of the two devices of the fsdp axis
    for bucket in rehearsal.buckets:
        assert {c.kind for c in bucket.collectives} <= {'all-gather', 'all-reduce', 'reduce-scatter'}
        gathered = sum(c.count * c.bytes for c in bucket.collectives if c.kind == 'all-gather')
        contrasted = 4 * bucket.batch * 4 * config.model.vit.width
        assert gathered < 2 * whole + 4 * contrasted
        assert not any('fft' in c.where for c in bucket.collectives)


def test_flops_of_a_chip_are_its_share_of_three_forward_passes(config, rehearsal):
    for bucket, of_plan in zip(rehearsal.buckets, make_plan(config).buckets, strict=True):
        forward = macs_per_clip(config, of_plan.audio_tokens, of_plan.video_tokens).total
        expected = 3 * 2 * forward * bucket.batch / 4
        # The front end and the contrastive loss count as well, and the input needs no gradient.
        assert bucket.flops == pytest.approx(expected, rel=0.25)


def test_the_table_tells_what_bounds_a_step_and_what_does_not_fit(rehearsal):
    text = compile_table(rehearsal)
    assert '4 chips (data 2 x fsdp 2 x tensor 1)' in text
    row = next(line for line in text.splitlines() if line.startswith(f'| {rehearsal.buckets[0].ratio:.3f}'))
    assert row.endswith('| yes |')
    bounds = rehearsal.buckets[0].bounds(ROOMY)
    slowest = max(bounds, key=bounds.get)
    assert f'| {1e3 * bounds[slowest]:.1f} ms | {slowest} |' in row
    assert 'all-gather of' in text


def test_a_step_that_does_not_fit_is_reported_not_raised(tiny, monkeypatch):
    config = tiny(parallel={'data': 2, 'fsdp': 2}, masking={'curriculum': 'none'})
    message = 'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.51G of 15.75G hbm.'

    def refuse(self, *_, **__):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(compiled, 'find_topology', lambda topology: (ROOMY, jax.devices()[:4]))
    monkeypatch.setattr(jax.stages.Lowered, 'compile', refuse)
    rehearsal = compiled.compile_all_buckets(config, 'v0:2x2')
    assert not rehearsal.fits
    assert compile_table(rehearsal).count('no: Used 20.51G of 15.75G hbm') == len(rehearsal.buckets) == 1
    small = Chip('v0', 2**10, 1e12, 1e11, 1e10)
    assert not rehearsal.buckets[0].fits(small)


@pytest.mark.parametrize('topology', ['v9:4x4', 'v5e', 'v5e:4', 'v5e:4x', ''])
def test_a_topology_that_does_not_exist_names_those_that_do(topology):
    with pytest.raises(ConfigError, match='v5e:16x16') as caught:
        find_topology(topology)
    assert all(kind in str(caught.value) for kind in CHIPS)


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='needs a machine without libtpu')
def test_a_machine_without_the_compiler_is_told_what_to_install():
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[tpu\]'"):
        find_topology('v5e:2x2')


@pytest.mark.parametrize(
    ('topology', 'shape'), [('h100', '1x1x1'), ('a100:8', '1x1x8'), ('b200:2x8', '1x2x8'), ('t4:1', '1x1x1')]
)
def test_gpus_are_hosts_times_gpus_for_the_cuda_compiler(monkeypatch, topology, shape):
    asked = {}

    def describe(**options):
        asked.update(options)
        return types.SimpleNamespace(devices=['a device'])

    monkeypatch.setattr(jax.experimental.topologies, 'get_topology_desc', describe)
    chip, devices = find_topology(topology)
    assert (chip.kind, devices) == (topology.partition(':')[0], ['a device'])
    assert (asked['platform'], asked['topology']) == ('cuda', shape)
    assert f'device_memory_size: {chip.hbm_bytes}' in asked['target_config']


@pytest.mark.parametrize('topology', ['h100:', 'h100:2x', 'h100:2x2x8', 'h100:x8', 'h100-8'])
def test_a_number_of_gpus_must_be_one(topology):
    with pytest.raises(ConfigError, match='h100:2x8'):
        find_topology(topology)


@pytest.mark.skipif(
    importlib.util.find_spec('jax_cuda13_plugin') is not None,
    reason='needs a machine without the CUDA plugin',
)
def test_a_machine_without_the_cuda_plugin_is_told_what_to_install():
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[cuda\]'"):
        find_topology('h100:8')


def test_a_run_is_computed_as_the_chip_would_choose(tiny):
    bfloat16, float32 = tiny(compute={'dtype': 'bfloat16'}), tiny()
    fused = {kind for kind, chip in CHIPS.items() if computed_on(bfloat16, chip).compute.attention == 'cudnn'}
    assert fused == {'l4', 'a100', 'h100', 'h200', 'b200'}  # Ampere and newer
    assert all(computed_on(float32, chip).compute.attention == 'xla' for chip in CHIPS.values())
    assert {computed_on(bfloat16, chip).compute.remat for chip in GPUS.values()} == {'dots'}
    assert {computed_on(bfloat16, chip).compute.remat for chip in TPUS.values()} == {'none'}
    asked = tiny(compute={'dtype': 'bfloat16', 'attention': 'xla'})
    assert computed_on(asked, GPUS['h100']).compute.attention == 'xla'


def test_jax_is_told_the_targets_compute_capability_and_only_while_it_compiles():
    cudnn = pytest.importorskip('jax._src.cudnn.fused_attention_stablehlo')
    before = cudnn.check_compute_capability
    with cuda.pretended(GPUS['a100'].gpu):
        assert cudnn.check_compute_capability('8.0') and not cudnn.check_compute_capability('9.0')
        assert cudnn.is_cuda_compute_capability_equal('8.0')
    assert cudnn.check_compute_capability is before
