"""What a source lists: rows of clips and the names of their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A stretch of sound or film that a source lists; one or more clips are cut out of it.

    Attributes:
        name: first part of the clips' ids: the path below the input, or the id of a video.
        split: as the source names it.
        file: path below the input, with slashes; None if there is no file for the row.
        start_s: where it begins; None: at the beginning of the file.
        duration_s: how long it lasts; None: one clip if it has a `start_s`, else until the file ends.
        labels: class indices, ascending.
        is_segment: whether `start_s` counts from the beginning of a published video, of which the file may
            have this segment alone.
    """

    name: str
    split: str
    file: str | None
    start_s: float | None = None
    duration_s: float | None = None
    labels: tuple[int, ...] = ()
    is_segment: bool = False


@dataclasses.dataclass(frozen=True)
class Listing:
    """All rows of a source.

    Attributes:
        rows: in the order of the source.
        class_names: index -> name; empty where there are no labels.
        multi_label: whether a row may have several labels.
        notes: where a list was understood differently from how it may have been meant.
    """

    rows: Sequence[Row]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Request:
    """Where the lists and the media of a source are.

    Attributes:
        input: the folder of the source.
        labels: a file with the names of the classes; None: the source's own list, or the sorted names.
        tables: the lists, if they are not where the authors of the source put them.
        eval_fraction: share of the files that are held out if the source has no splits.
        folder_labels: whether the first sub-folder of a path names its class.
    """

    input: epath.Path
    labels: epath.Path | None = None
    tables: tuple[epath.Path, ...] = ()
    eval_fraction: float = 0.1
    folder_labels: bool = False


class Classes:
    """The names of classes, and the index of each."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = tuple(names)
        self._where = where
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = next(name for i, name in enumerate(names) if self._index[name] != i)
            raise DataError(f'{where} names the class {twice!r} twice.')

    def indices(self, names: Sequence[str], where: str) -> tuple[int, ...]:
        """The indices of some classes, ascending, without repetition.

        Raises:
            DataError: a name is not one of the classes.
        """
        for name in names:
            if name not in self._index:
                raise DataError(
                    f'{where}: label {name!r} is not one of the {len(self.names)} in {self._where}.'
                )
        return tuple(sorted({self._index[name] for name in names}))
