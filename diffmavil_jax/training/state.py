"""What a run carries from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from diffmavil_jax.parallel.mesh import shardings


@flax.struct.dataclass
class TrainState:
    """Parameters, optimizer state, and the one integer that resuming needs.

    `average` is the exponential moving average of the parameters, in a run that keeps one; `frozen`
    are parameters that the loss needs and nothing trains, such as a teacher's.
    """

    params: Any
    opt_state: Any
    samples_seen: Int[Array, '']
    average: Any = None
    frozen: Any = None

    @property
    def evaluated(self) -> Any:
        """The parameters that are measured, and used later."""
        return self.params if self.average is None else self.average


def abstract_and_init(
    init_params: Callable[[jax.Array], tuple[Any, Any]],
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    *,
    averaged: bool = False,
) -> tuple[TrainState, Callable[[jax.Array], TrainState]]:
    """The state's shapes with their shardings, and a jitted function that makes it already sharded.

    Args:
        init_params: from a key to trained and frozen parameters (or None) with logical axis names.
        optimizer: made for these parameters.
        mesh: where the state lives.
        averaged: whether the state keeps an average of the parameters.
    """

    def init(key: jax.Array) -> TrainState:
        params, frozen = init_params(key)
        average = jax.tree.map(jnp.copy, params) if averaged else None
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), average, frozen)

    boxed = jax.eval_shape(init, jax.random.key(0))
    layout = shardings(boxed, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        layout,
    )
    # It runs once: on a CPU, compiling it is all that it costs.
    options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    return abstract, jax.jit(lambda key: nn.unbox(init(key)), out_shardings=layout, compiler_options=options)
