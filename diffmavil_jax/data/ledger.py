"""Counts the clips that can't be used, and puts the next usable one in the place of each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from diffmavil_jax.data.clip import DataError, Refusal

T = TypeVar('T')

_NAMED_IN_ERRORS = 5


class UnusableError(ValueError):
    """An item that can't be used, and why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Ledger:
    """Everything that was refused in all parts of a dataset, and how much is tolerated."""

    def __init__(self, where: str, total: int, max_bad_fraction: float) -> None:
        """Begins with nothing refused.

        Args:
            where: name of the dataset, for messages.
            total: clips of the dataset, refused ones included.
            max_bad_fraction: share of them that may be refused.
        """
        self._where, self._total, self._allowed = where, total, max_bad_fraction
        self._refusals: dict[str, Refusal] = {}
        self._lock = threading.Lock()

    def record(self, refusal: Refusal) -> None:
        """Counts a refusal. The same path counts once."""
        with self._lock:
            self._refusals.setdefault(refusal.path, refusal)

    def check(self) -> None:
        """Checks how much is refused.

        Raises:
            DataError: more than is tolerated.
        """
        with self._lock:
            bad = list(self._refusals.values())
        if len(bad) <= self._allowed * self._total:
            return
        named = '; '.join(f'{refusal.path}: {refusal.reason}' for refusal in bad[:_NAMED_IN_ERRORS])
        more = f'; and {len(bad) - _NAMED_IN_ERRORS} more' if len(bad) > _NAMED_IN_ERRORS else ''
        raise DataError(
            f"{len(bad)} of {self._total} clips in {self._where} can't be used, above the share of "
            f'config.data.max_bad_fraction = {self._allowed:g}: {named}{more}. '
            'Remove or repair them, or raise config.data.max_bad_fraction.'
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != '_lock'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class Substitutes:
    """Puts the next usable item in the place of one that can't be used.

    So item i depends on the data alone, whatever was read before. An item that was refused is not read again,
    but for random takes of it: some may be usable.
    """

    def __init__(self, where: str, length: int, ledger: Ledger, refused: Iterable[Refusal] = ()) -> None:
        """Begins without refused items.

        Args:
            where: name of the source, for messages.
            length: number of items.
            ledger: counts the refusals of the whole dataset.
            refused: known refusals of files that have no item.
        """
        self._where, self._length, self._ledger = where, length, ledger
        self._without_item = tuple(refused)
        self._refused: dict[int, Refusal] = {}
        self._usable: set[int] = set()

    def find(
        self, index: int, read: Callable[[int], T], read_take: Callable[[int], T] | None = None
    ) -> tuple[int, T, dict[int, Refusal]]:
        """The first usable item from `index` on, wrapping around at the end.

        Args:
            index: of the wanted item.
            read: makes item i, or raises an UnusableError.
            read_take: the same for a random take of item i, of which `read` makes the fixed one. It is tried
                first, of refused items too: what was refused before must not change what comes.

        Returns:
            Its index, what was made of it, and the refused items before it, by index.

        Raises:
            IndexError: there is no such item.
            DataError: too much is refused.
        """
        if not 0 <= index < self._length:
            raise IndexError(f'clip {index} of {self._length}')
        passed: dict[int, Refusal] = {}
        for offset in range(self._length):
            i = (index + offset) % self._length
            if read_take is not None:
                with contextlib.suppress(UnusableError):
                    return i, read_take(i), passed
            if i not in self._refused:
                try:
                    found = read(i)
                    self._usable.add(i)
                    return i, found, passed
                except UnusableError as error:
                    self.record({i: error.refusal})
            passed[i] = self._refused[i]
            self._ledger.check()
        first = self.refused()[0]
        raise DataError(
            f'No clip of {self._length} from {self._where} can be used: {first.path}: {first.reason}.'
        )

    def expected(self, index: int) -> int:
        """The item that `find` would try first for `index`, by what is refused so far. Reads nothing.

        Raises:
            IndexError: there is no such item.
        """
        if not 0 <= index < self._length:
            raise IndexError(f'clip {index} of {self._length}')
        if not self._refused:
            return index
        following = ((index + offset) % self._length for offset in range(self._length))
        return next((i for i in following if i not in self._refused), index)

    def place(self, index: int, read: Callable[[int], object]) -> int:
        """The item that `find` gives for `index`. Reads only what was never read."""
        i = self.expected(index)
        return i if i in self._usable else self.find(index, read)[0]

    def record(self, refused: Mapping[int, Refusal]) -> None:
        """Adds refusals, by index of their items.

        Raises:
            DataError: too much is refused.
        """
        for i, refusal in refused.items():
            self._refused.setdefault(i, refusal)
            self._ledger.record(refusal)
        self._ledger.check()

    def refused(self) -> list[Refusal]:
        """All refusals so far, by path."""
        refused = [*self._without_item, *list(self._refused.values())]
        return sorted(refused, key=lambda refusal: refusal.path)
