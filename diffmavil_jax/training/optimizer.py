"""AdamW, learning rates by layer, and a learning rate that is a function of samples seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from diffmavil_jax.config.training import OptimizerConfig

Scales = Callable[[Any], Any]  # from parameters to a factor of the learning rate for each of them


def make_optimizer(
    config: OptimizerConfig, scales: Scales | None = None
) -> optax.GradientTransformationExtraArgs:
    """AdamW (Loshchilov and Hutter 2019) without the learning rate, which the step multiplies in.

    Args:
        config: its numbers.
        scales: factors of the learning rate; all are 1 without it.

    Returns:
        An optimizer whose `update` is told whether the gradients are `finite`. If they are not, it
        leaves its state as it was.
    """
    transforms = [
        _scale_by_adam(config.b1, config.b2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=_is_kernel),
    ]
    if config.clip_norm > 0:
        transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if scales is not None:
        transforms.append(optax.stateless(lambda u, params: jax.tree.map(jnp.multiply, u, scales(params))))
    return optax.chain(*transforms)


def _scale_by_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam` that chooses between new and old moments before it computes the update.

    If the caller chose afterwards, XLA would need both until the update is there, and would copy the
    moments instead of overwriting them. CPU: the whole update took a third longer.
    """
    adam = optax.scale_by_adam(b1, b2, epsilon)

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None, *, finite: Bool[Array, ''] | bool
    ) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        _, new = adam.update(gradients, state)
        chosen = if_finite(finite, new, state)
        updates = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + epsilon),
            optax.tree.bias_correction(chosen.mu, b1, new.count),
            optax.tree.bias_correction(chosen.nu, b2, new.count),
        )
        return updates, chosen

    return optax.GradientTransformationExtraArgs(adam.init, update)


def if_finite(finite: Bool[Array, ''] | bool, new: Any, old: Any) -> Any:
    """The new values of a tree if the gradients were finite, else the old ones."""
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def layer_decay(decay: float, depth: int, fusion_depth: int, new: tuple[str, ...], *, frozen: bool) -> Scales:
    """Learning rates that fall by `decay` with each layer towards the input (BEiT; AudioMAE).

    Patches and tokens are layer 0, and the encoders' blocks are layers 1 to `depth`. The fusion's blocks
    follow. New parameters are the top layer.

    Args:
        decay: factor from a layer to the one below it.
        depth: layers of an encoder.
        fusion_depth: layers of the fusion encoder; 0 without one.
        new: name prefixes of parameters that have no pretrained value.
        frozen: whether all others stay as they are.
    """
    top = depth + fusion_depth + 1

    def scale(path: Any, leaf: jax.Array) -> Any:
        names = [str(key.key) for key in path]
        if names[0].startswith(new):
            return jnp.float32(1.0)
        if frozen:
            return jnp.float32(0.0)
        if 'layers' not in names:
            return jnp.float32(decay**top)
        first, layers = (depth + 1, fusion_depth) if names[0] == 'fusion' else (1, depth)
        factors = decay ** (top - first - jnp.arange(layers, dtype=jnp.float32))
        return factors.reshape(-1, *[1] * (leaf.ndim - 1))

    return lambda params: jax.tree_util.tree_map_with_path(scale, params)


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
    """Which parameters decay: not biases, norms and tokens.

    Names decide, because in stacked layers biases and norms have two axes as well.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path[-1:]) == "['kernel']", params
    )
