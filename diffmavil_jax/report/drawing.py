"""Which pictures a report has, and how each becomes a PNG with a text for those who can't see it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from diffmavil_jax.report import curves, figures, sheets
from diffmavil_jax.report.content import DIRECTIONS, Direction, Mistake, Report

# The files of every picture that `draw` may return.
PICTURE_FILES = re.compile(
    r'(hero|losses|schedule|evaluation|confusion|reconstruction-\d+|retrieval-(audio-to-video|video-to-audio))\.png'
)
_PIXELS_PER_INCH = 96  # of a page


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the page needs it: `size` is (width, height) in pixels of the page."""

    name: str
    alt: str
    png: bytes
    size: tuple[int, int]


def draw(report: Report) -> list[Picture]:
    """Every picture for which there is content."""
    history, clips = report.history, report.reconstructions
    pictures = [
        _picture('losses', 'Training losses over clips seen', curves.loss_curves, history),
        _picture(
            'schedule', 'Mask ratio, batch size and speed over clips seen', curves.schedule_curves, history
        ),
        _picture('evaluation', 'Held-out measures over clips seen', curves.evaluation_curves, history),
    ]
    if clips:
        alt = 'A spectrogram and frames: hidden in part, then reconstructed, beside the original'
        pictures.append(_picture('hero', alt, sheets.hero, clips[0]))
    for i, clip in enumerate(clips, 1):
        alt = f'Clip {i}, a spectrogram and frames: the target, what the encoder sees, and the prediction'
        pictures.append(_picture(f'reconstruction-{i}', alt, sheets.reconstruction_sheet, clip))
    for direction in directions(report):
        examples = [example for example in report.retrievals if example.direction == direction]
        alt = f'Queries and their best matches, {direction}'
        name = f'retrieval-{direction.replace(" ", "-")}'
        pictures.append(_picture(name, alt, sheets.retrieval_sheet, examples))
    if report.confusion is not None:
        alt = 'A matrix: how many clips of each true class got each answer'
        pictures.append(_picture('confusion', alt, curves.confusion_matrix, report.confusion))
    return [picture for picture in pictures if picture is not None]


def draw_strip(mistake: Mistake) -> Picture | None:
    """The frames of a clip that was taken for another class; None if it has none."""
    if mistake.frames is None:
        return None
    return _picture('strip', f'Frames of {mistake.id}', sheets.frame_strip, mistake.frames)


def directions(report: Report) -> list[Direction]:
    """The directions of retrieval that the report has examples of, in the order of `DIRECTIONS`."""
    present = {example.direction for example in report.retrievals}
    return [direction for direction in DIRECTIONS if direction in present]


def _picture(name: str, alt: str, draw: Callable[[Any], Figure | None], content: Any) -> Picture | None:
    figure = draw(content)
    if figure is None:
        return None
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return Picture(name, alt, figures.to_png(figure), (width, height))
