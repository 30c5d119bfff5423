"""What a source lists: rows of clips and the names of their classes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.shards.inside import Inside


class MediaFile(NamedTuple):
    """A file below the input or, if `inside` says so, in a shard there. None: there is no file."""

    name: str | None
    inside: Inside | None = None


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
        others: more files with the name of the row, which are tried where `file` lacks what is wanted.
        inside: where `file` and each of `others` lie in shards; empty if they are files themselves.
        refused: why there is no clip, where that is known already.
    """

    name: str
    split: str
    file: str | None
    start_s: float | None = None
    duration_s: float | None = None
    labels: tuple[int, ...] = ()
    is_segment: bool = False
    others: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    inside: tuple[Inside, ...] = dataclasses.field(default=(), compare=False)
    refused: str = ''

    def to_list(self) -> list[Any]:
        """The values as JSON types. What only rows of shards have is left out of other rows."""
        values = list(dataclasses.astuple(self))
        return values if self.inside or self.refused else values[:-2]

    @classmethod
    def of_list(cls, values: Sequence[Any]) -> Row:
        """The row of which `to_list` made the values, maybe after they were JSON."""
        name, split, file, start_s, duration_s, labels, is_segment, others, *rest = values
        inside, refused = rest or ((), '')
        return cls(
            name, split, file, start_s, duration_s, tuple(labels), is_segment, tuple(others),
            tuple(Inside(*place) for place in inside), refused,
        )  # fmt: skip

    @property
    def files(self) -> list[MediaFile]:
        """The files to try, in order."""
        names = (self.file, *self.others)
        return [MediaFile(name, place) for name, place in itertools.zip_longest(names, self.inside)]

    @property
    def is_cut(self) -> bool:
        """Whether the name of the file says that it has a segment of the video alone."""
        stem = (self.file or '').rpartition('/')[2]
        return self.is_segment and stem.startswith((f'{self.name}_', f'Y{self.name}_'))


@dataclasses.dataclass(frozen=True)
class Listing:
    """All rows of a source.

    Attributes:
        rows: in the order of the source.
        class_names: index -> name; empty where there are no labels.
        multi_label: whether a row may have several labels.
        notes: where a list was understood differently from how it may have been meant.
        root: the folder that files and shards are below, if it is not the input.
    """

    rows: Sequence[Row]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()
    root: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """Where the lists and the media of a source are.

    Attributes:
        input: the folder of the source; of shards also a file, a glob or a list in braces.
        labels: a file with the names of the classes; None: the source's own list, or the sorted names.
        tables: the lists, if they are not where the authors of the source put them.
        eval_fraction: share of the files that are held out if the source has no splits.
        folder_labels: whether the first sub-folder of a path names its class.
        label_column: of shards, what has the labels; empty: what is usually called so.
        media_columns: of Parquet, the columns that have the media; empty: those that look like it.
    """

    input: epath.Path
    labels: epath.Path | None = None
    tables: tuple[epath.Path, ...] = ()
    eval_fraction: float = 0.1
    folder_labels: bool = False
    label_column: str = ''
    media_columns: tuple[str, ...] = ()


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
