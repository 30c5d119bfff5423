import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.network import DiffusionConfig
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.frontend import pixels, spectrogram_range
from diffmavil_jax.objectives.diffusion import alphas_cumprod, predicted_x0, prediction_target
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.objectives.sampling import (
    ddim_updates,
    make_steps,
    sample,
    sample_masked,
    step_limits,
    timesteps,
    update,
)

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'data' / 'golden' / 'diffusion.npz')
VISIBLE = {'audio': 1, 'video': 3}
SIZES = {'audio': (4, 256), 'video': (8, 384)}  # of conftest's tiny config
HALF = {
    'model': {'audio_decoder': 'cross', 'decoded_fraction': 0.5},
    'diffusion': {'target': 'v', 'conditioning': 'adaln'},
}


def golden_steps(tiny, name):
    return make_steps(tiny(diffusion={'schedule': name, 'rho': 1.0}), 10)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
class TestAgainstDiffusers:
    def test_trajectory(self, tiny, name):
        steps = golden_steps(tiny, name)
        np.testing.assert_array_equal(steps.timesteps, GOLDEN[f'{name}_ddim_timesteps'])
        x = GOLDEN[f'{name}_eps']
        for weights, expected in zip(steps.updates, GOLDEN[f'{name}_ddim_trajectory'], strict=True):
            x = update(x, 0.7 * x, weights, 0.0)
            np.testing.assert_allclose(x, expected, atol=1e-5)

    def test_sample_is_the_last_estimate(self, tiny, name):
        start = jnp.asarray(GOLDEN[f'{name}_eps'])[:, None]
        ours = sample(lambda x, t: 0.7 * x, start, golden_steps(tiny, name), keys(4))
        # The last step stays at the level of t = 0, so x is the same before and after it.
        np.testing.assert_allclose(ours[:, 0], 0.7 * GOLDEN[f'{name}_ddim_trajectory'][-1], atol=1e-5)


def test_one_step_is_the_last_of_the_schedule():
    np.testing.assert_array_equal(timesteps(1000, 1), [999])
    np.testing.assert_array_equal(timesteps(1000, 3), [666, 333, 0])
    np.testing.assert_array_equal(timesteps(3, 3), [2, 1, 0])


def test_ancestral_is_the_posterior_of_ho(tiny):
    """Ho et al. 2020, with the beta of a step between any two levels."""
    steps = make_steps(tiny(diffusion={'rho': 1.0}), 8, 'ancestral')
    levels = alphas_cumprod(DiffusionConfig(rho=1.0))
    for row, (t, following) in enumerate(zip(steps.timesteps, [*steps.timesteps[1:], 0], strict=True)):
        level, below = levels[t], levels[following]
        beta = 1 - level / below
        expected = [
            np.sqrt(below) * beta / (1 - level),
            np.sqrt(1 - beta) * (1 - below) / (1 - level),
            np.sqrt((1 - below) / (1 - level) * beta),
        ]
        np.testing.assert_allclose(steps.updates[row], expected, atol=1e-12)


@pytest.mark.parametrize('eta', [0.0, 0.3, 1.0])
def test_each_update_reaches_its_level(eta):
    """Given the true x_0, signal and noise of x_t become those of the level below."""
    levels = alphas_cumprod(DiffusionConfig())[[900, 500, 100]]
    below = alphas_cumprod(DiffusionConfig())[[500, 100, 0]]
    of_x0, of_x, of_noise = ddim_updates(levels, below, eta).T
    np.testing.assert_allclose(of_x0 + of_x * np.sqrt(levels), np.sqrt(below), atol=1e-12)
    np.testing.assert_allclose(of_x**2 * (1 - levels) + of_noise**2, 1 - below, atol=1e-12)
    assert (of_noise > 0).all() == (eta > 0)


@pytest.mark.parametrize(
    ('target', 'sampler', 'eta'),
    [('x0', 'ddim', 0.0), ('v', 'ddim', 0.5), ('eps', 'ddim', 0.0), ('eps', 'ancestral', 0.0)],
)
def test_the_best_denoiser_of_a_normal_distribution_gives_its_samples(tiny, target, sampler, eta):
    mean, scale = 0.5, 0.4
    config = tiny()
    levels = jnp.asarray(alphas_cumprod(config.diffusion), jnp.float32)

    def estimate(x, t):
        signal = jnp.sqrt(levels[t])
        gain = scale**2 * signal / (levels[t] * scale**2 + 1 - levels[t])
        x0 = mean + gain * (x - signal * mean)
        level = jnp.full(len(x), levels[t])
        noise = (x - signal * x0) / jnp.sqrt(1 - levels[t])
        prediction = prediction_target(target, x0, noise, level)
        return predicted_x0(target, prediction, x, level)

    start = jax.random.normal(jax.random.key(1), (64, 8, 32))
    steps = make_steps(config, 1000, sampler, eta)
    result = np.asarray(jax.jit(lambda x: sample(estimate, x, steps, keys(64)))(start))
    # Of 16,384 draws; a finite number of steps loses some of the scale.
    assert result.mean() == pytest.approx(mean, abs=0.015)
    assert result.std() == pytest.approx(scale, rel=0.03)


@pytest.mark.parametrize('sampler', ['ddim', 'ancestral'])
def test_a_perfect_estimate_is_reached_from_any_start(tiny, sampler):
    x0 = jax.random.normal(jax.random.key(1), (2, 3, 4))
    steps = make_steps(tiny(), 7, sampler)
    for start in (jnp.zeros_like(x0), 5.0 * x0[::-1]):
        np.testing.assert_array_equal(sample(lambda x, t: x0, start, steps, keys(2)), x0)


def test_each_clip_and_step_has_its_own_fresh_noise(tiny):
    steps = make_steps(tiny(), 3, 'ancestral')
    draws = dataclasses.replace(steps, updates=np.array([[0, 1, 1.0]] * 3))
    walk = sample(lambda x, t: x, jnp.zeros((3, 4, 500)), draws, keys(3))
    assert np.asarray(walk).std(axis=(1, 2)) == pytest.approx([np.sqrt(2)] * 3, rel=0.1)
    assert abs(np.corrcoef(walk[0].ravel(), walk[1].ravel())[0, 1]) < 0.1
    again = sample(lambda x, t: x, jnp.zeros((2, 4, 500)), draws, keys(3)[1:])
    np.testing.assert_array_equal(again, walk[1:])


class Network:
    """A tiny network whose parameters are all nonzero, and two clips."""

    def __init__(self, config):
        self.config, self.objective = config, PretrainingObjective(config)
        rng = np.random.default_rng(0)
        self.patches = {m: rng.normal(size=(2, *size)).astype(np.float32) for m, size in SIZES.items()}
        self.positions = jnp.array([3, 8])
        batch = {
            'waveform': np.zeros((1, 16_000), np.int16),
            'frames': np.zeros((1, 4, 16, 16, 3), np.uint8),
            'position': np.zeros(1, np.int32),
        }
        counts = {m: TokenCounts(k, 1) for m, k in VISIBLE.items()}
        shapes = jax.eval_shape(lambda key: self.objective.init(key, batch, counts), jax.random.key(0))
        self.params = jax.tree.map(
            lambda p: 0.2 * rng.normal(size=p.shape).astype(np.float32), nn.meta.unbox(shapes['params'])
        )

        self._compiled = {}

    def sample(self, count, sampler='ddim', *, visible=VISIBLE, patches=None, seed=0):
        """Compiled once for each way to sample."""
        key = count, sampler, str(visible), seed
        if key not in self._compiled:
            steps = make_steps(self.config, count, sampler)
            objective = PretrainingObjective(dataclasses.replace(self.config, seed=seed))
            self._compiled[key] = jax.jit(
                lambda params, patches: sample_masked(
                    objective, params, patches, self.positions, visible, steps
                )
            )
        return self._compiled[key](self.params, patches or self.patches)


@pytest.fixture(scope='module')
def networks(tiny):
    """The tiny network with changes, made once."""
    made = {}

    def make(**changes):
        key = str(changes)
        if key not in made:
            made[key] = Network(tiny(**changes))
        return made[key]

    return make


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'model': {'video_decoder': 'cross_self'}, 'diffusion': {'target': 'eps', 'conditioning': 'add'}},
        HALF,
    ],
    ids=['x0', 'eps', 'v, half decoded in training'],
)
def test_sampling_is_the_whole_network_step_by_step(networks, changes):
    """Compares with a loop over the model's __call__ and the update of Song et al. as printed."""
    network = networks(**changes)
    config, objective = network.config, network.objective
    steps = make_steps(config, 3)
    views, samples = network.sample(3)
    levels = alphas_cumprod(config.diffusion)
    call = jax.jit(objective.model.apply)
    ranges = {'audio': spectrogram_range(config.audio, 16_000)}
    shades = np.array([0, 255], np.uint8)[:, None, None, None, None].repeat(3, axis=-1)
    ranges['video'] = (
        np.asarray(pixels(shades, config.video)).reshape(2, 3).repeat(128, axis=0).reshape(2, -1, 3)
    )
    for step, t in enumerate(steps.timesteps):
        here = {m: dataclasses.replace(v, timestep=jnp.full(2, t)) for m, v in views.items()}
        outputs = call({'params': network.params}, here)
        for modality, view in here.items():
            x, prediction = np.asarray(view.noisy), np.asarray(outputs.predictions[modality])
            signal, level = np.sqrt(levels[t]), np.sqrt(1 - levels[t])
            x0 = {
                'x0': prediction,
                'v': signal * x - level * prediction,
                'eps': (x - level * prediction) / signal,
            }[config.diffusion.target]
            if config.diffusion.target == 'eps':
                low, high = (np.resize(bound, x0.shape[-1]) for bound in ranges[modality])
                x0 = np.clip(x0, low, high)
            if step == len(steps.timesteps) - 1:
                np.testing.assert_allclose(samples[modality], x0, atol=1e-4)
            else:
                below = levels[steps.timesteps[step + 1]]
                x = np.sqrt(below) * x0 + np.sqrt(1 - below) * (x - signal * x0) / level
                views[modality] = dataclasses.replace(view, noisy=jnp.asarray(x, jnp.float32))


def test_hidden_tokens_are_sampled_and_no_others(networks):
    network = networks(**HALF)
    views, samples = network.sample(3)
    for modality, (tokens, values) in SIZES.items():
        view = views[modality]
        assert samples[modality].shape == (2, tokens - VISIBLE[modality], values)
        ids = np.sort(np.concatenate([view.visible, view.decoded], axis=1))
        np.testing.assert_array_equal(ids, np.tile(np.arange(tokens), (2, 1)))
        np.testing.assert_array_equal(view.patches, network.patches[modality])


def test_what_is_hidden_has_no_influence_and_what_is_visible_has(networks):
    network = networks()
    views, samples = network.sample(3)

    def changed(ids):
        patches = {m: p.copy() for m, p in network.patches.items()}
        for modality in patches:
            for clip, chosen in enumerate(np.asarray(ids(views[modality]))):
                patches[modality][clip, chosen] += 1 + np.arange(SIZES[modality][1]) % 3
        return network.sample(3, patches=patches)[1]

    hidden, visible = changed(lambda view: view.decoded), changed(lambda view: view.visible)
    for modality in SIZES:
        np.testing.assert_array_equal(hidden[modality], samples[modality])
        assert np.abs(visible[modality] - samples[modality]).max() > 1e-3


def test_the_seed_determines_everything(networks):
    network = networks()
    views, samples = network.sample(3, 'ancestral')
    _, same = network.sample(3, 'ancestral')
    _, without_fresh_noise = network.sample(3)
    other_views, other = network.sample(3, 'ancestral', seed=6)
    for modality in SIZES:
        np.testing.assert_array_equal(samples[modality], same[modality])
        assert (samples[modality] != without_fresh_noise[modality]).any()
        assert (samples[modality] != other[modality]).any()
        assert (views[modality].noisy != other_views[modality].noisy).all()


@pytest.mark.parametrize('modality', ['audio', 'video'])
def test_a_modality_is_made_from_the_other_alone(networks, modality):
    network = networks()
    (other,) = SIZES.keys() - {modality}
    visible = {modality: 0, other: SIZES[other][0]}
    views, samples = network.sample(2, visible=visible)
    assert samples[modality].shape == (2, *SIZES[modality]) and samples[other].shape[1] == 0
    assert np.isfinite(samples[modality]).all()

    def differs(changed):
        patches = network.patches | {changed: -network.patches[changed]}
        again = network.sample(2, visible=visible, patches=patches)[1]
        return np.abs(again[modality] - samples[modality]).max()

    assert differs(modality) == 0 and differs(other) > 1e-5


class TestOneStepOnly:
    def test_mask_tokens(self, networks):
        network = networks(diffusion={'enabled': False})
        views, samples = network.sample(1)
        outputs = jax.jit(network.objective.model.apply)({'params': network.params}, views)
        for modality in SIZES:
            np.testing.assert_allclose(samples[modality], outputs.predictions[modality], atol=1e-5)
        with pytest.raises(ConfigError, match='steps = 2: must be 1; this network starts from mask tokens'):
            make_steps(network.config, 2)

    def test_normalised_targets(self, tiny):
        config = tiny(loss={'normalize_targets': True})
        assert step_limits(config) == (1, 1)
        with pytest.raises(ConfigError, match='steps = 5: must be 1; this network predicts normalised'):
            make_steps(config, 5)


@pytest.mark.parametrize(
    ('changes', 'arguments', 'message'),
    [
        ({}, (0,), 'steps = 0: must be from 1 to 1000'),
        ({}, (1001,), 'steps = 1001: must be from 1 to 1000'),
        ({'target': 'eps'}, (1,), 'steps = 1: must be from 2 to 1000; this network predicts the noise'),
        ({}, (5, 'euler'), "sampler = 'euler': must be one of ddim, ancestral"),
        ({}, (5, 'ddim', 1.5), 'eta = 1.5: must be from 0 to 1'),
        ({}, (5, 'ancestral', 0.5), 'eta = 0.5: must be 0 with sampler=ancestral'),
    ],
)
def test_what_is_refused(tiny, changes, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_steps(tiny(diffusion=changes), *arguments)
