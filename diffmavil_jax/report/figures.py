"""What all figures share: size, colours, and placing axes and text in inches from the top left.

Figures are matplotlib's objects, without global state and without a display. Each is WIDTH inches wide at
DPI, so its size in pixels follows from its content alone. File names are not drawn: they belong to the
page, which has every font.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 11.0  # inches
DPI = 160
GAPS = 16  # a frame is so many times as wide as the gap to the next

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


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes for the same figure and version of matplotlib."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
    return buffer.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure, WIDTH inches wide."""
    return Figure(figsize=(WIDTH, round(height * DPI) / DPI), dpi=DPI, facecolor=BACKGROUND)


def axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Adds axes at a place in inches from the top left corner."""
    total = figure.get_figheight()
    axis = figure.add_axes((x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total))
    axis.set_facecolor('none')
    return axis


def text(
    figure: Figure,
    x: float,
    y: float,
    words: str,
    colour: str,
    *,
    size: float = 9,
    weight: str = 'normal',
    align: str = 'left',
) -> None:
    """Adds text at a place in inches from the top left corner."""
    where = (x / WIDTH, 1 - y / figure.get_figheight())
    va = 'center' if align == 'center' else 'baseline'
    figure.text(
        *where, words, color=colour, fontsize=size, fontweight=weight, ha=align, va=va, parse_math=False
    )
