"""What a value of a field may be."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from typing import Any

Problem = tuple[str, Any, str]  # field, value, what is allowed


def one_of(field: str, value: Any, allowed: typing.Collection[Any]) -> Iterator[Problem]:
    """A problem where the value is not one of those allowed."""
    if value not in allowed:
        yield field, value, 'one of ' + ', '.join(repr(a) for a in allowed)


def at_least(field: str, value: float, low: float) -> Iterator[Problem]:
    """A problem where the value is not finite or below `low`."""
    if not (math.isfinite(value) and value >= low):
        yield field, value, f'a number of at least {low}'


def between(field: str, value: float, low: float, high: float) -> Iterator[Problem]:
    """A problem where the value is not inside the open interval."""
    if not low < value < high:
        yield field, value, f'a number between {low} and {high}, both excluded'
