"""Metrics as pairs of a sum and a count, which add up over steps, microbatches and hosts."""

from __future__ import annotations

import math
from typing import Any

import jax

# By name: a sum over clips, and their number.
Metrics = dict[str, tuple[Any, Any]]


def accumulate(a: Metrics, b: Metrics) -> Metrics:
    """Adds two sets of metrics; a metric that only one of them has is kept as it is."""
    added = {name: (a[name][0] + b[name][0], a[name][1] + b[name][1]) for name in a if name in b}
    return {**a, **b, **added}


def finalize(metrics: Metrics) -> dict[str, float]:
    """The means, fetched from the device in one transfer; NaN if the count is zero."""
    host = jax.device_get(dict(metrics))
    return {name: float(total) / float(count) if count else math.nan for name, (total, count) in host.items()}
