"""What pixels and log-mel tell without any network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Num

from diffmavil_jax.evaluation import retrieval
from diffmavil_jax.evaluation.held_out import spread
from diffmavil_jax.evaluation.probes import RidgeProbe
from diffmavil_jax.evaluation.readout import Features, Nested, Truth, named, read_out


def logmel_statistics(logmel: Float[np.ndarray, 'n t f']) -> Float[np.ndarray, 'n 2*f']:
    """Mean and standard deviation of every mel bin over time, a strong baseline for sound."""
    return np.concatenate([logmel.mean(axis=1), logmel.std(axis=1)], axis=1)


@dataclasses.dataclass(frozen=True)
class PcaBaseline:
    """Principal components of pixels or log-mel, for probes without a network.

    Attributes:
        mean: mean of the flattened train clips.
        components: orthonormal directions as columns, the largest variance first.
    """

    mean: Float[np.ndarray, ' p']
    components: Float[np.ndarray, 'p k']

    @classmethod
    def fit(cls, clips: Num[np.ndarray, 'n ...'], max_components: int = 128) -> PcaBaseline:
        """Randomised PCA (Halko et al. 2011, one power iteration), with a fixed seed.

        Clips may have any real dtype, such as uint8. They are centred in float32 one block at a time,
        so that little memory is needed besides that of the clips.

        Raises:
            ValueError: some values are not finite.
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
            # The sketch approximates the clips by basis @ image: the right singular vectors are the same.
            image = _transposed_times(flat, mean, basis)
            directions = _right_singular_vectors(image)
        return cls(mean, np.ascontiguousarray(directions[:, :k]))

    def transform(self, clips: Num[np.ndarray, 'n ...']) -> Float[np.ndarray, 'n k']:
        """Coordinates of clips along the components."""
        return _times(clips.reshape(len(clips), -1), self.mean, self.components)


def raw_scores(
    train: Mapping[str, np.ndarray],
    train_truth: Truth,
    test: Mapping[str, np.ndarray],
    test_truth: Truth,
    clips: int,
) -> Nested:
    """The better of two descriptions without learning, for each number; both are listed as well.

    `pca`: principal components of pixels and of log-mel. `statistics`: mean and standard deviation of
    log-mel over time, with the components of pixels. Retrieval goes through a linear map between the
    components of sound and picture, fitted on training clips.

    Args:
        train: `audio`, log-mel [n t f], and `video`, pixels, of training clips.
        train_truth: what is known of them.
        test: the same of held-out clips.
        test_truth: what is known of those.
        clips: how many held-out clips retrieval is among.
    """
    pca = {name: PcaBaseline.fit(train[name]) for name in ('audio', 'video')}
    train_described, test_described = _describe(pca, train), _describe(pca, test)
    scores = {
        kind: read_out(train_described[kind], train_truth, test_described[kind], test_truth)
        for kind in train_described
    }
    mapped = _linear_retrieval(train_described['pca'], test_described['pca'], clips)
    return mapped | _best(scores['pca'], scores['statistics']) | scores


def _describe(pca: Mapping[str, PcaBaseline], clips: Mapping[str, np.ndarray]) -> dict[str, Features]:
    """Both descriptions of clips, by name."""
    video = pca['video'].transform(clips['video'])
    sounds = {'pca': pca['audio'].transform(clips['audio']), 'statistics': logmel_statistics(clips['audio'])}
    return {
        kind: {'audio': audio, 'video': video, 'fused': np.concatenate([audio, video], axis=1)}
        for kind, audio in sounds.items()
    }


def _linear_retrieval(train: Features, test: Features, clips: int) -> Nested:
    """Retrieval through linear maps between the features of sound and picture."""
    chosen = spread(len(test['audio']), clips)

    def mapped(source: str, target: str) -> dict[str, float]:
        guess = RidgeProbe(train[source]).predict(train[target], test[source][chosen])
        centre = train[target].mean(axis=0)
        return named(retrieval.retrieval(guess - centre, test[target][chosen] - centre))

    return {'retrieval': {'a2v': mapped('audio', 'video'), 'v2a': mapped('video', 'audio')}}


def _best(a: Nested, b: Nested) -> Nested:
    """The higher of the two numbers under each name."""
    return {
        name: _best(a[name], b[name]) if isinstance(a[name], Mapping) else np.fmax(a[name], b[name])
        for name in a
    }


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
    """Computed from the small Gram matrix in float64, which is ten times faster than a QR or SVD of k x p."""
    double = wide.astype(np.float64)
    energies, vectors = np.linalg.eigh(double @ double.T)
    # Directions below the resolution of float32 are dropped. eigh sorts upwards.
    kept = np.flatnonzero(energies > 1e-10 * np.max(energies, initial=0.0))[::-1]
    return wide.T @ (vectors[:, kept] / np.sqrt(energies[kept])).astype(np.float32)


def _centred_blocks(
    flat: Num[np.ndarray, 'n p'], mean: Float[np.ndarray, ' p'], size: int = 128
) -> Iterator[tuple[slice, Float[np.ndarray, 'b p']]]:
    for start in range(0, len(flat), size):
        rows = slice(start, start + size)
        yield rows, np.subtract(flat[rows], mean, dtype=np.float32, casting='same_kind')
