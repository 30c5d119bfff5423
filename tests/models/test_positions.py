import math

import numpy as np
import pytest

from diffmavil_jax.models.positions import fit_table, sincos_table, timestep_embedding


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


def test_a_shorter_clip_has_the_first_of_the_stored_positions():
    table = np.random.default_rng(0).normal(size=(4 * 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(fit_table(table, (4, 3), (2, 3), interpolate=False), table[:6])
    np.testing.assert_array_equal(fit_table(table, (4, 3), (4, 3), interpolate=False), table)
    with pytest.raises(ValueError, match=r'for 4 x 3 patches \(time first\), and 5 x 3 are needed'):
        fit_table(table, (4, 3), (5, 3), interpolate=False)
    with pytest.raises(ValueError, match='and 2 x 4 are needed'):
        fit_table(table, (4, 3), (2, 4), interpolate=False)


def test_interpolated_positions_lie_between_the_stored_ones():
    ramp = np.arange(8, dtype=np.float32)
    table = np.stack(np.meshgrid(ramp, [10.0, 20.0, 30.0], indexing='ij'), axis=-1).reshape(24, 2)
    longer = fit_table(table, (8, 3), (16, 3), interpolate=True).reshape(16, 3, 2)
    # Half as far apart; the outermost values depend on how the kernel treats the edge.
    np.testing.assert_allclose(longer[4:-4, 1, 0], np.arange(4, 12) / 2 - 0.25, atol=1e-5)
    np.testing.assert_allclose(longer[:, :, 1], np.tile([10, 20, 30], (16, 1)), atol=1e-4)
    shorter = fit_table(table, (8, 3), (4, 3), interpolate=True).reshape(4, 3, 2)
    np.testing.assert_allclose(shorter[1:-1, 0, 0], [2.5, 4.5], atol=1e-5)
    np.testing.assert_allclose(fit_table(table, (8, 3), (8, 3), interpolate=True), table, atol=1e-5)
