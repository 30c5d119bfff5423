"""How far a run is: a bar and a line on a terminal, lines elsewhere."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class Progress:
    """What one progress line says."""

    samples: int
    total_samples: int
    loss: float
    loss_parts: Mapping[str, float]  # short name -> value, in the order to show
    mask_ratio: float
    batch_size: int
    clips_per_second: float


def progress_line(progress: Progress) -> str:
    """Formats a line such as this one.

    ```
      34 %  12,288/36,000 clips  loss 1.234 (audio .51 video .42 inter 3.9)  mask .86  batch 144  171 clips/s
    ```
    Then the time left, e.g. `2:21 left`.
    """
    p = progress
    parts = ' '.join(f'{name} {_short(value)}' for name, value in p.loss_parts.items())
    return '  '.join(
        [
            f'{math.floor(100 * p.samples / p.total_samples):4d} %',
            f'{p.samples:,}/{p.total_samples:,} clips',
            f'loss {p.loss:.3f}' + (f' ({parts})' if parts else ''),
            f'mask {_without_zero(f"{p.mask_ratio:.2f}")}',
            f'batch {p.batch_size}',
            f'{_rate(p.clips_per_second)} clips/s',
            f'{_time_left(p)} left',
        ]
    )


class ProgressPrinter:
    """Shows progress in place on a terminal, with a bar, and elsewhere as lines one below the other.

    On a terminal, what is printed meanwhile stands above it.

    Args:
        stream: standard output by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._in_place = self._stream.isatty()
        self._live: Live | None = None

    def show(self, progress: Progress) -> None:
        """Shows where a run is."""
        bar = ProgressBar(total=progress.total_samples, completed=progress.samples)
        self._put(progress_line(progress), bar)

    def write(self, line: str) -> None:
        """Shows a line of another kind."""
        self._put(line)

    def end(self) -> None:
        """Leaves what is shown, so that something else can follow; `show` may be called again later."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _put(self, line: str, *above: RenderableType) -> None:
        if not self._in_place:
            print(line, file=self._stream, flush=True)
            return
        if self._live is None:
            console = Console(file=self._stream, force_jupyter=False)
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
            console.show_cursor()  # a process that is killed would leave it hidden
        rows = Table.grid()
        for row in (*above, Text(line, no_wrap=True, overflow='ellipsis')):
            rows.add_row(row)
        self._live.update(rows, refresh=True)


def _short(value: float) -> str:
    """Two significant digits, or all digits before the point."""
    return f'{value:.0f}' if abs(value) >= 10 else _without_zero(f'{value:.2g}')


def _without_zero(number: str) -> str:
    return number.replace('0.', '.', 1) if number.startswith(('0.', '-0.')) else number


def _rate(clips_per_second: float) -> str:
    return f'{clips_per_second:,.0f}' if clips_per_second >= 10 else f'{clips_per_second:.1f}'


def _time_left(progress: Progress) -> str:
    if not (progress.clips_per_second > 0 and math.isfinite(progress.clips_per_second)):
        return '-:--'
    seconds = math.ceil((progress.total_samples - progress.samples) / progress.clips_per_second)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f'{days} d {hours}:{minutes:02d} h'
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'
