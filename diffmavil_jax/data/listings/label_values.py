"""Makes classes of the labels that shards hold: numbers or names, one or several a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import reading
from diffmavil_jax.data.listings.row import Classes, Listing, Row

_MAX_CLASSES = 1_000_000
_NO_LABEL = -1  # what Hugging Face's ClassLabel has for no class
ONTOLOGY_COLUMNS = ('index', 'mid', 'display_name')

# Where a label is, and its value: a number, a name, a list of them, or None.
Value = tuple[str, Any]


def class_list(path: epath.Path) -> list[tuple[str, ...]]:
    """The names of each class: one a line, or the identifier and the name of a list such as AudioSet's.

    Raises:
        DataError: the file can't be read or understood.
    """
    if set(ONTOLOGY_COLUMNS) <= set(reading.header(path)):
        return list(zip(*ontology(path), strict=True))
    return [(name,) for name in reading.read_names(path)]


def ontology(path: epath.Path) -> tuple[list[str], tuple[str, ...]]:
    """The identifiers and the display names of the classes of AudioSet, in the order of their indices.

    Raises:
        DataError: the list can't be read or understood.
    """
    found = []
    for where, cells in reading.read_table(path, ONTOLOGY_COLUMNS):
        index = reading.whole_number(where, 'index', reading.cell(cells, 'index'))
        found.append((index, reading.cell(cells, 'mid'), reading.cell(cells, 'display_name')))
    found.sort()
    if [index for index, _, _ in found] != list(range(len(found))):
        raise DataError(f'{path}: the indices of its {len(found)} classes are not 0, 1, 2 and so on.')
    return [mid for _, mid, _ in found], tuple(name for _, _, name in found)


def labelled(
    found: Sequence[tuple[Row, Any]],
    names: Sequence[str] | None,
    wanted: epath.Path | None,
    notes: Iterable[str],
    root: str,
) -> Listing:
    """Rows with their labels. A clip may have several if any row has a list of them.

    Args:
        found: each row, and the value of its label.
        names, wanted: see `label_rows`.
        notes, root: of the listing.

    Raises:
        DataError: that of `label_rows`.
    """
    class_names, labels = label_rows([(printable(row.name), value) for row, value in found], names, wanted)
    rows = [dataclasses.replace(row, labels=of_row) for (row, _), of_row in zip(found, labels, strict=True)]
    several = any(isinstance(value, list) for _, value in found)
    return Listing(rows, class_names, several, tuple(notes), root)


def label_rows(
    values: Sequence[Value], names: Sequence[str] | None, wanted: epath.Path | None
) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """The names of the classes, and the class indices of each value, ascending.

    Args:
        values: of the rows.
        names: what numbers stand for; None: they have no names.
        wanted: a list of all classes in their order; None: the order of the numbers, or of the alphabet.

    Raises:
        DataError: a value is no label, or none of the classes; or some are numbers and others names.
    """
    found = [(where, _labels(where, value)) for where, value in values]
    if _are_numbers(found):
        where_named = str(wanted) if names is None and wanted else 'the labels'
        if names is None:
            names = [each[-1] for each in class_list(wanted)] if wanted else _counted(found)
        found = [(where, [_named(where, i, names, where_named) for i in labels]) for where, labels in found]
    else:
        names = sorted({name for _, labels in found for name in labels})
    if wanted is not None:
        aliases = class_list(wanted)
        index = {alias: each[-1] for each in reversed(aliases) for alias in each}
        found = [(where, [index.get(name, name) for name in labels]) for where, labels in found]
        classes = Classes([each[-1] for each in aliases], str(wanted))
    else:
        classes = Classes(names, 'the labels')
    return classes.names, [classes.indices(labels, where) for where, labels in found]


def _are_numbers(found: Sequence[tuple[str, list[Any]]]) -> bool:
    """Whether labels are numbers and not names.

    Raises:
        DataError: there are both.
    """
    places = {isinstance(label, int): where for where, labels in found for label in labels}
    if len(places) > 1:
        raise DataError(
            f'{places[True]} has a number for a label and {places[False]} a name: must be all the same.'
        )
    return True in places


def _labels(where: str, value: Any) -> list[Any]:
    """The numbers or names in a value."""
    if isinstance(value, list | tuple):
        return [label for part in value for label in _labels(where, part)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as pandas writes numbers where some are missing
    if value is None or value == _NO_LABEL and not isinstance(value, bool) or value != value:
        return []
    if isinstance(value, str):
        text = reading.class_name(where, value.strip())
        return [text] if text else []
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_CLASSES:
        raise DataError(
            f'{where}: label = {str(value)[:40]!r}: must be a number from 0 to {_MAX_CLASSES - 1:,}, a name, '
            'or a list of them.'
        )
    return [value]


def _counted(found: Sequence[tuple[str, list[int]]]) -> list[str]:
    """Names for numbers that have none: the numbers."""
    return [str(i) for i in range(1 + max(label for _, labels in found for label in labels))]


def _named(where: str, label: int, names: Sequence[str], where_named: str) -> str:
    if label >= len(names):
        raise DataError(
            f'{where}: label {label}: {where_named} name {len(names)} classes, 0 to {len(names) - 1}.'
        )
    return names[label]
