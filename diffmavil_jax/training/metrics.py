"""metrics.jsonl and TensorBoard: the metrics of a run on disk."""

from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from io import FileIO
from typing import Any

from absl import logging
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

RESERVED = ('samples', 'nonfinite')
FSYNC_SECONDS = 30.0


class MetricsWriter:
    """Writes metrics.jsonl and TensorBoard events into a run's directory; one process does so.

    A line of metrics.jsonl is one JSON object and starts with `samples`, which grows from line
    to line, also across a resume: what a resumed run computes again is not written again, which
    is no loss because it comes out the same. NaN and infinity are no JSON: they are written
    as null, and `nonfinite` lists their names.

    Args:
        workdir: the run's directory; created if it does not exist.
    """

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        path = pathlib.Path(workdir) / 'metrics.jsonl'
        path.parent.mkdir(parents=True, exist_ok=True)
        self._last = _repair(path)
        self._file: FileIO = path.open('ab', buffering=0)
        self._synced = time.monotonic()
        events = path.parent / 'tensorboard'
        events.mkdir(exist_ok=True)
        # Not SummaryWriter: its queue is not emptied by flush, and a kill loses what waits in it. The
        # suffix, because a second file of the same second would overwrite the first.
        self._events = EventsWriter(str(events / 'events'), f'.{time.time_ns()}')

    def write(self, samples: int, values: Mapping[str, float]) -> bool:
        """Writes one line and its scalars.

        Args:
            samples: samples seen.
            values: name -> number, without `samples` and `nonfinite`.

        A line that storage refuses is lost, which is logged and no error.

        Returns:
            False if a line at or after `samples` is already there; nothing is written then.
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
            # Events first: a kill in between leaves one twice, the other way round it would be lost.
            self._events.flush()
            self._append(_line(samples, numbers))
        except OSError as error:
            logging.warning('The metrics at clip %d could not be written: %s', samples, error)
        self._last = samples
        return True

    def close(self) -> None:
        """Puts everything on disk, as far as storage takes it."""
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            self._events.close()
        except OSError as error:
            logging.warning('The last TensorBoard events could not be written: %s', error)

    def _append(self, line: bytes) -> None:
        begin = self._file.seek(0, os.SEEK_END)
        # Unbuffered: enough for a killed process; only a killed machine needs the fsync.
        if self._file.write(line) != len(line):
            self._file.truncate(begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if time.monotonic() - self._synced > FSYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The complete lines of a run's metrics.jsonl, also while it is being written."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    if not path.exists():
        return []
    lines = path.read_bytes().split(b'\n')
    return [json.loads(line) for line in lines[:-1]]


def _line(samples: int, numbers: Mapping[str, float]) -> bytes:
    nonfinite = [name for name, number in numbers.items() if not math.isfinite(number)]
    finite = {name: None if name in nonfinite else number for name, number in numbers.items()}
    extra = {'nonfinite': nonfinite} if nonfinite else {}
    return (json.dumps({'samples': int(samples), **finite, **extra}, allow_nan=False) + '\n').encode()


def _repair(path: pathlib.Path) -> int:
    """Cuts off a torn last line and returns the sample count of the last whole one, -1 without any."""
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
