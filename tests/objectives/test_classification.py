"""The classification objective: losses by hand, probes, masks, and randomness of each clip alone."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffmavil_jax.models.classifier import NEW
from diffmavil_jax.models.encoders import make_encoder
from diffmavil_jax.objectives.classification import ClassificationObjective
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.plan.buckets import make_plan

CLASSES = 5
STEPS = {'audio': 1.0, 'video': 1.0}
PLAIN = {'time_mask': 0.0, 'frequency_mask': 0.0, 'video_mask': 0.0, 'drop_path': 0.0}


def batch(config, size=4):
    rng = np.random.default_rng(0)
    data = config.data
    return {
        'waveform': jnp.asarray(rng.integers(-9000, 9000, (size, data.num_samples)), jnp.int16),
        'frames': jnp.asarray(rng.integers(0, 256, (size, data.frames, 16, 16, 3)), jnp.uint8),
        'target': jnp.asarray(np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=size)]),
        'position': jnp.arange(size, dtype=jnp.int32),
    }


def parts(tiny, *, multi_label=False, augmentation=None, **finetune):
    config = tiny(objective='classification', finetune=PLAIN | finetune, augmentation=augmentation or {})
    objective = ClassificationObjective(config, CLASSES, multi_label=multi_label, time_steps=STEPS)
    bucket = make_plan(config).buckets[0]
    counts = {
        'audio': TokenCounts(bucket.audio_tokens, 0),
        'video': TokenCounts(bucket.video_tokens, 0),
    }
    clips = batch(config)
    shapes = nn.unbox(jax.eval_shape(lambda: objective.init(jax.random.key(0), clips, counts)['params']))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: 0.2 * rng.normal(size=x.shape).astype(np.float32), shapes)
    return objective, params, clips, counts


def compiled(objective, counts):
    """(loss, metrics) of parameters and clips."""
    return jax.jit(lambda params, clips: objective.loss(params, clips, counts))


@pytest.mark.parametrize('multi_label', [False, True])
def test_the_loss_is_that_of_optax_on_the_logits(tiny, multi_label):
    objective, params, clips, counts = parts(tiny, multi_label=multi_label, label_smoothing=0.1)
    logits = jax.jit(objective.logits)(params, clips)
    smooth = clips['target'] * 0.9 + 0.1 / CLASSES
    by_hand = {
        False: -(smooth * jax.nn.log_softmax(logits)).sum(axis=-1),
        True: optax.losses.sigmoid_binary_cross_entropy(logits, smooth).mean(axis=-1),
    }[multi_label]
    loss, metrics = compiled(objective, counts)(params, clips)
    assert float(loss) == pytest.approx(float(by_hand.mean()), rel=1e-4)
    hits = (logits.argmax(axis=-1) == clips['target'].argmax(axis=-1)).sum()
    assert float(metrics['accuracy'][0]) == pytest.approx(float(hits))


def test_probabilities_sum_to_one_or_are_independent(tiny):
    objective, params, clips, _ = parts(tiny)
    probabilities = jax.jit(objective.probabilities)(params, clips)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    objective, params, clips, _ = parts(tiny, multi_label=True)
    expected = jax.nn.sigmoid(jax.jit(objective.logits)(params, clips))
    np.testing.assert_allclose(jax.jit(objective.probabilities)(params, clips), expected, rtol=1e-5)


@pytest.mark.parametrize('modality', ['audio', 'video', 'both'])
def test_parameters_are_those_of_pretraining_and_a_head(tiny, modality):
    objective, params, clips, counts = parts(tiny, modality=modality)
    used = {'both': ('waveform', 'frames'), 'audio': ('waveform',), 'video': ('frames',)}[modality]
    alone = {name: clips[name] for name in (*used, 'target', 'position')}
    logits = jax.jit(objective.logits)
    np.testing.assert_array_equal(logits(params, clips), logits(params, alone))
    pretraining = PretrainingObjective(tiny())
    counts = {'audio': TokenCounts(2, 2), 'video': TokenCounts(3, 5)}
    pretrained = nn.unbox(
        jax.eval_shape(lambda: pretraining.init(jax.random.key(0), clips, counts)['params'])
    )
    for name in params:
        if not name.startswith(NEW):
            chex.assert_trees_all_equal_shapes(params[name], pretrained[name])


def test_a_linear_probe_classifies_the_standardised_mean_of_the_tokens(tiny):
    objective, params, clips, _ = parts(tiny, probe='linear', modality='audio')
    params['feature_moments']['deviation'] = np.abs(params['feature_moments']['deviation']) + 1
    patches = to_patches({'waveform': clips['waveform']}, objective.config)['audio']
    tokens = make_encoder(objective.config, 'audio').apply({'params': params['encoder_audio']}, patches)
    mean = tokens[:, 1:].mean(axis=1)
    np.testing.assert_allclose(jax.jit(objective.features)(params, clips), mean, rtol=1e-4, atol=1e-5)
    moments, head = params['feature_moments'], params['head']
    expected = (mean - moments['mean']) / moments['deviation'] @ head['kernel'] + head['bias']
    logits = jax.jit(objective.logits)(params, clips)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('probe', ['linear', 'attentive'])
def test_a_probe_has_no_gradient_below_it(tiny, probe):
    objective, params, clips, counts = parts(tiny, probe=probe)
    gradients = jax.jit(jax.grad(lambda p: objective.loss(p, clips, counts)[0]))(params)
    for name, part in gradients.items():
        moves = any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(part))
        assert moves == name.startswith(NEW), name


def test_masks_leave_the_tokens_of_the_plan(tiny):
    objective, params, clips, counts = parts(tiny, time_mask=0.5, video_mask=0.5)
    assert (counts['audio'].visible, counts['video'].visible) == (2, 4)
    loss, _ = compiled(objective, counts)(params, clips)
    whole, _, _, all_of_them = parts(tiny)
    assert float(loss) != pytest.approx(float(compiled(whole, all_of_them)(params, clips)[0]), rel=1e-4)


def test_what_a_clip_draws_does_not_depend_on_its_batch(tiny):
    varied = {'time_mask': 0.5, 'video_mask': 0.5, 'drop_path': 0.5}
    sound = {'roll': True, 'gain': True, 'gain_db': 6.0}
    objective, params, clips, counts = parts(tiny, **varied, augmentation=sound, spec_augment_time=8)
    loss = compiled(objective, counts)
    alone = [float(loss(params, {n: x[i : i + 1] for n, x in clips.items()})[0]) for i in range(4)]
    assert float(loss(params, clips)[0]) == pytest.approx(np.mean(alone), rel=1e-4)
    moved = clips | {'position': clips['position'] + 100}
    assert float(loss(params, moved)[0]) != pytest.approx(np.mean(alone), rel=1e-4)


def test_mixup_mixes_targets_as_clips(tiny):
    objective, params, clips, counts = parts(tiny, mixup_rate=1.0, modality='audio')
    same = {name: jnp.broadcast_to(x[:1], x.shape) for name, x in clips.items() if name != 'position'}
    same['position'] = clips['position']
    plain, *_ = parts(tiny, modality='audio')
    # A clip mixed with itself is itself.
    mixed, unmixed = compiled(objective, counts), compiled(plain, counts)
    assert float(mixed(params, same)[0]) == pytest.approx(float(unmixed(params, same)[0]), rel=1e-3)
    assert float(mixed(params, clips)[0]) != pytest.approx(float(unmixed(params, clips)[0]), rel=1e-3)


def test_a_stripe_is_filled_as_the_config_says(tiny):
    filled = {}
    for fill in ('mean', 'zero'):
        objective, _, clips, _ = parts(
            tiny, modality='audio', spec_augment_time=8, spec_augment_fill=fill, multi_label=False
        )
        filled[fill] = np.asarray(objective._patches(clips, clips['position'])['audio'])
    differs = filled['mean'] != filled['zero']
    assert differs.any() and (filled['mean'][differs] == 0).all()
    of_zero = objective.config.audio.normalization.of_zero
    np.testing.assert_allclose(filled['zero'][differs], of_zero, rtol=1e-6)
