import math

import numpy as np
import pytest

from diffmavil_jax.models.positions import sincos_table, timestep_embedding


def embed(position, width):
    """Sines, then cosines, of one position at geometric frequencies from 1 to about 1e-4."""
    half = width // 2
    angles = [position / 10_000 ** (i / half) for i in range(half)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def test_two_dimensional_table_is_time_then_frequency():
    table = sincos_table((3, 5), 16)
    for time in range(3):
        for mel in range(5):
            expected = embed(time, 8) + embed(mel, 8)
            np.testing.assert_allclose(table[5 * time + mel], expected, atol=1e-6)
    assert table.shape == (15, 16)


def test_three_dimensional_table_gives_time_a_quarter_and_each_spatial_axis_three_eighths():
    table = sincos_table((2, 3, 4), 32)
    for t in range(2):
        for y in range(3):
            for x in range(4):
                expected = embed(t, 8) + embed(y, 12) + embed(x, 12)
                np.testing.assert_allclose(table[12 * t + 4 * y + x], expected, atol=1e-6)
    assert table.shape == (24, 32)


@pytest.mark.parametrize(('grid', 'width'), [((2, 2), 18), ((2, 2, 2), 24), ((2, 2, 2), 20)])
def test_a_width_that_does_not_split_is_refused(grid, width):
    with pytest.raises(ValueError, match=f'width {width}'):
        sincos_table(grid, width)


def test_timestep_embedding():
    table = timestep_embedding(1000, 12)
    for step in (0, 1, 10, 999):
        np.testing.assert_allclose(table[step], embed(step, 12), atol=1e-6)
    assert table.shape == (1000, 12)
    assert len(np.unique(table, axis=0)) == 1000
