"""Which pictures a report needs, and drawing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from diffmavil_jax.report import curves, figures, sheets
from diffmavil_jax.report.content import DIRECTIONS, Direction, Report


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure, and what it shows for those who can't see it."""

    name: str
    alt: str
    png: bytes
    size: tuple[int, int]  # in pixels of the page


def draw(report: Report) -> list[Picture]:
    """Every picture for which there is content."""
    history, clips = report.history, report.reconstructions
    pictures = [
        picture('losses', 'Training losses over clips seen', curves.loss_curves, history),
        picture(
            'schedule', 'Mask ratio, batch size and speed over clips seen', curves.schedule_curves, history
        ),
        picture('evaluation', 'Held-out measures over clips seen', curves.evaluation_curves, history),
    ]
    if clips:
        alt = 'A spectrogram and frames: hidden in part, then reconstructed, beside the original'
        pictures.append(picture('hero', alt, sheets.hero, clips[0]))
    for i, clip in enumerate(clips, 1):
        alt = f'Clip {i}: target, what the encoder sees, what the decoder starts from, prediction'
        pictures.append(picture(f'reconstruction-{i}', alt, sheets.reconstruction_sheet, clip))
    for direction in directions(report):
        examples = [example for example in report.retrievals if example.direction == direction]
        alt = f'Queries and their best matches, {direction}'
        name = retrieval_name(direction)
        pictures.append(picture(name, alt, sheets.retrieval_sheet, examples))
    if report.confusion is not None:
        alt = 'How many clips of each class were taken for each'
        pictures.append(picture('confusion', alt, curves.confusion_matrix, report.confusion))
    return [picture for picture in pictures if picture is not None]


def directions(report: Report) -> list[Direction]:
    """The directions of the retrievals that the report has, in order."""
    present = {example.direction for example in report.retrievals}
    return [direction for direction in DIRECTIONS if direction in present]


def retrieval_name(direction: str) -> str:
    """The file name of the sheet of one direction."""
    return f'retrieval-{direction.replace(" ", "-")}'


def picture(name: str, alt: str, draw: Callable[[Any], Figure | None], content: Any) -> Picture | None:
    """Draws one picture; none where there is nothing to draw."""
    figure = draw(content)
    if figure is None:
        return None
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    return Picture(name, alt, figures.to_png(figure), (width, height))
