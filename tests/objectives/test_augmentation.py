"""Each augmentation: what it keeps, how it is distributed, and that a draw depends on its clip alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.augmentation import AugmentationConfig
from diffmavil_jax.config.clips import FRONT_ENDS
from diffmavil_jax.objectives import augmentation
from diffmavil_jax.objectives.randomness import clip_keys

KEYS = clip_keys(3, 'test', jnp.arange(400))


def test_roll_shifts_each_clip_by_its_own_time():
    x = jnp.broadcast_to(jnp.arange(100), (400, 100))
    rolled = np.asarray(augmentation.roll(x, KEYS))
    assert (np.sort(rolled, axis=1) == np.arange(100)).all()
    assert (np.diff(rolled, axis=1) % 100 == 1).all()
    assert len(np.unique(rolled[:, 0])) > 80
    np.testing.assert_array_equal(augmentation.roll(x[7:9], KEYS[7:9]), rolled[7:9])


def test_gain_is_uniform_in_decibels():
    louder = augmentation.gain(jnp.full((400, 3), 1000, jnp.int16), KEYS, 6.0)
    decibels = 20 * np.log10(np.asarray(louder)[:, 0] / 1000)
    assert -6 <= decibels.min() < -5.5 and 5.5 < decibels.max() <= 6
    assert abs(decibels.mean()) < 0.5


def test_mixing_weights_are_one_or_from_the_beta_distribution():
    weights = np.asarray(augmentation.mixing_weights(KEYS, 0.5, 10.0))
    mixed = weights[weights < 1]
    assert len(mixed) == pytest.approx(200, abs=40)
    assert mixed.mean() == pytest.approx(0.5, abs=0.03)
    assert mixed.std() == pytest.approx(np.sqrt(1 / (4 * 21)), abs=0.02)


def test_mix_takes_the_next_clip_of_the_batch():
    x = jnp.array([[1.0, 0], [0, 1], [0, 0]])
    mixed = augmentation.mix(x, jnp.array([0.7, 1.0, 0.2]))
    np.testing.assert_allclose(mixed, [[0.7, 0.3], [0, 1], [0.8, 0]], atol=1e-6)


def test_mixed_waveforms_have_no_offset():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5000, (4, 50)), jnp.int16)
    mixed = augmentation.mix_waveforms(x, jnp.array([0.3, 1.0, 0.5, 0.9]))
    np.testing.assert_allclose(mixed.mean(axis=1), 0, atol=1e-2)
    np.testing.assert_allclose(mixed[1], x[1] - x[1].astype(jnp.float32).mean(), atol=1e-2)


@pytest.mark.parametrize('axis', [1, 2])
def test_a_stripe_is_blanked_along_one_axis(axis):
    blanked = np.asarray(augmentation.blank_stripe(jnp.ones((400, 30, 20)), KEYS, 8, axis))
    lines = blanked.all(axis=3 - axis)
    assert (blanked.any(axis=3 - axis) == lines).all()
    widths = (~lines).sum(axis=1)
    assert widths.min() == 0 and widths.max() == 7
    assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2).all()


def test_random_lines_are_crossings_in_order():
    ids = np.asarray(augmentation.random_lines(KEYS, (6, 4), (3, 2)))
    assert ids.shape == (400, 6) and (np.diff(ids, axis=1) > 0).all()
    times, frequencies = ids // 4, ids % 4
    assert all(len(set(row)) == 3 for row in times) and all(len(set(row)) == 2 for row in frequencies)
    np.testing.assert_allclose(np.bincount(times.ravel()) / times.size, 1 / 6, atol=0.03)


def test_branches_are_dropped_more_often_in_later_layers_and_keep_their_mean():
    kept = np.asarray(augmentation.drop_path_scales(clip_keys(0, 'x', jnp.arange(4_000)), 4, 2, 6, 0.5))
    assert kept.shape == (4, 4_000, 2)
    rates = 0.5 * np.arange(2, 6) / 5
    np.testing.assert_allclose((kept == 0).mean(axis=(1, 2)), rates, atol=0.02)
    np.testing.assert_allclose(kept.mean(axis=(1, 2)), 1, atol=0.05)


def test_nothing_is_dropped_at_rate_zero():
    assert (jax.device_get(augmentation.drop_path_scales(KEYS, 3, 0, 3, 0.0)) == 1).all()


def test_the_amplitude_is_half_and_a_beta_variable():
    louder = np.asarray(augmentation.amplify(jnp.full((400, 3), 1_000, jnp.int16), KEYS))
    factors = louder[:, 0] / 1_000
    np.testing.assert_array_equal(louder, louder[:, :1].repeat(3, axis=1))
    expected = np.quantile(np.random.default_rng(0).beta(10, 10, 100_000) + 0.5, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(np.quantile(factors, [0.1, 0.25, 0.5, 0.75, 0.9]), expected, atol=0.03)
    assert factors.min() > 0.5 and factors.max() < 1.5


def test_sound_is_rolled_and_amplified_as_the_config_says():
    x = jnp.asarray(np.random.default_rng(0).integers(-9_000, 9_000, (4, 50)), jnp.int16)

    def augmented(**fields):
        return augmentation.augment_sound(
            x, AugmentationConfig(**fields), lambda stream: clip_keys(3, stream, jnp.arange(4))
        )

    np.testing.assert_array_equal(augmented(flip=1.0, random_start=True), x)
    rolled, amplified = np.asarray(augmented(roll=True)), np.asarray(augmented(gain=True))
    np.testing.assert_array_equal(np.sort(rolled), np.sort(x))
    assert len(set(np.round((amplified / np.asarray(x))[:, 0], 4))) == 4
    both = np.asarray(augmented(roll=True, gain=True))
    np.testing.assert_allclose(both, rolled * (amplified / np.asarray(x))[:, :1], rtol=1e-5)


def test_a_stripe_has_what_audiomae_puts_there():
    front_end = FRONT_ENDS['audiomae']
    assert front_end.of_zero == pytest.approx(0.467, abs=1e-3)
    raw = np.random.default_rng(0).normal(-4, 4, (3, 30, 20)).astype(np.float32)
    scale = front_end.divisor * front_end.std
    blanked = augmentation.blank_stripe((raw - front_end.mean) / scale, KEYS[:3], 8, 1, front_end.of_zero)
    before = augmentation.blank_stripe(jnp.asarray(raw), KEYS[:3], 8, 1)  # as torchaudio: 0, then normalised
    np.testing.assert_allclose(blanked, (before - front_end.mean) / scale, atol=1e-5)
