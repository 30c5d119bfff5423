"""From a source of clips to batches, in an order that is a pure function of (seed, position)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import grain
import numpy as np

from diffmavil_jax.data.clip import ClipSource

Batch = dict[str, np.ndarray]
T = TypeVar('T')


class Loader:
    """Shuffled, endless batches that start at any clip.

    Batch k holds the clips at positions [seen, seen + size), whatever the sizes of the
    batches before it; host h of H reads every H-th of them.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        seed: int,
        threads: int,
        prefetch_batches: int,
        largest_batch: int,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Args: `threads` read ahead, up to `prefetch_batches` and as many clips as they hold."""
        dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
        # A clip's position in this order is what its randomness is derived from.
        self._dataset = dataset.map_with_index(lambda position, clip: (position, clip))
        self._options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(threads, prefetch_batches * largest_batch)
        )
        self._prefetch_batches = prefetch_batches
        self._host, self._hosts = host, hosts

    def batches(self, first_sample: int, sizes: Iterable[int]) -> Iterator[tuple[Batch, list[str]]]:
        """Batches of the given global sizes, with the ids of their clips; see `stack`.

        Reading begins at once, in the background.
        """
        return _ahead(self._batches(first_sample, sizes), self._prefetch_batches)

    def _batches(self, first_sample: int, sizes: Iterable[int]) -> Iterator[tuple[Batch, list[str]]]:
        mine = self._dataset[first_sample + self._host :: self._hosts]
        clips = iter(mine.to_iter_dataset(self._options))
        for size in sizes:
            positions, chosen = zip(*[next(clips) for _ in range(size // self._hosts)], strict=True)
            batch = stack(chosen)
            batch['position'] = np.asarray(positions, np.int32)
            yield batch, [clip['id'] for clip in chosen]


def stack(clips: Sequence[Any]) -> Batch:
    """Stacks `waveform` int16 [b samples] and `frames` uint8 [b t h w 3] of clips."""
    return {name: np.stack([clip[name] for clip in clips]) for name in ('waveform', 'frames')}


def _ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, up to `depth` of them made ahead by a thread.

    The thread that trains then takes a batch at once; clip by clip it would wait for the
    interpreter's lock each time.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)

    def work() -> None:
        try:
            for item in items:
                ready.put((item, None))
            ready.put((None, StopIteration()))
        except BaseException as error:
            ready.put((None, error))

    threading.Thread(target=work, daemon=True, name='batches').start()

    def take() -> Iterator[T]:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    return take()
