"""Numbers for people: one function for each unit, used by every page, table and message.

A minus sign is printed as such (−), and a space stands before a unit. The functions take
finite numbers; `spell` takes anything and marks what is missing.
"""

from __future__ import annotations

import math
import typing
from typing import Any

import numpy as np

Unit = typing.Literal['number', 'percent', 'si', 'bytes', 'seconds', 'r2']

MISSING = '–'

_SI_PREFIXES = ('', 'k', 'M', 'G', 'T', 'P', 'E')
_BYTES = ((40, 'TiB', 2), (30, 'GiB', 2), (20, 'MiB', 1), (10, 'KiB', 1))  # power of two, unit, decimals


def spell(value: Any, unit: Unit = 'number') -> str:
    """A value in its unit; `MISSING` where it is no finite number."""
    return _SPELLED[unit](float(value)) if is_number(value) else MISSING


def is_number(value: Any) -> typing.TypeGuard[float]:
    """Whether a value is a finite number (of Python or NumPy); a bool is none."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def number(value: float) -> str:
    """Three significant digits, or every digit of a whole number: 0.123, 1,234, 1e−5."""
    if float(value).is_integer() and abs(value) < 1e15:
        text = f'{int(value):,}'
    elif abs(value) >= 99.95:
        text = f'{value:,.0f}'
    elif abs(value) >= 1e-3:
        text = f'{value:.3g}'
    else:
        mantissa, exponent = f'{value:.1e}'.split('e')
        text = f'{mantissa.removesuffix(".0")}e{int(exponent)}'
    return _with_minus(text)


def percent(share: float) -> str:
    """A share as percent, with one decimal: 0.418 is 41.8 %."""
    return _with_minus(f'{100 * share:.1f} %')


def si(value: float) -> str:
    """Three significant digits and a metric prefix: 2.34 G, 512, 1 M."""
    sign, scaled = ('−' if value < 0 else ''), abs(value)
    if scaled < 1:
        return number(value)
    for prefix in _SI_PREFIXES:
        if scaled < 999.5 or prefix == _SI_PREFIXES[-1]:
            break
        scaled /= 1000
    text = f'{scaled:,.0f}' if scaled >= 99.95 else f'{scaled:.3g}'
    return f'{sign}{text} {prefix}'.strip()


def size(num_bytes: float) -> str:
    """A number of bytes in powers of 1024: 12.83 GiB, 7.0 MiB, 96 B. A unit is used from its half on."""
    for power, unit, decimals in _BYTES:
        if num_bytes >= 2 ** (power - 1):
            return f'{num_bytes / 2**power:,.{decimals}f} {unit}'
    return f'{num_bytes:,.0f} B'


def duration(seconds: float) -> str:
    """A number of seconds in its two largest units: 4.2 s, 4 min 11 s, 2 d 7 h."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    counts = [(d, 'd'), (h, 'h'), (m, 'min'), (s, 's')]
    while counts[0][0] == 0:
        counts = counts[1:]
    return ' '.join(f'{count:,} {unit}' for count, unit in counts[:2] if count)


def r2(value: float) -> str:
    """A coefficient of determination; below 0 the mean would predict better, and it reads `none`."""
    return 'none' if value < 0 else number(value)


def _with_minus(text: str) -> str:
    return text.replace('-', '−')


_SPELLED: dict[Unit, typing.Callable[[float], str]] = {
    'number': number,
    'percent': percent,
    'si': si,
    'bytes': size,
    'seconds': duration,
    'r2': r2,
}
