"""Augmentation within the step. What a clip draws depends on its own random key alone.

`data.take` draws what is cut out of longer sound and larger pictures. Mixing is the only one that needs a
second clip: it takes the next one of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

from diffmavil_jax.config.augmentation import AugmentationConfig

# The median of so many uniform numbers has the distribution Beta(10, 10), and is drawn without a loop.
_UNIFORMS = 19


def augment_sound(
    waveform: Num[Array, 'b samples'], config: AugmentationConfig, keys: Callable[[str], Key[Array, ' b']]
) -> Num[Array, 'b samples']:
    """Rolls and amplifies each sound as the config says.

    Args:
        waveform: sounds.
        config: what is changed.
        keys: from the name of a random stream to a key for each sound.
    """
    if config.roll:
        waveform = roll(waveform, keys('roll'))
    if config.gain:
        waveform = amplify(waveform, keys('amplitude'))
    if config.gain_db:
        waveform = gain(waveform, keys('gain'), config.gain_db)
    return waveform


def roll(waveform: Num[Array, 'b samples'], keys: Key[Array, ' b']) -> Num[Array, 'b samples']:
    """Shifts each sound by a uniformly drawn time; what leaves one end enters at the other."""
    samples = waveform.shape[1]
    shifts = jax.vmap(lambda key: jax.random.randint(key, (), 0, samples))(keys)
    return jax.vmap(jnp.roll)(waveform, shifts)


def gain(
    waveform: Num[Array, 'b samples'], keys: Key[Array, ' b'], decibels: float
) -> Float[Array, 'b samples']:
    """Makes each sound louder or softer by a uniformly drawn level of up to `decibels`."""
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (), minval=-decibels, maxval=decibels))(keys)
    return waveform.astype(jnp.float32) * 10 ** (drawn[:, None] / 20)


def amplify(waveform: Num[Array, 'b samples'], keys: Key[Array, ' b']) -> Float[Array, 'b samples']:
    """Multiplies each sound by 0.5 + Beta(10, 10), as AudioMAE does after rolling it."""

    def draw(key: jax.Array) -> jax.Array:
        return 0.5 + jnp.sort(jax.random.uniform(key, (_UNIFORMS,)))[_UNIFORMS // 2]

    return waveform.astype(jnp.float32) * jax.vmap(draw)(keys)[:, None]


def mixing_weights(keys: Key[Array, ' b'], rate: float, alpha: float) -> Float[Array, ' b']:
    """The weight of each clip in its mixture: with probability `rate` from Beta(alpha, alpha), else 1."""

    def draw(key: jax.Array) -> jax.Array:
        whether, weight = jax.random.split(key)
        mixed = jax.random.uniform(whether) < rate
        return jnp.where(mixed, jax.random.beta(weight, alpha, alpha), 1.0)

    return jax.vmap(draw)(keys)


def mix(x: Num[Array, 'b ...'], weights: Float[Array, ' b']) -> Float[Array, 'b ...']:
    """weight * clip + (1 - weight) * the next clip of the batch (mixup: Zhang et al. 2018)."""
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))
    x = x.astype(jnp.float32)
    return weights * x + (1 - weights) * jnp.roll(x, -1, axis=0)


def mix_waveforms(
    waveform: Num[Array, 'b samples'], weights: Float[Array, ' b']
) -> Float[Array, 'b samples']:
    """Mixes sounds without their means, so that a constant offset of one does not reach the other."""
    waveform = waveform.astype(jnp.float32)
    return mix(waveform - waveform.mean(axis=1, keepdims=True), weights)


def blank_stripe(
    spectrogram: Float[Array, 'b t f'], keys: Key[Array, ' b'], widest: int, axis: int, fill: float = 0.0
) -> Float[Array, 'b t f']:
    """Fills one stripe of up to `widest` - 1 frames (axis 1) or mel bins (axis 2).

    SpecAugment (Park et al. 2019) fills it with the mean, which is 0 after normalisation. AudioMAE blanks a
    stripe before normalisation, so that it has `FrontEnd.of_zero` after it.
    """
    size = spectrogram.shape[axis]

    def stripe(key: jax.Array) -> jax.Array:
        width_key, start_key = jax.random.split(key)
        width = (jax.random.uniform(width_key) * min(widest, size)).astype(jnp.int32)
        start = (jax.random.uniform(start_key) * (size - width + 1)).astype(jnp.int32)
        index = jnp.arange(size)
        return (index < start) | (index >= start + width)

    kept = jnp.expand_dims(jax.vmap(stripe)(keys), 3 - axis)
    return jnp.where(kept, spectrogram, fill)


def random_lines(keys: Key[Array, ' b'], grid: tuple[int, int], kept: tuple[int, int]) -> Int[Array, 'b k']:
    """Tokens where randomly kept times and frequencies cross, in order (AudioMAE)."""

    def draw(key: jax.Array) -> jax.Array:
        chosen = [
            jnp.sort(jnp.argsort(jax.random.uniform(k, (size,)))[:count])
            for k, size, count in zip(jax.random.split(key), grid, kept, strict=True)
        ]
        return (chosen[0][:, None] * grid[1] + chosen[1]).reshape(-1)

    return jax.vmap(draw)(keys)


def drop_path_scales(
    keys: Key[Array, ' b'], depth: int, first: int, total: int, rate: float
) -> Float[Array, 'depth b 2']:
    """Factors of stochastic depth: 0 where a branch is dropped, else 1 / (1 - its rate); their mean is 1.

    Args:
        keys: one for each clip.
        depth: layers of the stack.
        first: layers of the network before the stack.
        total: layers of the network; the rate rises linearly from 0 in the first to `rate` in the last.
        rate: probability to drop a branch of the last layer.
    """
    rates = rate * (first + jnp.arange(depth)) / max(total - 1, 1)

    def draw(key: jax.Array) -> jax.Array:
        kept = jax.random.uniform(key, (depth, 2)) >= rates[:, None]
        return kept / (1 - rates[:, None])

    return jax.vmap(draw, out_axes=1)(keys)
