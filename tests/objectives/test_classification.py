"""The classification objective: losses by hand, probes, masks, and the clip's own randomness."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffmavil_jax.models.classifier import NEW
from diffmavil_jax.objectives.classification import ClassificationObjective
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.training.plan import make_plan

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


def parts(tiny, *, multi_label=False, **finetune):
    config = tiny(objective='classification', finetune=PLAIN | finetune)
    objective = ClassificationObjective(config, CLASSES, multi_label=multi_label, time_steps=STEPS)
    bucket = make_plan(config).buckets[0]
    counts = {
        'audio': TokenCounts(bucket.audio_tokens, 0),
        'video': TokenCounts(bucket.video_tokens, 0),
    }
    clips = batch(config)
    params = nn.unbox(objective.init(jax.random.key(0), clips, counts)['params'])
    # The head begins at zero.
    params = jax.tree.map(lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)
    return objective, params, clips, counts


@pytest.mark.parametrize('multi_label', [False, True])
def test_the_loss_is_that_of_optax_on_the_logits(tiny, multi_label):
    objective, params, clips, counts = parts(tiny, multi_label=multi_label, label_smoothing=0.1)
    logits = objective.logits(params, clips)
    smooth = clips['target'] * 0.9 + 0.1 / CLASSES
    by_hand = {
        False: -(smooth * jax.nn.log_softmax(logits)).sum(axis=-1),
        True: optax.losses.sigmoid_binary_cross_entropy(logits, smooth).mean(axis=-1),
    }[multi_label]
    loss, metrics = objective.loss(params, clips, counts)
    assert float(loss) == pytest.approx(float(by_hand.mean()), rel=1e-4)
    hits = (logits.argmax(axis=-1) == clips['target'].argmax(axis=-1)).sum()
    assert float(metrics['accuracy'][0]) == pytest.approx(float(hits))


def test_probabilities_sum_to_one_or_stand_for_themselves(tiny):
    objective, params, clips, _ = parts(tiny)
    np.testing.assert_allclose(objective.probabilities(params, clips).sum(axis=-1), 1, rtol=1e-5)
    objective, params, clips, _ = parts(tiny, multi_label=True)
    expected = jax.nn.sigmoid(objective.logits(params, clips))
    np.testing.assert_allclose(objective.probabilities(params, clips), expected, rtol=1e-5)


@pytest.mark.parametrize('modality', ['audio', 'video', 'both'])
def test_parameters_are_those_of_pretraining_and_a_head(tiny, modality):
    objective, params, clips, counts = parts(tiny, modality=modality)
    used = {'both': ('waveform', 'frames'), 'audio': ('waveform',), 'video': ('frames',)}[modality]
    alone = {name: clips[name] for name in (*used, 'target', 'position')}
    np.testing.assert_array_equal(objective.logits(params, clips), objective.logits(params, alone))
    pretraining = PretrainingObjective(tiny())
    counts = {'audio': TokenCounts(2, 2), 'video': TokenCounts(3, 5)}
    pretrained = nn.unbox(
        jax.eval_shape(lambda: pretraining.init(jax.random.key(0), clips, counts)['params'])
    )
    for name in params:
        if not name.startswith(NEW):
            chex.assert_trees_all_equal_shapes(params[name], pretrained[name])


@pytest.mark.parametrize('probe', ['linear', 'attentive'])
def test_a_probe_has_no_gradient_below_it(tiny, probe):
    objective, params, clips, counts = parts(tiny, probe=probe)
    gradients = jax.grad(lambda p: objective.loss(p, clips, counts)[0])(params)
    for name, part in gradients.items():
        moves = any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(part))
        assert moves == name.startswith(NEW), name


def test_masks_leave_the_tokens_of_the_plan(tiny):
    objective, params, clips, counts = parts(tiny, time_mask=0.5, video_mask=0.5)
    assert (counts['audio'].visible, counts['video'].visible) == (2, 4)
    loss, _ = objective.loss(params, clips, counts)
    whole, _, _, all_of_them = parts(tiny)
    assert float(loss) != pytest.approx(float(whole.loss(params, clips, all_of_them)[0]), rel=1e-4)


def test_what_a_clip_draws_does_not_depend_on_its_batch(tiny):
    varied = {'time_mask': 0.5, 'video_mask': 0.5, 'drop_path': 0.5, 'roll': True, 'gain_db': 6.0}
    objective, params, clips, counts = parts(tiny, **varied, spec_augment_time=8)

    def loss(rows):
        return float(objective.loss(params, {name: x[rows] for name, x in clips.items()}, counts)[0])

    alone = [loss(slice(i, i + 1)) for i in range(4)]
    assert loss(slice(None)) == pytest.approx(np.mean(alone), rel=1e-4)
    moved = clips | {'position': clips['position'] + 100}
    assert float(objective.loss(params, moved, counts)[0]) != pytest.approx(np.mean(alone), rel=1e-4)


def test_mixup_mixes_targets_as_clips(tiny):
    objective, params, clips, counts = parts(tiny, mixup_rate=1.0, modality='audio')
    same = {name: jnp.broadcast_to(x[:1], x.shape) for name, x in clips.items() if name != 'position'}
    same['position'] = clips['position']
    plain, *_ = parts(tiny, modality='audio')
    # A clip mixed with itself is itself.
    assert float(objective.loss(params, same, counts)[0]) == pytest.approx(
        float(plain.loss(params, same, counts)[0]), rel=1e-3
    )
    assert float(objective.loss(params, clips, counts)[0]) != pytest.approx(
        float(plain.loss(params, clips, counts)[0]), rel=1e-3
    )
