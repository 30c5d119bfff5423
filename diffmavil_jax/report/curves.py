"""Plots of numbers: losses, schedules and held-out scores over clips seen, and the confusion matrix."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from diffmavil_jax.report.content import Confusion
from diffmavil_jax.report.figures import (
    AUDIO,
    BACKGROUND,
    FUSED,
    GRID,
    MUTED,
    TEXT,
    TOTAL,
    VIDEO,
    WIDTH,
    axes,
    new_figure,
)
from diffmavil_jax.units import Unit, is_number, spell

Points = list[tuple[float, float]]  # samples, value


@dataclasses.dataclass(frozen=True)
class _Panel:
    """One small plot: lines as (label, points, colour), with values in one unit."""

    title: str
    lines: Sequence[tuple[str, Points, str]]
    unit: Unit = 'number'
    steps: bool = False
    reference: tuple[str, Points] | None = None


# Titles of known names, in the order of their panels.
LOSS_NAMES = {
    'loss': 'Total loss',
    'audio': 'Audio reconstruction',
    'video': 'Video reconstruction',
    'inter': 'Audio–video contrast (InfoNCE)',
    'sigmoid': 'Audio–video contrast (sigmoid)',
    'intra': 'View–view contrast (InfoNCE)',
}
SCHEDULE_NAMES = {
    'mask_ratio': 'Mask ratio',
    'batch_size': 'Batch size',
    'learning_rate': 'Learning rate',
    'clips_per_second': 'Clips per second',
}

# Clocks and counters, which are not drawn.
_BOOKKEEPING = re.compile(r'samples|steps?|bucket|time|.*_(s|seconds|samples)')
_SHARES = frozenset({'r1', 'r5', 'r10', 'top1', 'top5', 'accuracy'})
_WORDS = {'r1': 'R@1', 'r5': 'R@5', 'r10': 'R@10', 'top1': 'top-1', 'top5': 'top-5', 'knn': 'kNN'}
# Words that distinguish the lines of one panel.
_LINES = {'audio': 'audio', 'video': 'video', 'fused': 'fused', 'a2v': 'a→v', 'v2a': 'v→a'}


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The total loss and its parts over clips seen, a panel for each; None without any."""
    curves = _curves(history, lambda key: '/' not in key and not _BOOKKEEPING.fullmatch(key))
    names = [name for name in LOSS_NAMES if name in curves]
    names += sorted(name for name in curves if name not in LOSS_NAMES and name not in SCHEDULE_NAMES)
    if not names:
        return None
    # InfoNCE of a network that can't tell the clips of a batch apart.
    chance = [(x, math.log(batch)) for x, batch in curves.get('batch_size', ()) if batch > 0]
    panels = [
        _Panel(
            LOSS_NAMES.get(name, _title([name])),
            [('', curves[name], _colour(name))],
            reference=('chance: ln(batch)', chance) if name == 'inter' and chance else None,
        )
        for name in names
    ]
    return _grid(panels, columns=3)


def schedule_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Mask ratio, batch size, learning rate and speed over clips seen; None without any."""
    curves = _curves(history, SCHEDULE_NAMES.__contains__)
    panels = [
        _Panel(title, [('', curves[name], TOTAL)], steps=name in ('mask_ratio', 'batch_size'))
        for name, title in SCHEDULE_NAMES.items()
        if name in curves
    ]
    return _grid(panels, columns=4) if panels else None


def evaluation_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Held-out scores (`eval/…`) over clips seen; None without any.

    Names that differ only in the modality or the direction share a panel.
    """
    curves = _curves(history, lambda key: key.startswith('eval/') and not key.endswith('/clips'))
    groups: dict[tuple[str, ...], list[tuple[str, Points, str]]] = {}
    for name in curves:
        words = re.split(r'[/._ ]+', name.removeprefix('eval/'))
        varied = [word for word in words if word in _LINES]
        group = tuple(word for word in words if word not in _LINES)
        label = ' '.join(_LINES[word] for word in varied)
        groups.setdefault(group, []).append((label, curves[name], _colour(' '.join(varied))))
    panels = [
        _Panel(_title(group) or 'Held out', lines, 'percent' if _SHARES.intersection(group) else 'number')
        for group, lines in groups.items()
    ]
    return _grid(panels, columns=3) if panels else None


def _curves(history: Sequence[Mapping[str, Any]], wanted: Callable[[str], bool]) -> dict[str, Points]:
    """Points (samples, value) by name; a value that is not finite leaves a gap."""
    curves: dict[str, Points] = {}
    for line in sorted((li for li in history if is_number(li.get('samples'))), key=lambda li: li['samples']):
        for name, value in line.items():
            if wanted(name) and isinstance(value, (int, float, np.number)):
                point = (float(line['samples']), float(value) if is_number(value) else math.nan)
                curves.setdefault(name, []).append(point)
    return {name: points for name, points in curves.items() if any(not math.isnan(y) for _, y in points)}


def _colour(name: str) -> str:
    """The colour of a modality; a direction has that of its query."""
    if re.search('audio|a2v', name):
        return AUDIO
    if re.search('video|v2a', name):
        return VIDEO
    return FUSED if re.search('inter|fused|intra', name) else TOTAL


def _title(words: Sequence[str]) -> str:
    text = ' '.join(_WORDS.get(word, word.replace('_', ' ')) for word in words)
    return text[:1].upper() + text[1:]


def _grid(panels: Sequence[_Panel], columns: int) -> Figure:
    """Small plots that share the horizontal axis, in rows."""
    rows = math.ceil(len(panels) / columns)
    left, gap, right, top, height, pitch = 0.55, 0.62, 0.15, 0.38, 1.45, 2.05
    width = (WIDTH - left - right - (columns - 1) * gap) / columns
    figure = new_figure(top + (rows - 1) * pitch + height + 0.5)
    last = max(x for panel in panels for _, points, _ in panel.lines for x, _ in points)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        axis = axes(figure, left + column * (width + gap), top + row * pitch, width, height)
        _plot(axis, panel)
        _style(axis, panel.unit, last)
        _legend(axis, panel, 72 * width)
        if i + columns >= len(panels):
            axis.set_xlabel('clips seen', color=MUTED, fontsize=8)
    return figure


def _plot(axis: Axes, panel: _Panel) -> None:
    axis.margins(y=0.1)
    for _, points, colour in panel.lines:
        x, y = zip(*points, strict=True)
        marker = 'o' if len(points) <= 12 else ''
        axis.plot(x, y, color=colour, linewidth=1.5, marker=marker, markersize=3.5, clip_on=False)
    if panel.steps:
        axis.lines[0].set_drawstyle('steps-post')
    if panel.reference:
        label, points = panel.reference
        x, y = zip(*points, strict=True)
        axis.plot(x, y, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), drawstyle='steps-post')
        axis.annotate(label, points[0], (3, 3), textcoords='offset points', color=MUTED, fontsize=7.5)
        axis.margins(y=0.18)


def _style(axis: Axes, unit: Unit, last: float) -> None:
    axis.set_xlim(0, last * 1.03 or 1)
    axis.grid(axis='y', color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right', 'left']].set_visible(False)
    axis.spines['bottom'].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=8, length=0)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: spell(value, 'si')))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unit)))


def _tick(value: float, unit: Unit) -> str:
    """A short label for a round number on an axis."""
    if unit == 'percent':
        return f'{100 * value:.3g} %'
    if abs(value) >= 10_000:
        return spell(value, 'si')
    return f'{value:.6g}'.replace('-', '−').replace('e−0', 'e−')


def _legend(axis: Axes, panel: _Panel, room: float) -> None:
    """Writes the title, and at the right the name and the last value of each line in its colour.

    `room` is the width in points; if the values of several lines do not fit, they are left out.
    """
    style: dict[str, Any] = {'fontsize': 9, 'fontweight': 'bold', 'color': TEXT, 'parse_math': False}
    axis.set_title(panel.title, loc='left', pad=7, **style)
    latest = [next(y for _, y in reversed(points) if not math.isnan(y)) for _, points, _ in panel.lines]
    texts = [
        f'{label} {spell(value, panel.unit)}'.strip()
        for (label, _, _), value in zip(panel.lines, latest, strict=True)
    ]
    if len(texts) > 1 and 6.5 * len(panel.title) + sum(5 * len(text) + 7 for text in texts) > room:
        texts = [label for label, _, _ in panel.lines]
    offset = 0.0
    for text, (_, _, colour) in reversed(list(zip(texts, panel.lines, strict=True))):
        axis.annotate(
            text, (1, 1), (-offset, 7), xycoords='axes fraction', textcoords='offset points',
            color=colour, fontsize=8, ha='right', va='baseline', parse_math=False,
        )  # fmt: skip
        offset += 5 * len(text) + 7


def confusion_matrix(confusion: Confusion) -> Figure:
    """True classes by row and answers by column, shaded by the share of the row; counts where they fit."""
    count = len(confusion.classes)
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    side = min(7.5, 1.5 + 0.42 * count)
    figure = new_figure(side + 1.9)
    axis = axes(figure, 2.2, 0.2, side, side)
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axis.set_xlabel('answer', color=MUTED, fontsize=9)
    axis.set_ylabel('truth', color=MUTED, fontsize=9)
    axis.tick_params(colors=MUTED, length=0)
    if count <= 60:
        size = 8 if count <= 25 else 6
        axis.set_xticks(range(count), confusion.classes, rotation=90, fontsize=size, parse_math=False)
        axis.set_yticks(range(count), confusion.classes, fontsize=size, parse_math=False)
    if count <= 25:
        for row, column in zip(*np.nonzero(confusion.counts), strict=True):
            colour = BACKGROUND if shares[row, column] > 0.5 else TEXT
            number = str(confusion.counts[row, column])
            axis.text(column, row, number, color=colour, fontsize=8, ha='center', va='center')
    return figure
