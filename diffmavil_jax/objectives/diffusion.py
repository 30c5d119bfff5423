"""The noise schedule, diffused patches, and what the decoder predicts.

Linear betas (Ho et al. 2020) or the cosine schedule (Nichol and Dhariwal 2021), each beta
raised to rho (DiffMAE: Wei et al. 2023); x_0, eps or v targets (Salimans and Ho 2022).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from diffmavil_jax.config.network import DiffusionConfig


def alphas_cumprod(config: DiffusionConfig) -> Float[np.ndarray, ' timesteps']:
    """The signal level after each step, in float64; index t is the level after t + 1 steps of noise."""
    steps = config.timesteps
    if config.schedule == 'linear':
        betas = np.linspace(1e-4, 0.02, steps)
    else:
        level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - level[1:] / level[:-1], 0.999)
    return np.cumprod(1 - betas**config.rho)


def diffuse(
    patches: Float[Array, 'b n p'], noise: Float[Array, 'b n p'], alpha_bar: Float[Array, ' b']
) -> Float[Array, 'b n p']:
    """Draws x_t from q(x_t | x_0), one noise level for each clip (Ho et al. 2020).

    Args:
        patches: clean patches x_0, in the units of the front end (normalised log-mel or pixels).
        noise: standard normal, the same shape.
        alpha_bar: cumulative signal level in [0, 1]; 1 is clean.
    """
    # alpha_bar stays float32: 0.9999 rounds to 1 in bfloat16, and the noise would vanish.
    signal, level = _levels(alpha_bar)
    return signal * patches + level * noise


def prediction_target(
    kind: str, patches: Float[Array, 'b n p'], noise: Float[Array, 'b n p'], alpha_bar: Float[Array, ' b']
) -> Float[Array, 'b n p']:
    """What the decoder regresses: x_0, eps, or v = sqrt(abar) eps - sqrt(1 - abar) x_0."""
    if kind == 'x0':
        return patches
    if kind == 'eps':
        return noise
    signal, level = _levels(alpha_bar)
    return signal * noise - level * patches


def predicted_x0(
    kind: str,
    prediction: Float[Array, 'b n p'],
    diffused: Float[Array, 'b n p'],
    alpha_bar: Float[Array, ' b'],
) -> Float[Array, 'b n p']:
    """The estimate of x_0 that a prediction of `kind` implies, given x_t."""
    if kind == 'x0':
        return prediction
    signal, level = _levels(alpha_bar)
    if kind == 'eps':
        return (diffused - level * prediction) / signal
    return signal * diffused - level * prediction


def draw_noise(keys: Key[Array, ' b'], shape: tuple[int, int]) -> Float[Array, 'b n p']:
    """Standard normal noise for each clip."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _levels(alpha_bar: Float[Array, ' b']) -> tuple[jax.Array, jax.Array]:
    alpha_bar = alpha_bar[:, None, None]
    return jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)
