"""The mesh: its shapes, its errors, and that it changes no number."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.parallel.mesh import batch_sharding, check_batch, make_mesh
from diffmavil_jax.training.state import TrainState


@pytest.mark.parametrize(
    ('axes', 'shape'),
    [
        ({}, (8, 1, 1)),
        ({'fsdp': 2, 'tensor': 2}, (2, 2, 2)),
        ({'data': 1, 'fsdp': -1}, (1, 8, 1)),
        ({'data': 2, 'fsdp': 1, 'tensor': -1}, (2, 1, 4)),
        ({'data': 4, 'fsdp': 2}, (4, 2, 1)),
    ],
)
def test_an_axis_of_minus_one_takes_what_is_left(axes, shape):
    mesh = make_mesh(ParallelConfig(**axes))
    assert mesh.axis_names == ('data', 'fsdp', 'tensor')
    assert mesh.devices.shape == shape
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.parametrize(
    ('axes', 'words'),
    [
        ({'data': 3}, 'data 3 x fsdp 1 x tensor 1'),
        ({'fsdp': 3}, 'data 2 x fsdp 3 x tensor 1'),
        ({'data': 16}, 'data 16 x fsdp 1 x tensor 1'),
        ({'tensor': 16}, 'data 1 x fsdp 1 x tensor 16'),
    ],
)
def test_axes_that_do_not_make_the_devices_are_refused_with_the_numbers(axes, words):
    with pytest.raises(ConfigError) as caught:
        make_mesh(ParallelConfig(**axes))
    assert words in str(caught.value)
    assert '8 devices' in str(caught.value)


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers():
    mesh = make_mesh(ParallelConfig(fsdp=2, tensor=2))
    check_batch(12, 1, mesh)
    check_batch(12, 3, mesh)
    with pytest.raises(ConfigError, match=r'10 clips.*multiples of 4'):
        check_batch(10, 1, mesh)
    with pytest.raises(ConfigError, match=r'12 clips.*in 2 microbatches.*multiples of 8'):
        check_batch(12, 2, mesh)


def test_clips_lie_over_data_and_fsdp():
    mesh = make_mesh(ParallelConfig(fsdp=2, tensor=2))
    placed = jax.device_put(np.arange(8), batch_sharding(mesh))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2,)}


class OneClipPerIndex:
    """A source that stands for the world: cheap, and different at each index."""

    label_names = ()

    def __init__(self, config):
        self._data = config.data

    def __len__(self):
        return 64

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        size = self._data.frame_size
        return {
            'waveform': rng.integers(-9_000, 9_000, self._data.num_samples).astype(np.int16),
            'frames': rng.integers(0, 256, (self._data.frames, size, size, 3)).astype(np.uint8),
            'label': 0,
            'id': str(index),
        }


@dataclasses.dataclass
class TwoSteps:
    metrics: list[dict[str, float]]  # of each step
    initial: TrainState
    state: TrainState  # after both
    layout: set[jax.sharding.PartitionSpec]
    program: str


def two_steps(make_pretrainer, config, devices, initial=None):
    """Trains from a state that is given, or from the program's own."""
    program, batches_from = make_pretrainer(config, OneClipPerIndex(config), devices)
    if initial is None:
        initial = jax.device_get(program.init())
    state = jax.device_put(initial, jax.tree.map(lambda leaf: leaf.sharding, program.abstract))
    step = program.lower(0).compile()
    batches = batches_from(0)
    metrics = []
    for _ in range(2):
        state, values = step(state, next(batches)[0])
        metrics.append({name: float(total) / float(count) for name, (total, count) in values.items()})
    layout = {leaf.sharding.spec for leaf in jax.tree.leaves(state.params)}
    return TwoSteps(metrics, initial, jax.device_get(state), layout, step.as_text())


# (data, fsdp, tensor). Each compiles its own step: one with every axis is enough for most days, and the
# slow ones are every mesh of four devices, and eight along each axis.
EVERY_AXIS = (2, 2, 2)
OTHERS = [
    (4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 2, 1), (2, 1, 2), (1, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8),
]  # fmt: skip


@pytest.fixture(scope='module')
def make_config(tiny):
    # One bucket; every loss term is on. SGD-like steps would hide nothing either, but AdamW divides
    # by the size of the gradient: where that is rounding (a key's bias has no other), so is the
    # update, but for a larger epsilon. The moments, which are the gradients, are compared as well.
    def make(data, fsdp, tensor):
        return tiny(
            masking={'curriculum': 'none', 'end_ratio': 0.5, 'contrast_power': 1.0},
            loss={'second_view': True, 'intra_weight': 0.5},
            optimizer={'learning_rate': 1e-4, 'warmup_samples': 0, 'epsilon': 1e-6},
            parallel={'data': data, 'fsdp': fsdp, 'tensor': tensor},
        )

    return make


@pytest.fixture(scope='module')
def one_device(make_config, make_pretrainer):
    return two_steps(make_pretrainer, make_config(1, 1, 1), jax.devices()[:1])


@pytest.mark.parametrize(
    'mesh_shape', [EVERY_AXIS, *(pytest.param(shape, marks=pytest.mark.slow) for shape in OTHERS)]
)
def test_losses_gradients_and_parameters_are_those_of_one_device(
    mesh_shape, make_config, make_pretrainer, one_device
):
    devices = jax.devices()[: math.prod(mesh_shape)]
    initial = None if mesh_shape == EVERY_AXIS else one_device.initial
    sharded = two_steps(make_pretrainer, make_config(*mesh_shape), devices, initial)
    # XLA's CPU runtime orders collectives among themselves, but not those inside a conditional.
    assert sharded.program.count('all-reduce(') > 0
    assert sharded.program.count(' conditional(') == 0
    axes = {axis for spec in sharded.layout for axis in spec if axis is not None}
    sizes = dict(zip(('data', 'fsdp', 'tensor'), mesh_shape, strict=True))
    assert {axis for axis in axes if sizes[axis] > 1} == {
        axis for axis in ('fsdp', 'tensor') if sizes[axis] > 1
    }
    for ours, theirs in zip(sharded.metrics, one_device.metrics, strict=True):
        assert ours.keys() == theirs.keys() >= {'inter', 'intra', 'audio', 'video', 'gradient_norm'}
        for name in theirs:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name
    assert int(sharded.state.samples_seen) == int(one_device.state.samples_seen) == 16
    # Adam's moments are the gradients' averages: with them, the gradients are compared leaf by leaf.
    for name in ('params', 'opt_state'):
        ours = jax.tree_util.tree_leaves_with_path(getattr(sharded.state, name))
        for (path, a), b in zip(ours, jax.tree.leaves(getattr(one_device.state, name)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path))
