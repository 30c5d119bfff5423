"""Decodes untrusted media in separate processes, so that a decoder that hangs or crashes costs one clip.

A pool of `multiprocessing` would not do: its workers import the main module and with it JAX, and daemonic
processes, such as the workers of Grain and Beam, can't start them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import BinaryIO, NoReturn, TypeVar, overload

import numpy as np

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.decoding import Frames, Waveform
from diffmavil_jax.data.take import FIXED, Take

DEFAULT_TIMEOUT_S = 60.0
# Limit of a worker's heap: room for some pictures of the largest size allowed.
MEMORY_BYTES = 4 << 30

# An alarm ends a worker at its time-out. If it lives this much longer, it is stuck where no alarm helps.
_GRACE_S = 10.0
_START_S = 300.0  # Python may be imported from a busy network disk

T = TypeVar('T')


class DecodePool:
    """Worker processes for any number of threads. Each call waits for a worker and for its answer.

    Workers start when they are first needed, do not load JAX, and are replaced when they die. They end when
    the pool is closed or dropped, and when the process that owns it ends, however that happens.
    """

    def __init__(self, workers: int, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Starts nothing yet.

        Args:
            workers: processes at most.
            timeout_s: wall-clock time for each call, in seconds.
        """
        if workers < 1 or not timeout_s > 0:
            raise ValueError(f'workers = {workers}, timeout_s = {timeout_s}: must be positive.')
        self._workers, self._timeout_s, self._closed = workers, timeout_s, False
        # The last one in comes out first, so that no more processes start than are busy at the same time.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)

    def __getstate__(self) -> tuple[int, float]:
        """A copy in another process has its own workers."""
        return self._workers, self._timeout_s

    def __setstate__(self, state: tuple[int, float]) -> None:
        DecodePool.__init__(self, *state)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @overload
    def decode(self, source: media.Source, start_s: float, spec: ClipSpec) -> tuple[Waveform, Frames]: ...

    @overload
    def decode(
        self,
        source: media.Source,
        start_s: float,
        spec: ClipSpec,
        modalities: Collection[media.Modality],
        take: Take = ...,
    ) -> tuple[Waveform | None, Frames | None]: ...

    def decode(
        self,
        source: media.Source,
        start_s: float,
        spec: ClipSpec,
        modalities: Collection[media.Modality] = media.BOTH,
        take: Take = FIXED,
    ) -> tuple[Waveform | None, Frames | None]:
        """Like `media.decode`.

        Raises:
            MediaError: that of `media.decode`, 'unreadable: decoder timed out', or
                'unreadable: decoder crashed (SIGNAL)'.
        """
        return self.call(media.decode, source, start_s, spec, modalities, take)

    def probe(self, source: media.Source) -> media.MediaInfo:
        """Like `media.probe`; raises like `decode`."""
        return self.call(media.probe, source)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Calls an importable function in a worker; returns its value or raises its error."""
        worker = self._idle.get()
        try:
            if self._closed:
                raise RuntimeError('The pool of decoders is closed.')
            if worker is None or worker.is_dead():
                worker = _Worker(self._timeout_s)
            value, error = worker.call(function, args)
        except BaseException:
            if worker is not None:  # it may still send its answer to this call
                worker.stop()
                worker = None
            raise
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Ends the workers, after the calls that other threads have begun."""
        self._closed = True
        for worker in [self._idle.get() for _ in range(self._workers)]:
            if worker is not None:
                worker.stop()
            self._idle.put(None)


class _Worker:
    """One process and the connection to it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connection, theirs = Pipe()
        self._shared = _shared_file()
        self._arena = _Arena(self._shared.fileno())
        with theirs:
            descriptors = theirs.fileno(), self._shared.fileno()
            command = (
                f'import sys; sys.path[:] = {sys.path!r}\n'
                f'from diffmavil_jax.data import sandbox; sandbox.serve(*{descriptors}, {timeout_s!r})'
            )
            self._process = subprocess.Popen(
                [sys.executable, '-c', command],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                env=os.environ | {'OPENBLAS_NUM_THREADS': '1'},
            )
        self.stop = weakref.finalize(self, _end, self._process, self._connection, self._shared)
        # When the interpreter exits, other threads may be in a call. The process notices the end by itself.
        self.stop.atexit = False
        try:
            if not self._connection.poll(_START_S):
                raise EOFError
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise RuntimeError(
                f'A decoding process did not start (exit code {self._process.returncode}).'
            ) from error

    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def call(self, function: Callable[..., T], args: tuple[object, ...]) -> tuple[T, Exception | None]:
        """The value of the function and None, or None and its error.

        Raises:
            MediaError: the process ended or got stuck during this call.
        """
        try:
            self._connection.send((function, args))
            if not self._connection.poll(self._timeout_s + _GRACE_S):
                raise media.MediaError('unreadable: decoder timed out')
            rest, sizes = self._connection.recv()
            return pickle.loads(rest, buffers=self._arena.get(sizes))
        except (EOFError, ConnectionError) as error:
            code = self._process.wait()
            if code == -signal.SIGALRM:
                raise media.MediaError('unreadable: decoder timed out') from error
            cause = signal.Signals(-code).name if code < 0 else f'exit code {code}'
            raise media.MediaError(f'unreadable: decoder crashed ({cause})') from error


def _end(process: subprocess.Popen[bytes], connection: Connection, shared: BinaryIO) -> None:
    connection.close()
    shared.close()
    process.kill()  # does nothing in a fork, where the process is not a child
    with contextlib.suppress(subprocess.TimeoutExpired):  # a dead disk may block it forever
        process.wait(_GRACE_S)


def serve(descriptor: int, shared: int, timeout_s: float) -> NoReturn:
    """Answers calls until the owner ends: the main function of a worker.

    Args:
        descriptor: of the connection to the owner.
        shared: descriptor of the file for arrays.
        timeout_s: wall-clock time for each call, in seconds.
    """
    # A terminal or a scheduler sends these to the whole group; only the owner acts on them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ignored or blocked signals are inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, MEMORY_BYTES)):
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some; the time-out still holds
            resource.setrlimit(limit, (value, value))
    connection, arena = Connection(descriptor), _Arena(shared)
    with contextlib.suppress(EOFError, ConnectionError):
        connection.send('ready')
        while True:
            function, args = connection.recv()
            # No handler catches this alarm, so it ends the process wherever it is, in FFmpeg as well.
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            answer: tuple[object, Exception | None]
            try:
                answer = function(*args), None
            except MemoryError:
                answer = None, media.MediaError('unreadable: takes too much memory')
            except Exception as error:
                answer = None, error
            buffers: list[pickle.PickleBuffer] = []
            rest = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
            views = [buffer.raw() for buffer in buffers]
            arena.put(views)
            connection.send((rest, [view.nbytes for view in views]))
            signal.setitimer(signal.ITIMER_REAL, 0)
    sys.exit()


class _Arena:
    """Memory shared by two processes, to pass arrays at once rather than through a pipe in small portions."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._map: mmap.mmap | None = None

    def put(self, buffers: Sequence[memoryview]) -> None:
        start = 0
        memory = self._mapped(sum(buffer.nbytes for buffer in buffers))
        for buffer in buffers:
            memory[start : start + buffer.nbytes] = buffer
            start += buffer.nbytes

    def get(self, sizes: Sequence[int]) -> list[np.ndarray]:
        ends = np.cumsum(sizes, dtype=np.int64)
        memory = np.frombuffer(self._mapped(sum(sizes)), np.uint8)
        return [memory[end - size : end].copy() for size, end in zip(sizes, ends, strict=True)]

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            length = max(1 << 20, 1 << (size - 1).bit_length())
            if os.fstat(self._file).st_size < length:
                os.ftruncate(self._file, length)
            self._map = mmap.mmap(self._file, length)
        return self._map


def _shared_file() -> BinaryIO:
    if hasattr(os, 'memfd_create'):
        return open(os.memfd_create('clips'), 'w+b', buffering=0)
    return tempfile.TemporaryFile(buffering=0)
