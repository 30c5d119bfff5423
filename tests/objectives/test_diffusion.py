import math
import pathlib

import jax
import numpy as np
import pytest

from diffmavil_jax.config.network import DiffusionConfig
from diffmavil_jax.objectives import diffusion

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'data' / 'golden' / 'diffusion.npz')


def schedule(name='linear', rho=1.0, timesteps=1000):
    return diffusion.alphas_cumprod(DiffusionConfig(schedule=name, rho=rho, timesteps=timesteps))


@pytest.mark.parametrize('name', ['linear', 'cosine'])
def test_alphas_cumprod_match_diffusers(name):
    # diffusers holds its betas in float32.
    np.testing.assert_allclose(schedule(name), GOLDEN[f'{name}_alphas_cumprod'], rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
def test_diffused_patches_match_diffusers(name):
    x0, eps, t, xt = (GOLDEN[f'{name}_{key}'] for key in ('x0', 'eps', 't', 'xt'))
    alpha_bar = schedule(name)[t].astype(np.float32)
    ours = diffusion.diffuse(x0[:, None], eps[:, None], alpha_bar)
    np.testing.assert_allclose(ours[:, 0], xt, atol=1e-5)


@pytest.mark.parametrize(
    ('rho', 'levels'),
    [
        (1.0, (0.998, 0.970, 0.895, 0.521, 0.078)),
        (0.8, (0.988, 0.876, 0.655, 0.124, 8e-4)),
        (0.6, (0.936, 0.561, 0.195, 1e-3, 0.0)),
    ],
)
def test_signal_levels_of_rho(rho, levels):
    for t, expected in zip((10, 50, 100, 250, 500), levels, strict=True):
        assert schedule(rho=rho)[t] == pytest.approx(expected, abs=1.5e-3 if expected > 2e-3 else 3e-4)


def test_rho_is_the_power_of_each_beta():
    level = 1.0
    for t, ours in enumerate(schedule(rho=0.7, timesteps=50)):
        level *= 1 - (1e-4 + (0.02 - 1e-4) * t / 49) ** 0.7
        assert ours == pytest.approx(level, rel=1e-12)


def test_cosine_schedule_is_its_formula_until_the_cap():
    def signal(t):
        return math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2

    ours = schedule('cosine', timesteps=100)
    assert ours[49] == pytest.approx(signal(50) / signal(0), rel=1e-9)
    assert ours[99] / ours[98] == pytest.approx(1e-3)  # the last beta is capped at 0.999


@pytest.fixture(scope='module')
def sample():
    rng = np.random.default_rng(0)
    patches, noise = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    alpha_bar = np.array([0.9, 0.5, 0.1], np.float32)
    return patches, noise, alpha_bar, np.asarray(diffusion.diffuse(patches, noise, alpha_bar))


def test_diffusion_is_one_noise_level_a_clip(sample):
    patches, noise, alpha_bar, diffused = sample
    for i, level in enumerate(alpha_bar):
        expected = math.sqrt(level) * patches[i] + math.sqrt(1 - level) * noise[i]
        np.testing.assert_allclose(diffused[i], expected, atol=1e-6)
    ends = np.asarray(diffusion.diffuse(patches, noise, np.array([1.0, 0.0, 1.0], np.float32)))
    np.testing.assert_allclose(ends, np.stack([patches[0], noise[1], patches[2]]), atol=1e-7)


def test_targets(sample):
    patches, noise, alpha_bar, _ = sample
    np.testing.assert_array_equal(diffusion.prediction_target('x0', patches, noise, alpha_bar), patches)
    np.testing.assert_array_equal(diffusion.prediction_target('eps', patches, noise, alpha_bar), noise)
    velocity = diffusion.prediction_target('v', patches, noise, alpha_bar)
    for i, level in enumerate(alpha_bar):
        expected = math.sqrt(level) * noise[i] - math.sqrt(1 - level) * patches[i]
        np.testing.assert_allclose(velocity[i], expected, atol=1e-6)


@pytest.mark.parametrize('target', ['x0', 'eps', 'v'])
def test_a_perfect_prediction_of_any_target_gives_the_clean_patches(sample, target):
    patches, noise, alpha_bar, diffused = sample
    prediction = diffusion.prediction_target(target, patches, noise, alpha_bar)
    recovered = diffusion.predicted_x0(target, prediction, diffused, alpha_bar)
    np.testing.assert_allclose(recovered, patches, atol=2e-6)


def test_noise_is_standard_normal_and_each_clip_its_own():
    keys = jax.random.split(jax.random.key(0), 8)
    noise = np.asarray(diffusion.draw_noise(keys, (50, 40)))
    assert noise.shape == (8, 50, 40)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(diffusion.draw_noise(keys[3:5], (50, 40)), noise[3:5])
