"""Every variant of both configs resolves, plans, and has a model; none of it needs JAX."""

import importlib.util
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import common, finetune
from diffmavil_jax.config.schema import from_dict

ROOT = pathlib.Path(__file__).parents[1]
METHODS = ('diffmavil', 'mavil')
PRESETS = (*METHODS, 'diffmavil_cross', 'diffmavil_fast')
TECHNIQUES = {
    ('diffusion', 'enabled'): (True, False),
    ('loss', 'normalize_targets'): (False, True),
    ('model', 'video_decoder'): ('cross', 'self'),
    ('masking', 'curriculum'): ('linear', 'none'),
    ('batch', 'rule'): ('visible_tokens', 'fixed'),
}


def get_config(method, *variant):
    spec = importlib.util.spec_from_file_location(method, ROOT / 'configs' / f'{method}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


def flat(values, prefix=()):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, (*prefix, name))
        else:
            yield (*prefix, name), value


@pytest.mark.parametrize('variant', common.VARIANTS)
@pytest.mark.parametrize('method', PRESETS)
def test_a_variant_resolves_plans_and_has_a_model(method, variant):
    from diffmavil_jax.objectives.pretraining import PretrainingObjective
    from diffmavil_jax.plan.buckets import make_plan
    from diffmavil_jax.tasks.program import token_counts

    config = from_dict(get_config(method, variant).to_dict())
    assert config.name == f'{method}_{variant}'
    plan = make_plan(config)
    assert abs(plan.total_samples - config.train.samples) <= plan.buckets[-1].batch_size / 2
    mavil = make_plan(from_dict(get_config('mavil', variant).to_dict()))
    assert (plan.macs < mavil.macs) == (method != 'mavil')
    data = config.data
    batch = {
        'waveform': jax.ShapeDtypeStruct((2, data.num_samples), jnp.int16),
        'frames': jax.ShapeDtypeStruct((2, data.frames, data.frame_size, data.frame_size, 3), jnp.uint8),
        'position': jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    objective = PretrainingObjective(config)
    counts = token_counts(plan.buckets[-1])
    variables = jax.eval_shape(lambda key, b: objective.init(key, b, counts), jax.random.key(0), batch)
    loss, metrics = jax.eval_shape(lambda p, b: objective.loss(p, b, counts), variables['params'], batch)
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    assert {'loss', 'audio', 'video', 'inter'} <= metrics.keys()
    assert ('intra' in metrics) == config.loss.second_view
    sizes = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert sizes > (180e6 if variant in ('audioset', 'vggsound') else 1e6)


@pytest.mark.parametrize('variant', common.VARIANTS)
def test_the_methods_differ_in_their_techniques_and_nothing_else(variant):
    ours, theirs = (dict(flat(get_config(method, variant).to_dict())) for method in METHODS)
    assert ours.keys() == theirs.keys()
    differences = {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]}
    assert differences.pop(('name',)) == (f'diffmavil_{variant}', f'mavil_{variant}')
    assert differences == TECHNIQUES


@pytest.mark.parametrize('variant', common.VARIANTS)
def test_each_preset_costs_less_than_the_one_before(variant):
    from diffmavil_jax.plan.buckets import make_plan

    plans = {method: make_plan(from_dict(get_config(method, variant).to_dict())) for method in PRESETS}
    costs = {method: plan.macs / plan.total_samples for method, plan in plans.items()}
    assert costs['mavil'] > costs['diffmavil'] > costs['diffmavil_cross'] > costs['diffmavil_fast']
    assert costs['diffmavil_fast'] < 0.45 * costs['mavil']


def test_the_default_variant_is_the_demo():
    for method in PRESETS:
        assert get_config(method).to_dict() == get_config(method, 'demo').to_dict()


@pytest.mark.parametrize('method', PRESETS)
def test_help_lists_the_variants_and_an_unknown_one_is_refused(method, capsys):
    with pytest.raises(SystemExit) as caught:
        get_config(method, 'help')
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for name, settings in common.VARIANTS.items():
        assert f':{name}' in out
        assert settings.__doc__.splitlines()[0] in out
    with pytest.raises(SystemExit) as caught:
        get_config(method, 'imagenet')
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert f"no variant 'imagenet' of configs/{method}.py" in error
    assert ', '.join(common.VARIANTS) in error
    assert error.count('\n') == 1


def test_configs_and_plans_do_not_import_jax():
    script = (
        'import sys\n'
        'import configs.diffmavil, configs.mavil\n'
        'from diffmavil_jax.config.schema import from_dict\n'
        'from diffmavil_jax.plan.buckets import make_plan\n'
        'from diffmavil_jax.plan.table import plan_table\n'
        "make_plan(from_dict(configs.diffmavil.get_config('audioset').to_dict()))\n"
        "assert 'diffmavil_jax.plan.buckets' in sys.modules\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize('modality', ['audio', 'video', 'both'])
@pytest.mark.parametrize('variant', finetune.VARIANTS)
def test_a_variant_of_finetuning_resolves_plans_and_has_a_model(variant, modality):
    from diffmavil_jax.objectives.classification import ClassificationObjective
    from diffmavil_jax.plan.buckets import make_plan
    from diffmavil_jax.plan.macs import encoder_macs
    from diffmavil_jax.tasks.pretraining import clip_shapes

    values = get_config('finetune', variant).to_dict()
    values['finetune']['modality'] = modality
    config = from_dict(values)
    assert (config.name, config.objective) == (f'finetune_{variant}', 'classification')
    (bucket,) = make_plan(config).buckets
    seen = {'audio': bucket.audio_tokens, 'video': bucket.video_tokens}
    assert {m for m, count in seen.items() if count} == set(config.finetune.modalities)
    assert bucket.steps * bucket.batch_size == pytest.approx(config.train.samples, abs=bucket.batch_size)
    if modality == 'audio':
        vit = config.model.vit
        expected = encoder_macs(vit.width, vit.depth, bucket.audio_tokens, config.audio.patch_dim)
        assert bucket.macs_per_clip == expected
    objective = ClassificationObjective(config, 7, multi_label=False, time_steps={'audio': 1.0, 'video': 1.0})
    batch = {
        name: jax.ShapeDtypeStruct((2, *shape), dtype)
        for name, (shape, dtype) in clip_shapes(config, config.finetune.modalities).items()
    }
    variables = jax.eval_shape(lambda b: objective.init(jax.random.key(0), b, {}), batch)
    assert 'head' in variables['params']


def test_lengths_of_sound_are_audiomaes():
    frames = {v: get_config('finetune', v).audio.num_frames for v in finetune.VARIANTS}
    assert frames['audioset20k'] == frames['vggsound'] == 1024
    assert (frames['esc50'], frames['speech_commands']) == (512, 128)
