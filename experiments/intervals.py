"""Means over seeds with their 95 % intervals, and how they are written."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats


def half_width(values: Float[np.ndarray, ' n']) -> float:
    """Half the width of Student's t interval of the mean; NaN for a single value."""
    if len(values) < 2:
        return float('nan')
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def spell_kind(n: int, of: str = 'seeds') -> str:
    """What the intervals of a table are, for its first column."""
    return f"95 % interval (Student's t, n = {n} {of})"


def spell_mean(values: Float[np.ndarray, ' n'], digits: int = 1) -> str:
    """The mean and half of its interval; a dash where there is none."""
    if np.isnan(values).any():
        return '-'
    half = half_width(values)
    return f'{values.mean():.{digits}f}' + ('' if np.isnan(half) else f' ± {half:.{digits}f}')


def spell_difference(differences: Float[np.ndarray, ' n'], digits: int = 1) -> str:
    """The mean of paired differences, and the ends of its interval; a dash where there is none."""
    if np.isnan(differences).any():
        return '-'
    mean, half = differences.mean(), half_width(differences)
    if np.isnan(half):
        return f'{mean:+.{digits}f}'
    return f'{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})'
