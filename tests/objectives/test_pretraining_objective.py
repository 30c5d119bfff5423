import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.network import ModelConfig
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.objectives.contrastive import info_nce, sigmoid
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts

CLIPS = 4
# Each runs once, so most of its time is compilation.
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
COUNTS = {'audio': TokenCounts(2, 4), 'video': TokenCounts(3, 5)}
FEWER = {'audio': TokenCounts(2, 2), 'video': TokenCounts(3, 3)}
CONFIG = Config(
    seed=5,
    data=DataConfig(seconds=0.3, frames=4, frame_size=16),
    audio=AudioConfig(num_mel_bins=16, num_frames=24, patch=8),  # 3 x 2 tokens
    video=VideoConfig(patch=8, patch_frames=2),  # 2 x 2 x 2 tokens
    model=ModelConfig(size='demo', fusion_layers=1, decoder_width=16, decoder_layers=2, decoder_heads=2),
)


def change(config=CONFIG, **sections):
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in sections.items()},
    )


# Every technique is on in one of them and off in another.
CONFIGS = {
    'diffmavil': (CONFIG, COUNTS),
    'mavil': (
        change(
            diffusion={'enabled': False},
            model={'video_decoder': 'self'},
            loss={'second_view': False, 'normalize_targets': True},
        ),
        COUNTS,
    ),
    'eps': (
        change(
            diffusion={'target': 'eps', 'conditioning': 'add', 'schedule': 'cosine'},
            model={'audio_decoder': 'cross', 'decoded_fraction': 0.5},
            loss={'second_view': False, 'audio_weight': 0.5, 'video_weight': 2.0, 'inter_weight': 0.3},
        ),
        FEWER,
    ),
    'v': (
        change(
            diffusion={'target': 'v', 'conditioning': 'adaln', 'rho': 1.0},
            model={'audio_decoder': 'cross_self'},
            loss={'intra_weight': 3.0},
        ),
        COUNTS,
    ),
}


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    return {
        'waveform': rng.integers(-9_000, 9_000, (CLIPS, 4_800)).astype(np.int16),
        'frames': rng.integers(0, 256, (CLIPS, 4, 16, 16, 3)).astype(np.uint8),
        'position': np.array([100, 101, 102, 103], np.int32),
    }


def random_params(objective, batch, counts):
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda b: objective.init(jax.random.key(0), b, counts), batch)['params']
    )
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: 0.1 * rng.normal(size=p.shape).astype(np.float32), shapes)


@dataclasses.dataclass
class Run:
    """Loss, metrics and gradient of one config for the batch, with what they were computed from."""

    objective: PretrainingObjective
    params: dict
    loss: np.ndarray
    metrics: dict
    gradient: dict
    patches: dict
    views: dict
    outputs: object


@pytest.fixture(scope='module', params=CONFIGS)
def run(request, batch):
    config, counts = CONFIGS[request.param]
    objective = PretrainingObjective(config)
    params = random_params(objective, batch, counts)

    def everything(params):
        (loss, metrics), gradient = jax.value_and_grad(objective.loss, has_aux=True)(params, batch, counts)
        patches = to_patches(batch, config)
        views = objective.views(patches, batch['position'], counts)
        return loss, metrics, gradient, patches, views, objective.model.apply({'params': params}, views)

    return Run(objective, params, *jax.device_get(jax.jit(everything, compiler_options=QUICK)(params)))


def take(tokens, ids):
    return np.stack([clip[chosen] for clip, chosen in zip(tokens, ids, strict=True)])


def test_reconstruction_terms_are_the_error_of_the_target(run):
    config = run.objective.config
    for modality, view in run.views.items():
        clean = take(run.patches[modality], view.decoded)
        if config.loss.normalize_targets:
            clean = (clean - clean.mean(-1, keepdims=True)) / np.sqrt(
                clean.var(-1, ddof=1, keepdims=True) + 1e-6
            )
        target = clean
        if config.diffusion.target != 'x0':
            level = np.asarray(run.objective._alphas_cumprod)[view.timestep][:, None, None].astype(np.float64)
            noise = (view.noisy - np.sqrt(level) * clean) / np.sqrt(1 - level)
            velocity = np.sqrt(level) * noise - np.sqrt(1 - level) * clean
            target = {'eps': noise, 'v': velocity}[config.diffusion.target]
        expected = np.square(run.outputs.predictions[modality] - target).mean()
        total, count = run.metrics[modality]
        assert count == CLIPS
        # Recovering the noise from x_t divides by as little as 0.01.
        assert total / count == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts(run):
    loss = run.objective.config.loss
    parts = {'audio', 'video', 'inter'} | ({'intra'} if loss.second_view else set())
    assert set(run.metrics) == parts | {'loss', 'inter_accuracy'}
    weighted = sum(getattr(loss, f'{name}_weight') * run.metrics[name][0] / CLIPS for name in parts)
    assert run.loss == pytest.approx(weighted, rel=1e-5)
    assert run.metrics['loss'][0] / CLIPS == pytest.approx(run.loss, rel=1e-5)
    assert 0 <= run.metrics['inter_accuracy'][0] <= CLIPS


def test_gradients_are_finite_and_reach_every_part(run):
    for path, gradient in jax.tree_util.tree_leaves_with_path(run.gradient):
        assert np.isfinite(gradient).all(), path
    for name in run.params:
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(run.gradient[name])), name


def test_views_hide_and_diffuse(run):
    enabled = run.objective.config.diffusion.enabled
    for modality, view in run.views.items():
        ids = np.concatenate([view.visible, view.decoded], axis=1)
        assert all(len(set(clip)) == ids.shape[1] for clip in ids)
        assert (view.noisy is not None) == (view.timestep is not None) == enabled
        if enabled:
            assert view.noisy.shape == run.outputs.predictions[modality].shape
            assert len(set(view.timestep)) > 1


def test_a_perfect_prediction_is_the_clean_target(run):
    for modality, view in run.views.items():
        clean = run.objective.clean_targets(run.patches[modality], view)
        if run.objective.config.diffusion.target == 'x0':
            np.testing.assert_array_equal(run.objective.predicted_x0(clean, view), clean)
        else:
            level = np.asarray(run.objective._alphas_cumprod)[view.timestep][:, None, None]
            noise = (view.noisy - np.sqrt(level) * clean) / np.sqrt(1 - level)
            right = {'eps': noise, 'v': np.sqrt(level) * noise - np.sqrt(1 - level) * clean}
            ours = run.objective.predicted_x0(right[run.objective.config.diffusion.target], view)
            readable = (level > 1e-3).ravel()  # below, x_t holds hardly any signal
            np.testing.assert_allclose(ours[readable], np.asarray(clean)[readable], atol=5e-3)


def modules(config, batch, modality):
    """Names of the parameters of one decoder, and of its attentions."""
    params = random_params(PretrainingObjective(config), batch, COUNTS)[f'decoder_{modality}']
    return set(params), {name for name in params['layers']['block'] if name.endswith('attention')}


def test_diffusion_replaces_the_mask_token(batch):
    on, off = (
        modules(change(diffusion={'enabled': enabled}), batch, 'video')[0] for enabled in (True, False)
    )
    assert on - off == {'noisy_patch_embedding'}
    assert off - on == {'mask_token'}


def test_decoder_kinds(batch):
    for kind, attentions in {
        'self': {'self_attention'},
        'cross': {'cross_attention'},
        'cross_self': {'self_attention', 'cross_attention'},
    }.items():
        for modality in ('audio', 'video'):
            config = change(model={f'{modality}_decoder': kind})
            assert modules(config, batch, modality)[1] == attentions


def test_decoding_a_part_needs_cross_decoders():
    with pytest.raises(ConfigError, match='decoded_fraction'):
        change(model={'audio_decoder': 'self', 'decoded_fraction': 0.5})


@pytest.fixture(scope='module')
def patches(batch):
    return to_patches(batch, CONFIG)


def test_a_clips_view_does_not_depend_on_its_batch(batch, patches):
    objective = PretrainingObjective(CONFIG)
    whole = objective.views(patches, batch['position'], COUNTS)
    alone = objective.views({m: p[2:3] for m, p in patches.items()}, batch['position'][2:3], COUNTS)
    jax.tree.map(lambda one, all_: np.testing.assert_array_equal(one, all_[2:3]), alone, whole)


def test_views_differ_by_name_seed_and_position_and_can_fix_the_time_step(batch, patches):
    objective, positions = PretrainingObjective(CONFIG), batch['position']
    first = objective.views(patches, positions, COUNTS)['video']
    others = [
        objective.views(patches, positions, COUNTS, view='second'),
        objective.views(patches, positions + 50, COUNTS),
        PretrainingObjective(dataclasses.replace(CONFIG, seed=6)).views(patches, positions, COUNTS),
    ]
    for other in others:
        assert not np.array_equal(other['video'].visible, first.visible)
        assert not np.array_equal(other['video'].noisy, first.noisy)
    fixed = objective.views(patches, positions, COUNTS, timestep=0)['video']
    assert fixed.timestep.tolist() == [0] * CLIPS
    np.testing.assert_allclose(
        fixed.noisy, take(np.asarray(patches['video']), np.asarray(fixed.decoded)), atol=0.3
    )


def test_training_sees_what_varies_and_evaluation_any_part(batch):
    frames = np.full_like(batch['frames'], 128)
    frames[:, 2:, 8:, 8:] = batch['frames'][:, 2:, 8:, 8:]  # the last of eight tokens
    config = change(masking={'contrast_power': 8.0})
    objective, uniform = PretrainingObjective(config), PretrainingObjective(CONFIG)
    many = {name: np.repeat(value, 25, axis=0) for name, value in (batch | {'frames': frames}).items()}
    many['position'] = np.arange(100, dtype=np.int32)
    seen = {}

    def apply(variables, views):
        seen.update(views)
        raise InterruptedError

    objective.model = uniform.model = type('Model', (), {'apply': staticmethod(apply)})()
    for one, expected in ((objective, 100), (uniform, 100 * 3 / 8)):
        with pytest.raises(InterruptedError):
            one.loss({}, many, COUNTS)
        for ids in (seen['video'].visible, seen['video'].second):
            assert (np.asarray(ids) == 7).sum() == pytest.approx(expected, abs=20)
    views = [o.views(to_patches(many, config), many['position'], COUNTS) for o in (objective, uniform)]
    jax.tree.map(np.testing.assert_array_equal, *views)


def test_the_reconstruction_of_a_clip_does_not_depend_on_its_batch(batch):
    # Contrastive terms depend on the whole batch. All pairs have one size, so the loss is compiled once.
    objective = PretrainingObjective(change(loss={'second_view': False}))
    params = random_params(objective, batch, COUNTS)
    metrics = jax.jit(lambda b: objective.loss(params, b, COUNTS)[1], compiler_options=QUICK)
    pair = {
        ids: metrics({name: value[list(ids)] for name, value in batch.items()})
        for ids in [(0, 0), (0, 1), (1, 1), (2, 3), (3, 1), (0, 2)]
    }
    for name in ('audio', 'video'):
        total = {ids: float(parts[name][0]) for ids, parts in pair.items()}
        assert total[0, 1] == pytest.approx((total[0, 0] + total[1, 1]) / 2, rel=1e-5)
        assert total[0, 1] + total[2, 3] == pytest.approx(total[0, 2] + total[3, 1], rel=1e-5)
        assert total[0, 0] != pytest.approx(total[1, 1], rel=1e-3)


def test_a_clip_has_no_terms_of_modalities_that_it_lacks(batch):
    objective = PretrainingObjective(CONFIG)
    params = random_params(objective, batch, COUNTS)
    compute = jax.jit(lambda b: objective.loss(params, b, COUNTS))
    everything = {'present': np.ones((CLIPS, 2), np.float32)}
    loss, metrics = compute(batch | everything)
    expected, whole = jax.jit(lambda b: objective.loss(params, b, COUNTS))(batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)

    present = everything['present'].copy()
    present[:2, 1] = 0  # the first two clips have no pictures
    _, metrics = compute(batch | {'present': present})
    counts = {name: float(count) for name, (_, count) in metrics.items()}
    assert counts['video'] == counts['inter'] == 2 and counts['audio'] == CLIPS
    assert float(metrics['audio'][0]) == pytest.approx(float(whole['audio'][0]), rel=1e-5)
    # The placeholder of missing pictures has no influence on their terms.
    changed = batch | {'present': present, 'frames': batch['frames'].copy()}
    changed['frames'][:2] = 0
    _, again = compute(changed)
    for name in ('video', 'inter'):
        assert float(again[name][0]) == pytest.approx(float(metrics[name][0]), rel=1e-5)


def test_the_inter_modal_term_may_be_the_mean_over_both_views(batch):
    config = change(loss={'second_view': True})
    alone, both = (PretrainingObjective(c) for c in (config, change(config, loss={'inter_both_views': True})))
    params = random_params(alone, batch, COUNTS)
    one, two = (
        jax.jit(lambda b, o=o: o.loss(params, b, COUNTS)[1], compiler_options=QUICK)(batch)
        for o in (alone, both)
    )
    views = alone._with_second_views(
        alone.views(to_patches(batch, config), batch['position'], COUNTS), batch['position'], COUNTS
    )
    outputs = alone.model.apply({'params': params}, views)
    second = outputs.second_pooled
    expected, _ = info_nce(second['audio'], second['video'], config.loss.inter_temperature)
    np.testing.assert_allclose(two['inter'][0], (one['inter'][0] + expected.sum()) / 2, rtol=1e-5)
    for name in one.keys() - {'inter', 'loss'}:
        np.testing.assert_allclose(one[name][0], two[name][0], rtol=1e-5)
    with pytest.raises(ConfigError, match='inter_both_views'):
        change(loss={'second_view': False, 'inter_both_views': True})


def test_sound_is_rolled_and_amplified_in_training_alone_by_the_place_of_the_clip():
    config = change(augmentation={'roll': True, 'gain': True}, data={'video_seconds': 0.1})
    objective = PretrainingObjective(config)
    clips = {'waveform': np.arange(3 * 4_800, dtype=np.int16).reshape(3, -1), 'position': np.arange(5, 8)}
    sounds = np.asarray(objective._augmented(clips)['waveform'])
    assert not np.allclose(sounds, clips['waveform'])
    for i in range(3):
        factor = np.sort(sounds[i])[-1] / clips['waveform'][i].max()
        np.testing.assert_allclose(np.sort(sounds[i]), clips['waveform'][i] * factor, rtol=1e-5, atol=1e-2)
    alone = {name: rows[1:2] for name, rows in clips.items()}
    np.testing.assert_array_equal(objective._augmented(alone)['waveform'], sounds[1:2])
    moved = clips | {'position': clips['position'] + 10}
    assert not np.allclose(objective._augmented(moved)['waveform'], sounds)
    plain = PretrainingObjective(CONFIG)._augmented(clips)
    assert plain['waveform'] is clips['waveform']


def test_the_inter_modal_term_may_be_a_sigmoid_loss(batch):
    config = change(loss={'inter_kind': 'sigmoid', 'sigmoid_bias': -3.0, 'second_view': False})
    objective = PretrainingObjective(config)
    params = random_params(objective, batch, COUNTS)
    _, metrics = jax.jit(lambda b: objective.loss(params, b, COUNTS), compiler_options=QUICK)(batch)
    views = objective.views(to_patches(batch, config), batch['position'], COUNTS)
    pooled = objective.model.apply({'params': params}, views).pooled
    expected, _ = sigmoid(pooled['audio'], pooled['video'], config.loss.inter_temperature, -3.0)
    np.testing.assert_allclose(metrics['sigmoid'][0], expected.sum(), rtol=1e-5)
    assert 'inter' not in metrics
