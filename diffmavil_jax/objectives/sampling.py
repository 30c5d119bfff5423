"""Sampling of masked patches: DDIM (Song et al. 2021) and ancestral (Ho et al. 2020), on estimates of x_0.

Visible patches are encoded and fused once; each step runs a decoder. They are not diffused, and stay as
they are (DiffMAE: Wei et al. 2023).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.frontend import pixels, spectrogram_range
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.pretraining import View
from diffmavil_jax.objectives.diffusion import alphas_cumprod, draw_noise
from diffmavil_jax.objectives.masking import random_masks
from diffmavil_jax.objectives.pretraining import PretrainingObjective
from diffmavil_jax.objectives.randomness import clip_keys

SAMPLERS = ('ddim', 'ancestral')

# From x_t and the step's number to an estimate of x_0.
Estimate = Callable[[Float[Array, 'b m p'], Int[Array, '']], Float[Array, 'b m p']]


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps from pure noise to x_0, in float64: float32 rounds signal levels near 1 too coarsely.

    Attributes:
        timesteps: where x_0 is estimated, in falling order.
        updates: weights of the estimate, of x_t and of fresh noise in the next x_t.
    """

    timesteps: Int[np.ndarray, ' s']
    updates: Float[np.ndarray, 's 3']

    @property
    def draws(self) -> bool:
        """Whether any step takes fresh noise."""
        return bool(self.updates[:, 2].any())


def make_steps(config: Config, count: int, sampler: str = 'ddim', eta: float = 0.0) -> Steps:
    """The steps of a sampler through the schedule of a run.

    Args:
        config: of the run.
        count: see `step_limits`.
        sampler: `ddim`; or `ancestral`, which is DDIM with eta = 1 (Song et al. 2021).
        eta: of `ddim`, from 0 to 1; with 0, noise is drawn only at the start.

    Raises:
        ConfigError: the network cannot be sampled in this way.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f'sampler = {sampler!r}: must be one of {", ".join(SAMPLERS)}.')
    if not 0 <= eta <= 1:
        raise ConfigError(f'eta = {eta:g}: must be from 0 to 1.')
    if eta and sampler != 'ddim':
        raise ConfigError(f'eta = {eta:g}: must be 0 with sampler={sampler}, whose noise it does not scale.')
    least, most = step_limits(config)
    if not least <= count <= most:
        allowed = f'from {least} to {most}' if least < most else str(least)
        raise ConfigError(f'steps = {count}: must be {allowed}; {_why(config)}.')
    levels = alphas_cumprod(config.diffusion)
    chosen = timesteps(config.diffusion.timesteps, count)
    # There is no level below t = 0: that of t = 0 is used again, as in diffusers without set_alpha_to_one.
    below = np.append(levels[chosen[1:]], levels[0])
    return Steps(chosen, ddim_updates(levels[chosen], below, 1.0 if sampler == 'ancestral' else eta))


def step_limits(config: Config) -> tuple[int, int]:
    """The fewest and the most steps that a network can be sampled in."""
    if not config.diffusion.enabled or config.loss.normalize_targets:
        return 1, 1
    return 2 if config.diffusion.target == 'eps' else 1, config.diffusion.timesteps


def timesteps(total: int, count: int) -> Int[np.ndarray, ' s']:
    """`count` of `total` time steps, equally far apart, down to 0 (Song et al. 2021, linear).

    One alone is the last of the schedule: x_0 from pure noise.
    """
    if count == 1:
        return np.array([total - 1])
    return np.arange(count)[::-1] * (total // count)


def ddim_updates(
    alpha_bar: Float[np.ndarray, ' s'], below: Float[np.ndarray, ' s'], eta: float
) -> Float[np.ndarray, 's 3']:
    """Weights of x_0, x_t and fresh noise in x at the level `below` (Song et al. 2021)."""
    sigma = eta * np.sqrt((1 - below) / (1 - alpha_bar) * (1 - alpha_bar / below))
    of_noise = np.sqrt(np.maximum(1 - below - sigma**2, 0) / (1 - alpha_bar))  # of the noise in x_t
    return np.stack([np.sqrt(below) - of_noise * np.sqrt(alpha_bar), of_noise, sigma], axis=1)


def update(
    x: Float[Array, '*shape'],
    x0: Float[Array, '*shape'],
    weights: Float[Array, ' 3'],
    noise: Float[Array, '*shape'] | float,
) -> Float[Array, '*shape']:
    """One step down from x_t, given an estimate of x_0 and fresh noise; `weights` are a row of `updates`."""
    return weights[0] * x0 + weights[1] * x + weights[2] * noise


def sample(
    estimate: Estimate, start: Float[Array, 'b m p'], steps: Steps, keys: Key[Array, ' b']
) -> Float[Array, 'b m p']:
    """Takes all steps from x_T, and returns the last estimate of x_0.

    It does not return x after the last step, which still holds the noise of t = 0.

    Args:
        estimate: of x_0, given x_t and t.
        start: standard normal.
        steps: see `make_steps`.
        keys: of each clip, for fresh noise.
    """
    _, tokens, values = start.shape
    ts, updates = jnp.asarray(steps.timesteps, jnp.int32), jnp.asarray(steps.updates, jnp.float32)

    def step(x: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        index, t, weights = inputs
        noise: jax.Array | float = 0.0
        if steps.draws:
            noise = draw_noise(jax.vmap(jax.random.fold_in, (0, None))(keys, index), (tokens, values))
        return update(x, estimate(x, t), weights, noise), None

    last = len(ts) - 1
    x, _ = jax.lax.scan(step, start, (jnp.arange(last), ts[:last], updates[:last]))
    return estimate(x, ts[last])


def sample_masked(
    objective: PretrainingObjective,
    params: Any,
    patches: Mapping[str, Float[Array, 'b n p']],
    positions: Int[Array, ' b'],
    visible: Mapping[str, int],
    steps: Steps,
) -> tuple[dict[str, View], dict[str, Float[Array, 'b m p']]]:
    """Hides tokens and samples all of the hidden ones, even if training decodes only a part of them.

    Args:
        objective: of the run; the seed of its config determines masks and noise.
        params: of its model.
        patches: of both modalities; where no token is visible, the values have no influence.
        positions: of the clips, which with the seed determine everything random.
        visible: number of visible tokens of each modality; 0 leaves only the class token.
        steps: see `make_steps`.

    Returns:
        The views, with the noise that sampling started from, and x_0 of the decoded tokens, which is
        normalised if the targets are.
    """
    config, model = objective.config, objective.model
    views = {m: _view(config, m, patches[m], positions, visible[m]) for m in MODALITIES}
    latents, _ = model.apply({'params': params}, views, method='encode')

    def estimate(modality: str, x: jax.Array | None, t: jax.Array) -> jax.Array:
        view = views[modality]
        if x is not None:
            view = dataclasses.replace(view, noisy=x, timestep=jnp.full(positions.shape, t, jnp.int32))
        prediction = model.apply({'params': params}, latents[modality], view, modality, method='decode')
        x0 = objective.predicted_x0(prediction, view)
        # An estimate from eps is unbounded where there is hardly any signal.
        return _clip(config, modality, x0) if config.diffusion.target == 'eps' else x0

    samples = {}
    for modality, view in views.items():
        if not view.decoded.shape[1]:
            samples[modality] = take_tokens(view.patches, view.decoded)
        elif view.noisy is None:
            samples[modality] = estimate(modality, None, jnp.int32(0))
        else:
            keys = clip_keys(config.seed, f'sampling {modality} step', positions)
            samples[modality] = sample(functools.partial(estimate, modality), view.noisy, steps, keys)
    return views, samples


def _why(config: Config) -> str:
    """The reason for the limits of `step_limits`, for an error message."""
    if not config.diffusion.enabled:
        return 'this network starts from mask tokens and predicts patches in one step'
    if config.loss.normalize_targets:
        return 'this network predicts normalised patches, from which no x_t can be made'
    if config.diffusion.target == 'eps':
        return 'this network predicts the noise, and one step from pure noise cannot give x_0'
    return 'the noise schedule has this many steps'


def _view(
    config: Config, modality: str, clean: Float[Array, 'b n p'], positions: Int[Array, ' b'], visible: int
) -> View:
    tokens = clean.shape[1]
    masks = clip_keys(config.seed, f'sampling {modality} mask', positions)
    view = View(clean, *random_masks(masks, tokens, visible, tokens - visible))
    if not config.diffusion.enabled:
        return view
    keys = clip_keys(config.seed, f'sampling {modality} noise', positions)
    return dataclasses.replace(view, noisy=draw_noise(keys, (tokens - visible, clean.shape[2])))


def _clip(config: Config, modality: str, x0: Float[Array, 'b m p']) -> Float[Array, 'b m p']:
    """Limits an estimate of x_0 to the values that the front end can give."""
    if modality == 'audio':
        return jnp.clip(x0, *spectrogram_range(config.audio, config.data.sample_rate))
    darkest, brightest = (jnp.full((1, 1, 1, 3), shade, jnp.uint8) for shade in (0, 255))
    repeat = x0.shape[-1] // 3  # the channel is the last axis of a patch
    low, high = (jnp.tile(pixels(shade, config.video).ravel(), repeat) for shade in (darkest, brightest))
    return jnp.clip(x0, low, high)
