"""Numbers for people, one way each."""

from __future__ import annotations

import math
import typing
from typing import Any

import numpy as np

Unit = typing.Literal['number', 'percent', 'si', 'seconds']


MISSING = '–'


def is_number(value: Any) -> typing.TypeGuard[float]:
    """Whether a value is a finite number (of Python or NumPy)."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def spell(value: Any, unit: Unit = 'number') -> str:
    """A number for people: 1,234; 41.8 %; 2.3 G; 4 min 12 s."""
    if not is_number(value):
        return MISSING
    if unit == 'percent':
        return f'{100 * value:.1f} %'.replace('-', '−')
    if unit == 'si':
        return _si(float(value))
    if unit == 'seconds':
        return _duration(float(value))
    return _plain(value)


def _plain(value: float) -> str:
    """Up to three significant digits, or every digit of a whole number."""
    if float(value).is_integer() and abs(value) < 1e15:
        text = f'{int(value):,}'
    elif abs(value) >= 99.95:
        text = f'{value:,.0f}'
    elif abs(value) >= 1e-3:
        text = f'{value:.3g}'
    else:
        mantissa, exponent = f'{value:.1e}'.split('e')
        text = f'{mantissa.removesuffix(".0")}e{int(exponent)}'
    return text.replace('-', '−')


def _si(value: float) -> str:
    """Two or three digits and a metric prefix."""
    sign, size = ('−' if value < 0 else ''), abs(value)
    for prefix in ('', 'k', 'M', 'G', 'T', 'P', 'E'):
        if size < 999.5 or prefix == 'E':
            break
        size /= 1000
    text = f'{size:.1f}'.removesuffix('.0') if size < 99.95 else f'{size:,.0f}'
    return f'{sign}{text} {prefix}'.strip()


def _duration(seconds: float) -> str:
    """The two largest units."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    whole = round(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    parts = [(d, 'd'), (h, 'h'), (m, 'min'), (s, 's')]
    while parts[0][0] == 0:
        parts = parts[1:]
    return ' '.join(f'{count:,} {name}' for count, name in parts[:2] if count)


def metric(value: float) -> str:
    """Three digits and a metric prefix."""
    exponent = min(max(len(str(int(value))) - 1, 0) // 3, 6)
    return f'{value / 1000**exponent:.3g} {" kMGTPE"[exponent]}'.strip()


def size(size: float) -> str:
    """Bytes for people."""
    return f'{size / 2**30:.2f} GiB' if size >= 2**29 else f'{size / 2**20:.1f} MiB'
