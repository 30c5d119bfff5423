"""Floating-point operations of a traced program, counted from its matrix products."""

from __future__ import annotations

import math
from typing import Any


def matmul_flops(jaxpr: Any) -> int:
    """Operations of all matrix products, two for each multiply-accumulate.

    The body of a loop counts as often as it runs, and a conditional counts as its largest branch.

    Args:
        jaxpr: from `jax.make_jaxpr`, or of a traced function; closed or not.
    """
    jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            total += _dot_flops(equation)
            continue
        inner = [
            matmul_flops(x)
            for value in equation.params.values()
            for x in (value if isinstance(value, (tuple, list)) else (value,))
            if hasattr(getattr(x, 'jaxpr', x), 'eqns')
        ]
        if equation.primitive.name == 'cond':  # one of the branches runs
            total += max(inner, default=0)
        else:
            total += equation.params.get('length', 1) * sum(inner) if inner else 0
    return total


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
