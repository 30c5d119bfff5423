"""Makes batches of the clips of a source, in an order that depends on the seed alone."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import re
import signal
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from multiprocessing import connection, process
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from absl import flags

from diffmavil_jax.data.clip import ARRAYS, ClipSource, DataError
from diffmavil_jax.data.mixture import endless
from diffmavil_jax.data.take import Takes
from diffmavil_jax.parallel.allocator import keep_freed_memory

Batch = dict[str, np.ndarray]
T = TypeVar('T')

# Clips that a worker process keeps ready in shared memory. A thread of this process keeps batches ready.
_CLIPS_PER_WORKER = 4
_CLOSING_SECONDS = 30.0
_WORKER_ENDED = re.compile(r'Worker process was terminated unexpectedly with exit code (-?\d+)')


class Loader:
    """Shuffled, endless batches that can begin at any position.

    A batch has the clips at positions [seen, seen + size), whatever the sizes of the batches before it, and
    whatever the number of threads and worker processes. Host h of H reads every H-th of them, from h on.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        seed: int,
        threads: int,
        prefetch_batches: int,
        largest_batch: int,
        takes: Takes | None = None,
        workers: int = 0,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Prepares the order; nothing is read yet.

        Args:
            source: of clips; see `mixture.endless` for their order.
            seed: of the order.
            threads: readers, in this process or in each worker process.
            prefetch_batches: batches made ahead of the next one.
            largest_batch: clips in the largest batch, of all hosts together.
            takes: draws how each clip is taken; None: as in evaluation.
            workers: processes that read clips; with 0 this process does. They are started as new
                interpreters, so it must be possible to import the main module.
            host: which host this is.
            hosts: how many there are.
        """
        self._source = source
        # The randomness of a clip is derived from its position in this order.
        self._dataset = endless(source, seed, takes).map_with_index(_with_position)
        ahead = 2 * threads if workers else max(threads, prefetch_batches * largest_batch)
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._workers = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_CLIPS_PER_WORKER)
        if workers and not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read flags; a notebook parses none
        self._prefetch_batches = prefetch_batches
        self._host, self._hosts = host, hosts

    def batches(self, first_sample: int, sizes: Iterable[int]) -> Ahead[tuple[Batch, list[str]]]:
        """Batches of the given sizes, each with the ids of its clips.

        A batch is that of `stack`, and has `position` int32 [b] too.

        Reading begins at once, in the background, and ends when the iterator is closed or dropped.

        Args:
            first_sample: position of the first clip.
            sizes: clips in each batch, of all hosts together.

        Raises:
            DataError: too many clips are unusable, or a worker process ended.
        """
        return Ahead(self._batches(first_sample, sizes), self._prefetch_batches)

    def _batches(self, first_sample: int, sizes: Iterable[int]) -> Generator[tuple[Batch, list[str]]]:
        mine = self._dataset[first_sample + self._host :: self._hosts]
        clips = iter(mine.to_iter_dataset(self._options).mp_prefetch(self._workers, _begin_worker))
        clip: Mapping[str, Any] = {}
        try:
            with contextlib.closing(clips), _explained():
                for size in sizes:
                    rows = size // self._hosts
                    batch: Batch = {'position': np.empty(rows, np.int32)}
                    ids = []
                    for row in range(rows):
                        batch['position'][row], clip = next(clips)
                        _put(batch, clip, row, rows)
                        ids.append(clip['id'])
                        if 'refused' in clip:
                            self._source.record(clip['refused'])
                    yield batch, ids
        finally:
            del clips, clip
            if self._workers.num_workers:
                gc.collect()  # Grain's iterators are cycles that hold shared memory


def stack(clips: Sequence[Mapping[str, Any]]) -> Batch:
    """Stacks the arrays that clips have: `waveform` int16 [b samples], `frames` uint8 [b t h w 3] and others.

    Raises:
        DataError: a clip lacks what another has.
    """
    batch: Batch = {}
    for row, clip in enumerate(clips):
        _put(batch, clip, row, len(clips))
    return batch


def _put(batch: Batch, clip: Mapping[str, Any], row: int, rows: int) -> None:
    """Copies a clip into its row of a batch, at once: the clip of a worker process is in shared memory."""
    for name in (*ARRAYS.values(), 'target', 'present'):
        if (name in clip) != (name in batch) and row > 0:
            other = 'has' if name in clip else 'has no'
            raise DataError(f'Clips with and without {name} in one batch: {clip["id"]} {other} {name}.')
        if name in clip:
            if row == 0:
                batch[name] = np.empty((rows, *clip[name].shape), clip[name].dtype)
            batch[name][row] = clip[name]


class Ahead(Iterator[T], Generic[T]):
    """Iterates over items, up to `depth` of which a thread makes ahead.

    The thread that trains then gets a whole batch at once. If it took clip by clip, it would wait for the
    interpreter's lock each time.
    """

    def __init__(self, items: Generator[T], depth: int) -> None:
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
        stop = threading.Event()
        # The thread must not refer to this object: it would never be dropped.
        arguments = (items, self._ready, stop)
        thread = threading.Thread(target=_produce, args=arguments, daemon=True, name='batches')
        self._close = weakref.finalize(self, _stop, thread, stop)
        thread.start()

    def __next__(self) -> T:
        if not self._close.alive:
            raise StopIteration
        item, error = self._ready.get()
        if error is not None:
            self.close()
            raise error
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stops the thread, and with it the worker processes."""
        self._close()


def _produce(items: Generator[T], ready: queue.Queue[Any], stop: threading.Event) -> None:
    def put(item: T | None, error: BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put((item, error), timeout=0.1)

    try:
        with contextlib.closing(items):
            for item in items:
                put(item, None)
                if stop.is_set():
                    return
        put(None, StopIteration())
    except BaseException as error:
        put(None, error)


def _stop(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    if thread is not threading.current_thread():  # the garbage collector runs in any thread
        thread.join(_CLOSING_SECONDS)


def _with_position(position: int, clip: T) -> tuple[int, T]:
    return position, clip


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Says how a worker process ended, and what to do, in place of Grain's error."""
    try:
        yield
    except RuntimeError as error:
        ended = _WORKER_ENDED.search(str(error))
        if ended is None:
            raise
        code = int(ended[1])
        how = f'by {signal.Signals(-code).name}' if code < 0 else f'with exit code {code}'
        raise DataError(
            f'A worker process that reads clips ended {how}. If memory (or /dev/shm) ran out, lower '
            'config.data.workers; the same command resumes.'
        ) from error


def _begin_worker(worker: int, workers: int) -> None:
    """Prepares a worker process; runs in it before anything else."""
    keep_freed_memory()
    # Both signals go to the whole group of processes; only the one that trains acts on them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True, name='parent').start()


def _end_with_parent() -> None:
    """Ends this worker when its parent ends: a parent that is killed can't stop its workers."""
    parent = process.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
