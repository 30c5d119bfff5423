"""What raw features know without any network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Num


def logmel_statistics(logmel: Float[np.ndarray, 'n t f']) -> Float[np.ndarray, 'n 2*f']:
    """Mean and standard deviation over time of every mel bin: a strong raw baseline for sound."""
    return np.concatenate([logmel.mean(axis=1), logmel.std(axis=1)], axis=1)


@dataclasses.dataclass(frozen=True)
class PcaBaseline:
    """Principal components of raw pixels or log-mel: what a probe can do without a network.

    Attributes:
        mean: mean of the flattened train clips.
        components: orthonormal directions as columns, the largest variance first.
    """

    mean: Float[np.ndarray, ' p']
    components: Float[np.ndarray, 'p k']

    @classmethod
    def fit(cls, clips: Num[np.ndarray, 'n ...'], max_components: int = 128) -> PcaBaseline:
        """Randomised PCA (Halko et al. 2011, algorithms 4.4 and 5.1, one power iteration), fixed seed.

        Clips of any real dtype, uint8 frames too, are centred a block at a time in float32,
        so that memory stays near that of the clips as they come.
        """
        flat = clips.reshape(len(clips), -1)
        mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
        if not np.isfinite(mean).all():
            raise ValueError('clips: some values are not finite.')
        k = min(max_components, len(flat) - 1, flat.shape[1])
        sketch = min(k + 16, *flat.shape)
        directions = np.random.default_rng(0).standard_normal((flat.shape[1], sketch), dtype=np.float32)
        for _ in range(2):
            basis = np.linalg.qr(_times(flat, mean, directions)).Q
            # What the sketch keeps of the clips is basis @ image, so its right singular vectors are theirs.
            image = _transposed_times(flat, mean, basis)
            directions = _right_singular_vectors(image)
        return cls(mean, np.ascontiguousarray(directions[:, :k]))

    def transform(self, clips: Num[np.ndarray, 'n ...']) -> Float[np.ndarray, 'n k']:
        """Coordinates of clips along the components."""
        return _times(clips.reshape(len(clips), -1), self.mean, self.components)


def _times(
    flat: Num[np.ndarray, 'n p'], mean: Float[np.ndarray, ' p'], matrix: Float[np.ndarray, 'p k']
) -> Float[np.ndarray, 'n k']:
    return np.concatenate([block @ matrix for _, block in _centred_blocks(flat, mean)])


def _transposed_times(
    flat: Num[np.ndarray, 'n p'], mean: Float[np.ndarray, ' p'], matrix: Float[np.ndarray, 'n k']
) -> Float[np.ndarray, 'k p']:
    result = np.zeros((matrix.shape[1], flat.shape[1]), np.float32)
    for rows, block in _centred_blocks(flat, mean):
        result += matrix[rows].T @ block
    return result


def _right_singular_vectors(wide: Float[np.ndarray, 'k p']) -> Float[np.ndarray, 'p r']:
    """By the small Gram matrix, in float64: ten times faster than a QR or SVD of k x p."""
    double = wide.astype(np.float64)
    energies, vectors = np.linalg.eigh(double @ double.T)
    # Directions that float32 clips can't have are dropped. eigh sorts upwards.
    kept = np.flatnonzero(energies > 1e-10 * np.max(energies, initial=0.0))[::-1]
    return wide.T @ (vectors[:, kept] / np.sqrt(energies[kept])).astype(np.float32)


def _centred_blocks(
    flat: Num[np.ndarray, 'n p'], mean: Float[np.ndarray, ' p'], size: int = 128
) -> Iterator[tuple[slice, Float[np.ndarray, 'b p']]]:
    for start in range(0, len(flat), size):
        rows = slice(start, start + size)
        yield rows, np.subtract(flat[rows], mean, dtype=np.float32, casting='same_kind')
