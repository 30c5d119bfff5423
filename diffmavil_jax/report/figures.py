"""The pictures of a report, drawn with matplotlib's objects: no global state, no display.

Every figure is WIDTH inches wide at DPI and laid out in inches, so that its size in
pixels follows from its content alone. No text of a user (a file name, say) is drawn:
that belongs to the page, which has every font.

Axes: t time, f mel bins, h w picture, T pictures of a clip.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 11.0  # inches
DPI = 160
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


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes for the same figure and version of matplotlib."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
    return buffer.getvalue()


# ---- Curves -------------------------------------------------------------------------


# ---- Clips --------------------------------------------------------------------------


# ---- Layout in inches, from the top left ----------------------------------------------


def new_figure(height: float) -> Figure:
    """An empty figure, WIDTH inches wide."""
    return Figure(figsize=(WIDTH, round(height * DPI) / DPI), dpi=DPI, facecolor=BACKGROUND)


def axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the top left corner."""
    total = figure.get_figheight()
    axis = figure.add_axes((x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total))
    axis.set_facecolor('none')
    return axis


def text(
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
    """Text at a place in inches from the top left corner."""
    where = (x / WIDTH, 1 - y / figure.get_figheight())
    va = 'center' if align == 'center' else 'baseline'
    figure.text(
        *where, text, color=colour, fontsize=size, fontweight=weight, ha=align, va=va, parse_math=False
    )
