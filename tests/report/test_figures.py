"""Sheets of clips and curves: what is drawn where."""

import io
import math

import numpy as np
from PIL import Image

from diffmavil_jax.report import curves, figures, sheets
from tests.report.examples import history, reconstruction


def test_without_diffusion_the_sheet_has_one_row_less():
    rng = np.random.default_rng(1)
    with_start, without = (sheets.reconstruction_sheet(reconstruction(rng, s)) for s in (True, False))
    assert with_start.get_figheight() > without.get_figheight()
    assert len(without.axes) == 6 and len(with_start.axes) == 8
    assert len(sheets.hero(reconstruction(rng, False)).axes) == 6


def test_masked_parts_are_grey_and_the_colour_range_is_the_targets():
    example = reconstruction(np.random.default_rng(2))
    sheet = sheets.reconstruction_sheet(example)
    target, masked = (sheet.axes[i].images[0].get_array() for i in (0, 2))
    grey = np.array([int(figures.MASKED[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    np.testing.assert_allclose(masked[:, :16], np.broadcast_to(grey, (16, 16, 3)), atol=1e-6)
    np.testing.assert_array_equal(masked[:, 16:], target[:, 16:])
    assert sheets.colour_range([np.full((2, 2), np.nan)]) == (0.0, 1.0)
    assert sheets.colour_range([np.full((2, 2), 3.0)]) == (3.0, 4.0)


def test_curves_leave_gaps_and_share_panels():
    losses = curves.loss_curves(history())
    assert [axis.get_title(loc='left') for axis in losses.axes] == [
        'Total loss', 'Audio reconstruction', 'Audio–video contrast (InfoNCE)'
    ]  # fmt: skip
    assert np.isnan(losses.axes[1].lines[0].get_ydata()[3])
    np.testing.assert_allclose(losses.axes[2].lines[1].get_ydata(), math.log(64))
    held_out = curves.evaluation_curves(history())
    assert [len(axis.lines) for axis in held_out.axes] == [2]
    assert curves.evaluation_curves(history()[:3]) is None


def test_a_single_line_of_history_can_be_drawn():
    line = [{'samples': 0, 'loss': 1.0, 'a$b$': 2.0, 'batch_size': 8, 'eval/$y$': 0.5}]
    for draw in (curves.loss_curves, curves.schedule_curves, curves.evaluation_curves):
        with Image.open(io.BytesIO(figures.to_png(draw(line)))) as image:
            assert image.width == round(figures.WIDTH * figures.DPI)
