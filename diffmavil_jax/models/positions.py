"""Fixed sin-cos positions for any grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def sincos_table(grid: tuple[int, ...], width: int, time_step: float = 1.0) -> Float[np.ndarray, 'n d']:
    """Positions of a (time, frequency) or (time, height, width) grid, first axis slowest.

    Neighbours in time are `time_step` apart, others 1. Where a clip has another number of them
    than a network was trained with, 1 extends or trims its table, and old / new interpolates it.

    In two dimensions each axis has half of the width (MAE); in three, time has a quarter
    and each spatial axis three eighths (spatio-temporal MAE: Feichtenhofer et al. 2022).

    Raises:
        ValueError: where the width does not split into pairs of sine and cosine.
    """
    shares = {2: (width // 2, width // 2), 3: (width // 4, 3 * width // 8, 3 * width // 8)}[len(grid)]
    if sum(shares) != width or any(share % 2 for share in shares):
        raise ValueError(f'width {width} does not split into sine and cosine over a {len(grid)}-D grid.')
    steps = (time_step, 1.0, 1.0)[: len(grid)]
    lines = [np.arange(size) * step for size, step in zip(grid, steps, strict=True)]
    coordinates = np.meshgrid(*lines, indexing='ij')
    parts = [_sincos(axis.reshape(-1), share) for axis, share in zip(coordinates, shares, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def timestep_embedding(timesteps: int, width: int) -> Float[np.ndarray, 'timesteps d']:
    """Sinusoidal embedding of every diffusion time step (Ho et al. 2020, appendix B)."""
    return _sincos(np.arange(timesteps), width).astype(np.float32)


def _sincos(positions: np.ndarray, width: int) -> np.ndarray:
    """Vaswani et al. 2017, section 3.5, with the sines first as in MAE."""
    frequencies = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    angles = np.outer(positions, frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
