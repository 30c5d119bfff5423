"""The pictures of a report, drawn with matplotlib's objects: no global state, no display.

Every figure is WIDTH inches wide at DPI and laid out in inches, so that its size in
pixels follows from its content alone. No text of a user (a file name, say) is drawn:
that belongs to the page, which has every font.

Axes: t time, f mel bins, h w picture, T pictures of a clip.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from diffmavil_jax.report.content import (
    Confusion,
    Frames,
    Reconstruction,
    RetrievalExample,
    Spectrogram,
    Stages,
    Unit,
    is_number,
    spell,
)

WIDTH = 11.0  # inches
DPI = 160
MAX_FRAMES = 8  # shown of a clip
MAX_MATCHES = 5
GAPS = 16  # sides of a frame to the gap between two

# The palette: one colour for each modality on every figure.
BACKGROUND = '#ffffff'
TEXT = '#1b1f24'
MUTED = '#646c76'
GRID = '#e6e8eb'
MASKED = '#b4b9c0'
TOTAL = '#3b424b'
AUDIO = '#cf6a12'
VIDEO = '#2273b5'
FUSED = '#7a4bab'
TRUE_MATCH = '#1f9d57'

Points = list[tuple[float, float]]  # samples, value


@dataclasses.dataclass(frozen=True)
class _Panel:
    """One small plot: lines as (label, points, colour), their values in one unit."""

    title: str
    lines: Sequence[tuple[str, Points, str]]
    unit: Unit = 'number'
    steps: bool = False
    reference: tuple[str, Points] | None = None


LOSS_NAMES = {
    'loss': 'Total loss',
    'audio': 'Audio reconstruction',
    'video': 'Video reconstruction',
    'inter': 'Audio–video contrast (InfoNCE)',
    'intra': 'View–view contrast (InfoNCE)',
}
SCHEDULE_NAMES = {
    'mask_ratio': 'Mask ratio',
    'batch_size': 'Batch size',
    'learning_rate': 'Learning rate',
    'clips_per_second': 'Clips per second',
}
# The clock and the counters of a line, of which a curve says nothing.
_BOOKKEEPING = re.compile(r'samples|steps?|bucket|time|.*_(s|seconds|samples)')
_SHARES = frozenset({'r1', 'r5', 'r10', 'top1', 'top5', 'accuracy'})
_WORDS = {'r1': 'R@1', 'r5': 'R@5', 'r10': 'R@10', 'top1': 'top-1', 'top5': 'top-5', 'knn': 'kNN'}
# What tells the lines of one panel apart.
_LINES = {'audio': 'audio', 'video': 'video', 'fused': 'fused', 'a2v': 'a→v', 'v2a': 'v→a'}


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes for the same figure and version of matplotlib."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
    return buffer.getvalue()


# ---- Curves -------------------------------------------------------------------------


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The total loss and each part, one panel each, over clips seen; None without any."""
    curves = _curves(history, lambda key: '/' not in key and not _BOOKKEEPING.fullmatch(key))
    names = [name for name in LOSS_NAMES if name in curves]
    names += sorted(name for name in curves if name not in LOSS_NAMES and name not in SCHEDULE_NAMES)
    if not names:
        return None
    # The InfoNCE of a network that can't tell the clips of a batch apart.
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
    """Held-out numbers (`eval/…`) over clips seen; None without any.

    Names that differ only in the modality or the direction share a panel.
    """
    curves = _curves(history, lambda key: key.startswith('eval/'))
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
    figure = _figure(top + (rows - 1) * pitch + height + 0.5)
    last = max(x for panel in panels for _, points, _ in panel.lines for x, _ in points)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        axis = _axes(figure, left + column * (width + gap), top + row * pitch, width, height)
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
    """A round number on an axis, short."""
    if unit == 'percent':
        return f'{100 * value:.3g} %'
    if abs(value) >= 10_000:
        return spell(value, 'si')
    return f'{value:.6g}'.replace('-', '−').replace('e−0', 'e−')


def _legend(axis: Axes, panel: _Panel, room: float) -> None:
    """The title, and right of it each line's name and last value in its colour.

    `room` is in points; where it is short, the values of several lines are left out.
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
    """Truth by row, answer by column, shaded by the share of the row; counts where there is room."""
    count = len(confusion.classes)
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    side = min(7.5, 1.5 + 0.42 * count)
    figure = _figure(side + 1.9)
    axis = _axes(figure, 2.2, 0.2, side, side)
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


def frame_strip(frames: Frames) -> Figure:
    """The pictures of one clip, side by side."""
    shown = _pick(frames, MAX_FRAMES)
    figure = _figure(WIDTH / MAX_FRAMES)
    _frames(_axes(figure, 0, 0, WIDTH * len(shown) / MAX_FRAMES, WIDTH / MAX_FRAMES), shown, len(shown))
    return figure


# ---- Clips --------------------------------------------------------------------------


def reconstruction_sheet(example: Reconstruction) -> Figure:
    """What was there, what the encoder sees, what the decoder starts from, and its prediction.

    One row each: the spectrogram over seconds, in one colour range, and the frames.
    """
    rows = _stage_rows(example)
    shown = min(MAX_FRAMES, len(example.video.target))
    left, right, top, height, gap = 2.05, 0.1, 0.34, 0.84, 0.1
    side = min(height, 5.2 / shown)
    strip = (shown + (shown - 1) / GAPS) * side
    width = WIDTH - left - right - strip - 0.22
    figure = _figure(top + len(rows) * (height + gap) - gap + 0.45)
    known = np.isfinite(example.audio.target).any()
    limits = colour_range([example.audio.target if known else example.audio.prediction])
    heads = (
        f'log-mel spectrogram, {_hidden(example.audio)} hidden',
        f'frames, {_hidden(example.video)} hidden',
    )
    _text(figure, left, top - 0.1, heads[0], MUTED, size=8)
    _text(figure, WIDTH - right - strip, top - 0.1, heads[1], MUTED, size=8)
    for i, (title, detail, audio, video) in enumerate(rows):
        y = top + i * (height + gap)
        _text(figure, 0.1, y + height / 2 - 0.03, title, TEXT, weight='bold')
        _text(figure, 0.1, y + height / 2 + 0.17, detail, MUTED, size=8)
        axis = _axes(figure, left, y, width, height)
        _spectrogram(axis, audio, limits, example.seconds)
        if i == len(rows) - 1:
            _mel_axis(axis, audio.shape[1])
        box = (WIDTH - right - strip, y + (height - side) / 2, strip, side)
        _frames(_axes(figure, *box), _pick(video, shown), shown)
    return figure


def hero(example: Reconstruction) -> Figure:
    """One wide picture of the method: hidden, diffused, reconstructed, and the truth beside."""
    rows = _stage_rows(example)
    order = [*rows[1:], rows[0]]
    hidden = f'{_hidden(example.audio)} of sound, {_hidden(example.video)} of picture hidden'
    titles = {
        'Target': ('Original', 'held out, never seen in training'),
        'Encoder sees': ('Encoder sees', hidden),
    }
    left, gap, top, height = 0.12, 0.34, 0.62, 1.5
    width = (WIDTH - 2 * left - (len(order) - 1) * gap) / len(order)
    count = min(4, len(example.video.target))
    side = width / (count + (count - 1) / GAPS)
    figure = _figure(top + height + 0.1 + side + 0.15)
    limits = colour_range([example.audio.target])
    for i, (name, detail, audio, video) in enumerate(order):
        x = left + i * (width + gap)
        title, detail = titles.get(name, (name, detail))
        _text(figure, x, top - 0.34, title, TEXT, weight='bold', size=10.5)
        _text(figure, x, top - 0.12, detail, MUTED, size=8)
        _spectrogram(_axes(figure, x, top, width, height), audio, limits, example.seconds)
        _frames(_axes(figure, x, top + height + 0.1, width, side), _pick(video, count), count)
        if 0 < i < len(order) - 1:
            _text(figure, x - gap / 2, top + height / 2, '→', MUTED, size=15, align='center')
    return figure


def retrieval_sheet(examples: Sequence[RetrievalExample]) -> Figure:
    """One query a row and its best matches; the clip that belongs to it is outlined."""
    top, height, gap, left, query_width = 0.42, 1.2, 0.42, 0.1, 1.75
    figure = _figure(top + len(examples) * (height + gap) - 0.08)
    start = left + query_width + 0.4
    pitch = (WIDTH - start - 0.1 + 0.2) / MAX_MATCHES
    _text(figure, left, 0.2, 'Query', TEXT, weight='bold')
    for j in range(MAX_MATCHES):
        _text(figure, start + j * pitch, 0.2, f'Match {j + 1}', TEXT, weight='bold')
    for i, example in enumerate(examples):
        y = top + i * (height + gap)
        matches = list(example.matches)[:MAX_MATCHES]
        limits = colour_range([c for c in (example.query, *(m.content for m in matches)) if c.ndim == 2])
        _clip(figure, example.query, (left, y, query_width, height), limits)
        rank = f'its own clip: rank {spell(example.true_rank)}'
        _text(figure, left, y + height + 0.16, rank, MUTED, size=8)
        for j, match in enumerate(matches):
            box = _clip(figure, match.content, (start + j * pitch, y, pitch - 0.2, height), limits)
            label = f'{match.score:.2f}'.replace('-', '−') + (' · its own clip' if match.is_true else '')
            colour, weight = (TRUE_MATCH, 'bold') if match.is_true else (MUTED, 'normal')
            _text(figure, box[0], y + height + 0.16, label, colour, size=8, weight=weight)
            if match.is_true:
                _outline(figure, box, TRUE_MATCH)
    return figure


def colour_range(spectrograms: Sequence[Spectrogram]) -> tuple[float, float]:
    """The range that a row of spectrograms shares: all but their quietest and loudest hundredth."""
    values = np.concatenate([np.ravel(s[np.isfinite(s)]) for s in spectrograms] or [np.zeros(0)])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (1, 99.7)))
    return low, high if high > low else low + 1.0


def _stage_rows(example: Reconstruction) -> list[tuple[str, str, Spectrogram, Frames]]:
    """(title, detail, spectrogram, frames) of each stage that the model has."""
    audio, video = example.audio, example.video
    rows = [
        ('Target', 'the clip as it is', audio.target, video.target),
        ('Encoder sees', 'the visible part', audio.masked, video.masked),
    ]
    if audio.start is not None and video.start is not None:
        rows.append(('Decoder starts from', 'the hidden part, diffused', audio.start, video.start))
    return [*rows, ('Prediction', 'the hidden part, filled in', audio.prediction, video.prediction)]


def _hidden(stages: Stages) -> str:
    return f'{100 * np.mean(~np.isfinite(stages.masked)):.0f} %'


def _pick(frames: Frames, count: int) -> Frames:
    """`count` frames at even distances, the first and the last among them."""
    chosen: Frames = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return chosen


def _clip(
    figure: Figure,
    content: np.ndarray,
    box: tuple[float, float, float, float],
    limits: tuple[float, float],
) -> tuple[float, float, float, float]:
    """A spectrogram, or four frames, two by two; returns the box that it fills."""
    x, y, width, height = box
    if content.ndim == 2:
        _spectrogram(_axes(figure, *box), content, limits, 1.0)
        return box
    side = min(width, height)
    _frames(_axes(figure, x, y, side, side), _pick(content, 4), 2)
    return x, y, side, side


def _spectrogram(axis: Axes, values: Spectrogram, limits: tuple[float, float], seconds: float) -> None:
    low, high = limits
    shades = np.clip((values - low) / (high - low), 0, 1)
    colours = matplotlib.colormaps['magma'](np.nan_to_num(shades.T))[..., :3]
    image = np.where(np.isfinite(values.T)[..., None], colours, to_rgb(MASKED))
    axis.imshow(
        image, origin='lower', aspect='auto', interpolation='nearest', extent=(0, seconds, 0, values.shape[1])
    )
    axis.axis('off')


def _frames(axis: Axes, frames: Frames, columns: int) -> None:
    """Frames in rows of `columns`, as one image: an axis for each would take most of the time."""
    count, h, w, _ = frames.shape
    gap_h, gap_w = (max(1, round(side / GAPS)) for side in (h, w))
    rows = math.ceil(count / columns)
    shape = (rows * (h + gap_h) - gap_h, columns * (w + gap_w) - gap_w, 3)
    sheet = np.broadcast_to(to_rgb(BACKGROUND), shape).copy()
    shown = np.where(np.isfinite(frames), np.clip(frames, 0, 1), to_rgb(MASKED))
    for i, frame in enumerate(shown):
        y, x = i // columns * (h + gap_h), i % columns * (w + gap_w)
        sheet[y : y + h, x : x + w] = frame
    axis.imshow(sheet, aspect='auto', interpolation='nearest')
    axis.axis('off')


def _mel_axis(axis: Axes, bins: int) -> None:
    axis.axis('on')
    axis.spines[:].set_visible(False)
    axis.tick_params(colors=MUTED, labelsize=7.5, length=2, width=0.6)
    axis.set_yticks([0, bins // 2, bins])
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_ylabel('mel bin', color=MUTED, fontsize=7.5, labelpad=2)
    axis.set_xlabel('seconds', color=MUTED, fontsize=7.5, labelpad=2)


# ---- Layout in inches, from the top left ----------------------------------------------


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, round(height * DPI) / DPI), dpi=DPI, facecolor=BACKGROUND)


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    total = figure.get_figheight()
    axis = figure.add_axes((x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total))
    axis.set_facecolor('none')
    return axis


def _text(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    size: float = 9,
    weight: str = 'normal',
    align: str = 'left',
) -> None:
    where = (x / WIDTH, 1 - y / figure.get_figheight())
    va = 'center' if align == 'center' else 'baseline'
    figure.text(
        *where, text, color=colour, fontsize=size, fontweight=weight, ha=align, va=va, parse_math=False
    )


def _outline(figure: Figure, box: tuple[float, float, float, float], colour: str) -> None:
    x, y, width, height = box
    total = figure.get_figheight()
    pad = 0.035
    corner = ((x - pad) / WIDTH, 1 - (y + height + pad) / total)
    size = ((width + 2 * pad) / WIDTH, (height + 2 * pad) / total)
    frame = Rectangle(
        corner, *size, transform=figure.transFigure, fill=False, edgecolor=colour, linewidth=2.2
    )
    figure.add_artist(frame)
