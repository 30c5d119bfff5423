"""Positions of tokens: sin-cos tables for any grid, and stored tables fitted to another grid."""

from __future__ import annotations

import math

import jax
import numpy as np
from jaxtyping import Float


def sincos_table(grid: tuple[int, ...], width: int, time_step: float = 1.0) -> Float[np.ndarray, 'n d']:
    """Positions of a (time, frequency) or (time, height, width) grid, first axis slowest.

    Neighbours in time are `time_step` apart, all others 1. For clips of another length than a network
    was trained with, `time_step` 1 extends or trims its table; old length / new length interpolates it.

    With two axes, each has half of the width (MAE); with three, time has a quarter
    and each spatial axis three eighths (spatio-temporal MAE: Feichtenhofer et al. 2022).

    Raises:
        ValueError: the width does not split into pairs of sine and cosine.
    """
    shares = {2: (width // 2, width // 2), 3: (width // 4, 3 * width // 8, 3 * width // 8)}[len(grid)]
    if sum(shares) != width or any(share % 2 for share in shares):
        raise ValueError(f'width {width} does not split into sine and cosine over a {len(grid)}-D grid.')
    steps = (time_step, 1.0, 1.0)[: len(grid)]
    lines = [np.arange(size) * step for size, step in zip(grid, steps, strict=True)]
    coordinates = np.meshgrid(*lines, indexing='ij')
    parts = [_sincos(axis.reshape(-1), share) for axis, share in zip(coordinates, shares, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def fit_table(
    table: Float[np.ndarray, 'n d'], grid: tuple[int, ...], wanted: tuple[int, ...], *, interpolate: bool
) -> Float[np.ndarray, 'm d']:
    """Stored positions of one grid for another: trimmed in time, or interpolated (Keys 1981, a = -0.5).

    Raises:
        ValueError: without interpolation, the new grid is not the beginning of the old one in time.
    """
    if interpolate:
        return _resized(table, grid, wanted)
    return table[: trimmed(grid, wanted)]


def trimmed(grid: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """How many positions remain of a grid that is cut in time.

    Raises:
        ValueError: the wanted grid has more times, or differs along another axis.
    """
    if wanted[0] > grid[0] or wanted[1:] != grid[1:]:
        sizes = [' x '.join(str(size) for size in sizes) for sizes in (grid, wanted)]
        raise ValueError(f'they are for {sizes[0]} patches (time first), and {sizes[1]} are needed')
    return math.prod(wanted)


def picture_table(
    table: Float[np.ndarray, 'n d'], grid: tuple[int, int], wanted: tuple[int, ...]
) -> Float[np.ndarray, 'm d']:
    """Positions of clips from those stored for pictures.

    For sound, the axes of the picture become time and frequency. For video, each frame has the
    table of the picture, plus a sin-cos offset that tells its time.
    """
    if len(wanted) == 2:
        return _resized(table, grid, wanted)
    time = _sincos(np.arange(wanted[0]), table.shape[1])
    return (table + (time - time[0])[:, None]).reshape(-1, table.shape[1]).astype(np.float32)


def timestep_embedding(timesteps: int, width: int) -> Float[np.ndarray, 'timesteps d']:
    """Sinusoidal embedding of every diffusion time step (Ho et al. 2020)."""
    return _sincos(np.arange(timesteps), width).astype(np.float32)


def _resized(table: np.ndarray, grid: tuple[int, ...], wanted: tuple[int, ...]) -> np.ndarray:
    width = table.shape[1]
    resized = jax.image.resize(table.reshape(*grid, width), (*wanted, width), 'cubic', antialias=False)
    return np.asarray(resized).reshape(-1, width)


def _sincos(positions: np.ndarray, width: int) -> np.ndarray:
    """Vaswani et al. 2017, with the sines first as in MAE."""
    frequencies = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    angles = np.outer(positions, frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
