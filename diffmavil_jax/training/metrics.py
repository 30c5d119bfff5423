"""The metrics of a run on disk: metrics.jsonl, and events for TensorBoard; trackers get them too."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from typing import Any

from absl import logging
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from diffmavil_jax.training.trackers import Tracker, finite

RESERVED = ('samples', 'nonfinite')
FSYNC_SECONDS = 30.0


class MetricsWriter:
    """Writes metrics.jsonl and TensorBoard events into a run's directory; one process does so.

    A line of metrics.jsonl is one JSON object and starts with `samples`, which grows from line
    to line, also after a resume: a resumed run computes some metrics again, to the same values, and
    they are not written twice. JSON has no NaN and no infinity: they are written as null, and
    `nonfinite` lists their names.

    Args:
        workdir: the run's directory; created if it does not exist.
        trackers: get every line as well, and are closed with the files.
    """

    def __init__(self, workdir: str | os.PathLike[str], trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers
        path = pathlib.Path(workdir) / 'metrics.jsonl'
        path.parent.mkdir(parents=True, exist_ok=True)
        self._last = _repair(path)
        self._file: FileIO = path.open('ab', buffering=0)
        self._synced = time.monotonic()
        events = path.parent / 'tensorboard'
        events.mkdir(exist_ok=True)
        # Not SummaryWriter: flush does not empty its queue, and a kill loses what waits there. The
        # suffix is needed because a second file of the same second would overwrite the first.
        self._events = EventsWriter(str(events / 'events'), f'.{time.time_ns()}')

    def write(self, samples: int, values: Mapping[str, float]) -> bool:
        """Writes one line of metrics.jsonl, and the same numbers for TensorBoard.

        If storage or a tracker refuses the line, it is lost there; that is logged, and is no error.

        Args:
            samples: samples seen.
            values: numbers by name.

        Returns:
            False if a line at or after `samples` is already there; nothing is written then.

        Raises:
            ValueError: a number is named `samples` or `nonfinite`.
        """
        for name in RESERVED:
            if name in values:
                raise ValueError(f'A metric must not be called {name!r}.')
        if samples <= self._last:
            return False
        numbers = {name: float(value) for name, value in values.items()}
        try:
            for name, number in numbers.items():
                scalar = summary.scalar(name, number)
                self._events.write_event(Event(wall_time=time.time(), step=samples, summary=scalar))
            # Events first: a kill in between then leaves an event twice. Otherwise it would be lost.
            self._events.flush()
            self._append(_line(samples, numbers))
        except OSError as error:
            logging.warning('The metrics at clip %d could not be written: %s', samples, error)
        self._last = samples
        for tracker in self._trackers:
            _try(functools.partial(tracker.log, samples, finite(numbers)))
        return True

    def close(self) -> None:
        """Puts everything on disk that storage accepts."""
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            self._events.close()
        except OSError as error:
            logging.warning('The last TensorBoard events could not be written: %s', error)
        for tracker in self._trackers:
            _try(tracker.close)

    def _append(self, line: bytes) -> None:
        begin = self._file.seek(0, os.SEEK_END)
        # The file is unbuffered, so that a kill loses nothing; only a crash of the machine needs fsync.
        if self._file.write(line) != len(line):
            self._file.truncate(begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if time.monotonic() - self._synced > FSYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The complete lines of a run's metrics.jsonl; another process may be writing to it."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    if not path.exists():
        return []
    lines = path.read_bytes().split(b'\n')
    return [json.loads(line) for line in lines[:-1]]


def _try(call: Callable[[], None]) -> None:
    """Calls a tracker, whose failure is logged, and ends no run."""
    try:
        call()
    except Exception as error:  # each has errors of its own
        logging.warning('A tracker failed: %s: %s', type(error).__name__, error)


def _line(samples: int, numbers: Mapping[str, float]) -> bytes:
    nonfinite = [name for name, number in numbers.items() if not math.isfinite(number)]
    finite = {name: None if name in nonfinite else number for name, number in numbers.items()}
    extra = {'nonfinite': nonfinite} if nonfinite else {}
    return (json.dumps({'samples': int(samples), **finite, **extra}, allow_nan=False) + '\n').encode()


def _repair(path: pathlib.Path) -> int:
    """Cuts off a torn last line. Returns the samples of the last complete line, or -1 if there is none."""
    if not path.exists():
        return -1
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    if lines and not (lines[-1].endswith(b'\n') and _samples_of(lines[-1]) is not None):
        torn = lines.pop()
        os.truncate(path, len(content) - len(torn))
        logging.warning('%s: the last line was torn, %d bytes were cut off: %.80r', path, len(torn), torn)
    if not lines:
        return -1
    last = _samples_of(lines[-1])
    if last is None:
        raise ValueError(f'{path}: line {len(lines)} is not a JSON object with samples; is it another file?')
    return last


def _samples_of(line: bytes) -> int | None:
    try:
        samples = json.loads(line)['samples']
    except (ValueError, KeyError, TypeError):
        return None
    return samples if isinstance(samples, int) else None
