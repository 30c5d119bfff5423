"""What a source lists: rows of clips and the names of their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A stretch of sound or film that a source lists; `prepare` makes one or more clips of it.

    Attributes:
        name: first part of the clips' ids: the path below the input, or a video's id.
        split: as the source names it.
        file: below the input, with slashes; None: there is no file for it.
        start_s: where it begins; None: the whole file is meant.
        duration_s: how long it lasts; None: as long as a clip, or as the whole file.
        labels: class indices, ascending.
        is_segment: `start_s` counts from the beginning of a published video, of which the
            file may be that segment alone.
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
    """All rows of a source. `notes` says what was understood otherwise than may have been meant."""

    rows: Sequence[Row]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Request:
    """Where to look.

    Attributes:
        input: the folder of the source.
        labels: a file with the classes, where the source needs one or their order matters.
        tables: lists that are not where the source's authors put them.
        eval_fraction: share of the files that a source without splits holds out.
        folder_labels: whether the first sub-folder of a path names its class.
    """

    input: epath.Path
    labels: epath.Path | None = None
    tables: tuple[epath.Path, ...] = ()
    eval_fraction: float = 0.1
    folder_labels: bool = False


class Classes:
    """Names of classes and their indices."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = tuple(names)
        self._where = where
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = next(name for i, name in enumerate(names) if self._index[name] != i)
            raise DataError(f'{where} names the class {twice!r} twice.')

    def indices(self, names: Sequence[str], where: str) -> tuple[int, ...]:
        """Ascending, without repetition."""
        for name in names:
            if name not in self._index:
                raise DataError(
                    f'{where}: label {name!r} is not one of the {len(self.names)} in {self._where}.'
                )
        return tuple(sorted({self._index[name] for name in names}))
