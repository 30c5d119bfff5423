"""Pictures of clips: reconstructions stage by stage, retrievals, and strips of frames.

Axes: t time, f mel bins, h w picture, T frames of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from diffmavil_jax.report.content import Frames, Reconstruction, RetrievalExample, Spectrogram, Stages
from diffmavil_jax.report.figures import (
    BACKGROUND,
    GAPS,
    MASKED,
    MUTED,
    TEXT,
    TRUE_MATCH,
    WIDTH,
    axes,
    new_figure,
    text,
)
from diffmavil_jax.units import spell

MAX_FRAMES = 8  # shown of a clip
MAX_MATCHES = 5  # shown of a query


def frame_strip(frames: Frames) -> Figure:
    """The frames of one clip, side by side."""
    shown = _pick(frames, MAX_FRAMES)
    figure = new_figure(WIDTH / MAX_FRAMES)
    _frames(axes(figure, 0, 0, WIDTH * len(shown) / MAX_FRAMES, WIDTH / MAX_FRAMES), shown, len(shown))
    return figure


def reconstruction_sheet(example: Reconstruction) -> Figure:
    """A row for each stage: the target, what the encoder sees, what the decoder starts from, the prediction.

    A row has the spectrogram over seconds, in one colour range for all rows, and the frames.
    """
    rows = _stage_rows(example)
    shown = min(MAX_FRAMES, len(example.video.target))
    left, right, top, height, gap = 2.05, 0.1, 0.34, 0.84, 0.1
    side = min(height, 5.2 / shown)
    strip = (shown + (shown - 1) / GAPS) * side
    width = WIDTH - left - right - strip - 0.22
    figure = new_figure(top + len(rows) * (height + gap) - gap + 0.45)
    known = np.isfinite(example.audio.target).any()
    limits = colour_range([example.audio.target if known else example.audio.prediction])
    heads = (
        f'log-mel spectrogram, {_hidden(example.audio)} hidden',
        f'frames, {_hidden(example.video)} hidden',
    )
    text(figure, left, top - 0.1, heads[0], MUTED, size=8)
    text(figure, WIDTH - right - strip, top - 0.1, heads[1], MUTED, size=8)
    for i, (title, detail, audio, video) in enumerate(rows):
        y = top + i * (height + gap)
        text(figure, 0.1, y + height / 2 - 0.03, title, TEXT, weight='bold')
        text(figure, 0.1, y + height / 2 + 0.17, detail, MUTED, size=8)
        axis = axes(figure, left, y, width, height)
        _spectrogram(axis, audio, limits, example.seconds)
        if i == len(rows) - 1:
            _mel_axis(axis, audio.shape[1])
        box = (WIDTH - right - strip, y + (height - side) / 2, strip, side)
        _frames(axes(figure, *box), _pick(video, shown), shown)
    return figure


def hero(example: Reconstruction) -> Figure:
    """One wide picture of the method: a clip hidden, diffused, reconstructed, and as it was."""
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
    figure = new_figure(top + height + 0.1 + side + 0.15)
    limits = colour_range([example.audio.target])
    for i, (name, detail, audio, video) in enumerate(order):
        x = left + i * (width + gap)
        title, detail = titles.get(name, (name, detail))
        text(figure, x, top - 0.34, title, TEXT, weight='bold', size=10.5)
        text(figure, x, top - 0.12, detail, MUTED, size=8)
        _spectrogram(axes(figure, x, top, width, height), audio, limits, example.seconds)
        _frames(axes(figure, x, top + height + 0.1, width, side), _pick(video, count), count)
        if 0 < i < len(order) - 1:
            text(figure, x - gap / 2, top + height / 2, '→', MUTED, size=15, align='center')
    return figure


def retrieval_sheet(examples: Sequence[RetrievalExample]) -> Figure:
    """A row for each query, with its best matches; the clip that the query comes from is outlined."""
    top, height, gap, left, query_width = 0.42, 1.2, 0.42, 0.1, 1.75
    figure = new_figure(top + len(examples) * (height + gap) - 0.08)
    start = left + query_width + 0.4
    pitch = (WIDTH - start - 0.1 + 0.2) / MAX_MATCHES
    text(figure, left, 0.2, 'Query', TEXT, weight='bold')
    for j in range(MAX_MATCHES):
        text(figure, start + j * pitch, 0.2, f'Match {j + 1}', TEXT, weight='bold')
    for i, example in enumerate(examples):
        y = top + i * (height + gap)
        matches = list(example.matches)[:MAX_MATCHES]
        limits = colour_range([c for c in (example.query, *(m.content for m in matches)) if c.ndim == 2])
        _clip(figure, example.query, (left, y, query_width, height), limits)
        rank = f'its own clip: rank {spell(example.true_rank)}'
        text(figure, left, y + height + 0.16, rank, MUTED, size=8)
        for j, match in enumerate(matches):
            box = _clip(figure, match.content, (start + j * pitch, y, pitch - 0.2, height), limits)
            label = f'{match.score:.2f}'.replace('-', '−') + (' · its own clip' if match.is_true else '')
            colour, weight = (TRUE_MATCH, 'bold') if match.is_true else (MUTED, 'normal')
            text(figure, box[0], y + height + 0.16, label, colour, size=8, weight=weight)
            if match.is_true:
                _outline(figure, box, TRUE_MATCH)
    return figure


def colour_range(spectrograms: Sequence[Spectrogram]) -> tuple[float, float]:
    """The colour range that spectrograms share: their percentiles 1 and 99.7."""
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


def _pick(frames: Frames, count: int) -> Float[np.ndarray, 'picked h w 3']:
    """`count` frames at even distances, from the first to the last."""
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _clip(
    figure: Figure,
    content: np.ndarray,
    box: tuple[float, float, float, float],
    limits: tuple[float, float],
) -> tuple[float, float, float, float]:
    """Draws a spectrogram, or four frames two by two; returns the box that it fills."""
    x, y, width, height = box
    if content.ndim == 2:
        _spectrogram(axes(figure, *box), content, limits, 1.0)
        return box
    side = min(width, height)
    _frames(axes(figure, x, y, side, side), _pick(content, 4), 2)
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
    """Draws frames in rows of `columns`, as one image: axes for each frame would take most of the time."""
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
