"""AdamW, and a learning rate that is a function of samples seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffmavil_jax.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) up to the learning rate, which the step multiplies in."""
    parts = [
        optax.scale_by_adam(config.b1, config.b2),
        optax.add_decayed_weights(config.weight_decay, mask=_is_kernel),
    ]
    if config.clip_norm > 0:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*parts)


def learning_rate(config: OptimizerConfig, total_samples: int) -> Callable[[Any], Float[Array, '']]:
    """Linear warm-up to the peak, then a cosine to `final_lr_fraction` of it, over samples seen."""
    warmup = config.warmup_samples

    def at(samples: Any) -> Float[Array, '']:
        samples = jnp.asarray(samples, jnp.float32)
        rising = samples / max(warmup, 1)
        progress = jnp.clip((samples - warmup) / max(total_samples - warmup, 1), 0.0, 1.0)
        floor = config.final_lr_fraction
        falling = floor + (1 - floor) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return config.learning_rate * jnp.where(samples < warmup, rising, falling)

    return at


def _is_kernel(params: Any) -> Any:
    """Biases, norms and tokens don't decay. Stacked layers give them two axes, so names decide."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path[-1:]) == "['kernel']", params
    )
