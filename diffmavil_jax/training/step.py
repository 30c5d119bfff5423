"""The train step: a pure function (state, batch) -> (state, metrics)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from diffmavil_jax.parallel.metrics import Metrics
from diffmavil_jax.training.optimizer import if_finite
from diffmavil_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
LossFunction = Callable[..., tuple[jax.Array, Metrics]]
StepFunction = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# From parameters and batch, and `frozen=` parameters, to ((loss, metrics), gradients).
GradientFunction = Callable[..., tuple[tuple[jax.Array, Metrics], Any]]


def make_step(
    loss_function: LossFunction,
    optimizer: optax.GradientTransformationExtraArgs,
    learning_rate: Callable[[jax.Array], jax.Array],
    batch_size: int,
    *,
    microbatches: int = 1,
    ema_decay: float = 0.0,
) -> StepFunction:
    """One update. A loss or gradient that is not finite leaves parameters and optimizer as they were.

    Args:
        loss_function: from (parameters, batch) to the mean loss and its metrics; it is also given
            `frozen=` in a state that has such parameters.
        optimizer: gives the update before the learning rate; see `make_optimizer`.
        learning_rate: of samples seen, at the middle of the batch.
        batch_size: clips in the (global) batch.
        microbatches: how many equal parts a batch is computed in, one after the other; the gradient is
            their mean.
        ema_decay: of the parameters' moving average, in a state that has one.
    """
    compute: GradientFunction = jax.value_and_grad(loss_function, has_aux=True)
    if microbatches > 1:
        compute = _in_microbatches(compute, microbatches)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        frozen = {} if state.frozen is None else {'frozen': state.frozen}
        (loss, metrics), gradients = compute(state.params, batch, **frozen)
        gradient_norm = optax.tree.norm(gradients)
        rate = learning_rate(state.samples_seen + batch_size // 2)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, finite=finite)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = _updated_ema(ema, params, ema_decay, state.samples_seen // batch_size + 1)
        one = jnp.float32(1)
        metrics |= {
            'gradient_norm': (gradient_norm, one),
            'learning_rate': (rate, one),
            'skipped': (1 - finite.astype(jnp.float32), one),
        }
        return (
            TrainState(
                params=if_finite(finite, params, state.params),
                opt_state=opt_state,
                samples_seen=state.samples_seen + batch_size,
                ema=if_finite(finite, ema, state.ema),
                frozen=state.frozen,
            ),
            metrics,
        )

    return step


def _in_microbatches(compute: GradientFunction, count: int) -> GradientFunction:
    """The mean of losses and gradients of `count` microbatches, and the sum of their metrics."""

    def compute_all(params: Any, batch: Batch, **frozen: Any) -> tuple[tuple[jax.Array, Metrics], Any]:
        # A microbatch takes every count-th clip, so that the clips of a device stay on it.
        split = {name: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(compute, params, {name: x[0] for name, x in split.items()}, **frozen),
        )
        total, _ = jax.lax.scan(
            lambda sum_, part: (jax.tree.map(jnp.add, sum_, compute(params, part, **frozen)), None),
            zeros,
            split,
        )
        (loss, metrics), gradients = total
        return (loss / count, metrics), jax.tree.map(lambda x: x / count, gradients)

    return compute_all


def _updated_ema(ema: Any, params: Any, ema_decay: float, updates: Int[Array, '']) -> Any:
    """The moving average after so many updates, this one included."""
    # It follows fast at first, or it would remember the initial parameters for long.
    count = updates.astype(jnp.float32)
    decay = jnp.minimum(ema_decay, count / (count + 10.0))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, ema, params)
