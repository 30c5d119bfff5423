"""How numbers read."""

import math

import numpy as np
import pytest

from diffmavil_jax import units


@pytest.mark.parametrize(
    ('value', 'unit', 'text'),
    [
        (1234, 'number', '1,234'), (0.5, 'number', '0.5'), (-1234.5, 'number', '−1,234'),
        (1e-5, 'number', '1e−5'), (0, 'number', '0'), (999.6, 'number', '1,000'), (0.1234, 'number', '0.123'),
        (0.418, 'percent', '41.8 %'), (-0.02, 'percent', '−2.0 %'),
        (2.3e9, 'si', '2.3 G'), (2.345e9, 'si', '2.35 G'), (48.5e9, 'si', '48.5 G'), (512, 'si', '512'),
        (999_999, 'si', '1 M'), (-1234, 'si', '−1.23 k'), (0, 'si', '0'), (0.25, 'si', '0.25'),
        (2e22, 'si', '20,000 E'),
        (96, 'bytes', '96 B'), (2_500, 'bytes', '2.4 KiB'), (7 * 2**20, 'bytes', '7.0 MiB'),
        (2**29, 'bytes', '0.50 GiB'), (12.83 * 2**30, 'bytes', '12.83 GiB'), (3 * 2**40, 'bytes', '3.00 TiB'),
        (4.2, 'seconds', '4.2 s'), (251.2, 'seconds', '4 min 11 s'), (7200, 'seconds', '2 h'),
        (200_000, 'seconds', '2 d 7 h'),
        (0.5, 'r2', '0.5'), (-0.0143, 'r2', 'none'),
        (None, 'number', '–'), (math.nan, 'si', '–'), (True, 'number', '–'),
        (np.float32(0.5), 'number', '0.5'),
    ],
)  # fmt: skip
def test_spell(value, unit, text):
    assert units.spell(value, unit) == text
