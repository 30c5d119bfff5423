"""What a run carries from step to step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from diffmavil_jax.parallel.mesh import shardings


@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state, and the one integer that resuming needs; a pytree.

    Attributes:
        params: the parameters that are trained.
        opt_state: of the optimizer.
        samples_seen: clips that the parameters were trained on.
        ema: exponential moving average of the parameters, in a run that keeps one.
        frozen: parameters that the loss needs and nothing trains, such as a teacher's.
    """

    params: Any
    opt_state: Any
    samples_seen: Int[Array, '']
    ema: Any = None
    frozen: Any = None

    def without_optimizer(self) -> TrainState:
        """What is measured when training is over, without the optimizer's state and frozen parameters."""
        return dataclasses.replace(self, opt_state=None, frozen=None)

    @property
    def evaluated(self) -> Any:
        """The parameters that are measured, and used later."""
        return self.params if self.ema is None else self.ema


_FIELDS = tuple(field.name for field in dataclasses.fields(TrainState))
# Checkpoints take the names of their items from these keys. The moving average has another name in them
# than here, so that checkpoints of all versions are alike.
_KEYS = tuple(jax.tree_util.GetAttrKey({'ema': 'average'}.get(name, name)) for name in _FIELDS)


def _flatten(state: TrainState) -> tuple[tuple[Any, ...], None]:
    return tuple(getattr(state, name) for name in _FIELDS), None


jax.tree_util.register_pytree_with_keys(
    TrainState,
    lambda state: (tuple(zip(_KEYS, _flatten(state)[0], strict=True)), None),
    lambda _, children: TrainState(*children),
    _flatten,
)


@dataclasses.dataclass(frozen=True)
class Born:
    """How a state comes into being, already sharded.

    Attributes:
        abstract: its shapes with their shardings.
        params: from a key to the initial parameters, and the frozen ones or None.
        state: from a key to the whole initial state.
    """

    abstract: TrainState
    params: Callable[[jax.Array], tuple[Any, Any]]
    state: Callable[[jax.Array], TrainState]


def born(
    init_params: Callable[[jax.Array], tuple[Any, Any]],
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    *,
    keep_ema: bool = False,
) -> Born:
    """Jitted functions that make a state, and its shapes.

    Args:
        init_params: from a key to trained parameters and frozen ones (or None), with logical axis names.
        optimizer: of the trained parameters.
        mesh: where the state lives.
        keep_ema: whether the state keeps a moving average of the parameters.
    """

    def around(params: Any, frozen: Any) -> TrainState:
        ema = jax.tree.map(jnp.copy, params) if keep_ema else None
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), ema, frozen)

    boxed = jax.eval_shape(lambda key: around(*init_params(key)), jax.random.key(0))
    layout = shardings(boxed, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        layout,
    )
    # CPU: it runs once, and compiling it is all that it costs.
    options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    params = jax.jit(
        lambda key: nn.unbox(init_params(key)),
        out_shardings=(layout.params, layout.frozen),
        compiler_options=options,
    )
    rest = jax.jit(around, out_shardings=layout, donate_argnums=(0, 1), compiler_options=options)
    return Born(abstract, params, lambda key: rest(*params(key)))
