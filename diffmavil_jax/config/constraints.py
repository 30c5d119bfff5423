"""What a value of a field may be, written into its type: `Annotated[int, at_least(1)]`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Annotated, Any


@dataclasses.dataclass(frozen=True)
class Must:
    """A condition on one value, and its words after `must be`."""

    holds: Callable[[Any], bool]
    words: Callable[[], str]


def must(words: str, holds: Callable[[Any], bool]) -> Must:
    """A condition in words that don't change.

    Inside an annotation, `holds` can be a lambda only where it names nothing of its module.
    """
    return Must(holds, lambda: words)


def one_of(choices: Callable[[], Collection[str]]) -> Must:
    """The keys of a table; `Literal` is for choices that are no table."""
    return Must(lambda value: value in choices(), lambda: list_choices(choices()))


def list_choices(choices: Collection[Any]) -> str:
    """The words for a choice."""
    return 'one of ' + ', '.join(repr(choice) for choice in choices)


def at_least(low: float) -> Must:
    """A finite number that is not below `low`."""
    return must(f'a number of at least {low}', lambda value: math.isfinite(value) and value >= low)


VERBATIM = object()  # in a list of texts: a flag's commas divide it, and nothing else is changed

Count = Annotated[int, at_least(1)]
Whole = Annotated[int, at_least(0)]
Finite = Annotated[float, must('a finite number', lambda value: math.isfinite(value))]
NotNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, must('a positive number', lambda value: value > 0)]
Ratio = Annotated[float, must('a number between 0 and 1, both excluded', lambda value: 0 < value < 1)]
Share = Annotated[float, must('a share from 0 to 1', lambda value: 0 <= value <= 1)]
Below1 = Annotated[float, must('a share from 0 to below 1', lambda value: 0 <= value < 1)]
