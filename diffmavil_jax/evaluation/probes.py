"""Probes of frozen features: linear ones in closed form, and nearest neighbours.

No probe is trained by gradient descent. So there is no learning rate to tune, and the
same features give the same number. The scale of the features and the strength of the
ridge are chosen on the train clips alone.

Letters: n train clips, m held-out clips, d feature width, k target dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from diffmavil_jax.evaluation import retrieval

# Ridge strengths that are tried, per train clip. On standardised features the mean eigenvalue of
# X^T X / n is 1, so they range from nearly no penalty to a constant prediction.
LAMBDAS = np.logspace(-6, 3, 19)

# A feature that varies less than float32 resolves counts as constant; scaling would amplify its noise.
CONSTANT = 1e-6

KNN_NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07

Factors = Mapping[str, Num[np.ndarray, ' _'] | Num[np.ndarray, '_ _']]


class RidgeProbe:
    """Ridge regression from one set of train features to any number of targets.

    One singular value decomposition serves every strength and every target. scikit-learn's
    RidgeCV would repeat it for each factor. Features are standardised with the mean and the
    deviation of the train clips; the bias is not penalised.
    """

    def __init__(self, features: Float[np.ndarray, 'n d']) -> None:
        features = _finite(features, 'train features')
        if len(features) < 2:
            raise ValueError(f'A probe needs at least 2 train clips, not {len(features)}.')
        self._mean, self._scale = moments(features)
        u, s, vt = np.linalg.svd((features - self._mean) / self._scale, full_matrices=False)
        kept = s > np.max(s, initial=0.0) * max(features.shape) * np.finfo(np.float64).eps
        self._u, self._s, self._v = u[:, kept], s[kept], vt[kept].T

    def leave_one_out(self, targets: Float[np.ndarray, 'n k']) -> Float[np.ndarray, 'n k']:
        """The prediction for each train clip after fitting all others, at the strength of `predict`."""
        targets = _finite(targets, 'train targets')
        centred = targets - targets.mean(axis=0)
        projected = self._u.T @ centred
        strength = self._strength(centred, projected)
        residual, left = self._left_out(centred, projected, strength)
        return targets - residual / left[:, None]

    def predict(
        self, targets: Float[np.ndarray, 'n k'], features: Float[np.ndarray, 'm d']
    ) -> Float[np.ndarray, 'm k']:
        """Fits the train targets and predicts those of other clips.

        The strength, one for all k targets, is that of LAMBDAS with the smallest leave-one-out
        squared error on the train clips.
        """
        targets = _finite(targets, 'train targets')
        mean = targets.mean(axis=0)
        projected = self._u.T @ (targets - mean)
        strength = self._strength(targets - mean, projected)
        weights = self._v @ ((self._s / (self._s**2 + strength))[:, None] * projected)
        return (_finite(features, 'features') - self._mean) / self._scale @ weights + mean

    def _strength(self, centred: Float[np.ndarray, 'n k'], projected: Float[np.ndarray, 'r k']) -> float:
        """Exact leave-one-out: residual i / (1 - H_ii), H the hat matrix (Hastie et al. 2009)."""
        strengths = len(centred) * LAMBDAS
        errors = []
        for strength in strengths:
            residual, left = self._left_out(centred, projected, strength)
            errors.append(np.mean((residual / left[:, None]) ** 2))
        return float(strengths[np.argmin(errors)])

    def _left_out(
        self, centred: Float[np.ndarray, 'n k'], projected: Float[np.ndarray, 'r k'], strength: float
    ) -> tuple[Float[np.ndarray, 'n k'], Float[np.ndarray, ' n']]:
        """Residuals, and 1 - H_ii."""
        shrunk = strength / (self._s**2 + strength)
        squared = self._u**2
        # 1 - H_ii is computed as a sum of remainders: at d > n, 1 minus nearly 1 would lose its digits.
        spare = np.maximum(1 - 1 / len(centred) - squared.sum(axis=1), 0.0)
        residual = centred - self._u @ projected + self._u @ (shrunk[:, None] * projected)
        return residual, np.maximum(spare + squared @ shrunk, np.finfo(np.float64).tiny)


def linear_probe(
    train_features: Float[np.ndarray, 'n d'],
    train_labels: Int[np.ndarray, ' n'],
    eval_features: Float[np.ndarray, 'm d'],
    eval_labels: Int[np.ndarray, ' m'],
) -> float:
    """Held-out accuracy of penalised discriminant analysis (Hastie, Buja and Tibshirani 1995).

    Ridge regression predicts one-hot labels. In the space of its predictions each class is a normal
    distribution, all with the same covariance: still linear, and in closed form. Taking the largest
    prediction would mask a class that lies between others (Hastie et al. 2009). Means and
    covariance are those of leave-one-out predictions, which are like those of held-out clips. A class
    without train clips is always missed, and counts.
    """
    _check_pairs(train_features, train_labels, eval_features, eval_labels)
    return _accuracy(RidgeProbe(train_features), train_labels, eval_features, eval_labels)


def ridge_r2(
    train_features: Float[np.ndarray, 'n d'],
    train_targets: Float[np.ndarray, 'n k'],
    eval_features: Float[np.ndarray, 'm d'],
    eval_targets: Float[np.ndarray, 'm k'],
) -> float:
    """Held-out R^2 of ridge regression onto continuous targets.

    R^2 is 1 - sum (y - prediction)^2 / sum (y - mean y)^2 for each target, with sums and
    mean over the held-out clips, averaged over the targets. 1 is perfect, and 0 is no better
    than the held-out mean; it can be negative. Targets that do not vary over the held-out
    clips are left out of the average. NaN if none varies.
    """
    _check_pairs(train_features, train_targets, eval_features, eval_targets)
    return _r2(RidgeProbe(train_features), train_targets, eval_features, eval_targets)


def knn(
    train_features: Float[np.ndarray, 'n d'],
    train_labels: Int[np.ndarray, ' n'],
    eval_features: Float[np.ndarray, 'm d'],
    eval_labels: Int[np.ndarray, ' m'],
    neighbours: int = KNN_NEIGHBOURS,
) -> float:
    """Held-out accuracy of a vote of the nearest train clips, by cosine similarity.

    A vote weighs exp(cosine / 0.07) (Wu et al. 2018). There are 20 neighbours, as
    in DINO (Caron et al. 2021). Equally near clips are taken in the order of the train
    set, and equal votes go to the lower class.
    """
    _check_pairs(train_features, train_labels, eval_features, eval_labels)
    classes, votes_for = np.unique(train_labels, return_inverse=True)
    scores = retrieval.cosine(eval_features, train_features)
    near = retrieval.nearest(scores, neighbours)
    # exp((cosine - 1) / T) is the same vote on another scale, and cannot overflow.
    weights = np.exp((np.take_along_axis(scores, near, axis=1) - 1) / KNN_TEMPERATURE)
    votes = np.zeros((len(eval_labels), len(classes)))
    np.add.at(votes, (np.arange(len(votes))[:, None], votes_for[near]), weights)
    return float(np.mean(classes[votes.argmax(axis=1)] == eval_labels))


def decode_factors(
    train_features: Float[np.ndarray, 'n d'],
    train_factors: Factors,
    eval_features: Float[np.ndarray, 'm d'],
    eval_factors: Factors,
) -> dict[str, float]:
    """How well a linear probe reads each known factor of the clips from their features.

    Args:
        train_features: features that the probes are fitted on.
        train_factors: by name. Integers [n] are classes, scored by accuracy (`linear_probe`).
            Floats [n] or [n k] are quantities, scored by R^2 (`ridge_r2`). The presence of an
            impact in each time bin is given as floats 0 and 1, [n bins], and scored by R^2 as
            well: unlike average precision, its chance level is 0 whatever the share of ones.
        eval_features: features of held-out clips.
        eval_factors: their factors, under the same names.

    Returns:
        Accuracy or R^2 by name, in the order of `train_factors`.
    """
    if train_factors.keys() != eval_factors.keys():
        raise ValueError(
            f'Factors differ: {sorted(train_factors)} to train, {sorted(eval_factors)} held out.'
        )
    probe = RidgeProbe(train_features)
    results = {}
    for name, train in train_factors.items():
        held_out = eval_factors[name]
        _check_pairs(train_features, train, eval_features, held_out)
        if np.issubdtype(train.dtype, np.integer):
            if train.ndim != 1:
                raise ValueError(f'Factor {name!r}: integers are classes, of shape [n], not {train.shape}.')
            results[name] = _accuracy(probe, train, eval_features, held_out)
        else:
            results[name] = _r2(probe, _columns(train), eval_features, _columns(held_out))
    return results


def _accuracy(
    probe: RidgeProbe,
    train_labels: Int[np.ndarray, ' n'],
    eval_features: Float[np.ndarray, 'm d'],
    eval_labels: Int[np.ndarray, ' m'],
) -> float:
    classes, index, counts = np.unique(train_labels, return_inverse=True, return_counts=True)
    one_hot = np.eye(len(classes))[index]
    fitted = probe.leave_one_out(one_hot)
    means = one_hot.T @ fitted / counts[:, None]
    spread = fitted - means[index]
    covariance = spread.T @ spread / max(1, len(fitted) - len(classes))
    directions = np.linalg.pinv(covariance, rcond=1e-10, hermitian=True) @ means.T
    biases = np.log(counts / len(fitted)) - np.einsum('kd,dk->k', means, directions) / 2
    scores = probe.predict(one_hot, eval_features) @ directions + biases
    return float(np.mean(classes[scores.argmax(axis=1)] == eval_labels))


def _r2(
    probe: RidgeProbe,
    train_targets: Float[np.ndarray, 'n k'],
    eval_features: Float[np.ndarray, 'm d'],
    eval_targets: Float[np.ndarray, 'm k'],
) -> float:
    # Targets are scaled, or the unit of one would choose the strength for all. R^2 has no unit.
    train_targets = _finite(train_targets, 'train targets')
    mean, scale = moments(train_targets)
    predicted = probe.predict((train_targets - mean) / scale, eval_features)
    eval_targets = _finite(eval_targets, 'held-out targets')
    varies = ~_is_constant(eval_targets)
    if not varies.any():
        return float('nan')
    truth = (eval_targets - mean) / scale
    unexplained = np.mean((truth - predicted) ** 2, axis=0)[varies] / np.var(truth, axis=0)[varies]
    return float(np.mean(1 - unexplained))


def moments(x: Float[np.ndarray, 'n d']) -> tuple[Float[np.ndarray, ' d'], Float[np.ndarray, ' d']]:
    """Mean and standard deviation of each column. The deviation of a constant column is 1."""
    return x.mean(axis=0), np.where(_is_constant(x), 1.0, x.std(axis=0))


def _is_constant(x: Float[np.ndarray, 'n d']) -> Bool[np.ndarray, ' d']:
    return x.std(axis=0) <= CONSTANT * np.abs(x).max(axis=0)


def _columns(targets: Num[np.ndarray, ' n'] | Num[np.ndarray, 'n k']) -> Float[np.ndarray, 'n k']:
    return targets.reshape(len(targets), -1)


def _finite(x: Num[np.ndarray, 'n d'], name: str) -> Float[np.ndarray, 'n d']:
    x = np.asarray(x, np.float64)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise ValueError(f'{name}: {bad.sum()} of {len(x)} rows are not finite.')
    return x


def _check_pairs(
    train_features: Shaped[np.ndarray, 'n d'],
    train_targets: Shaped[np.ndarray, 'n ...'],
    eval_features: Shaped[np.ndarray, 'm d'],
    eval_targets: Shaped[np.ndarray, 'm ...'],
) -> None:
    for kind, x, y in (('train', train_features, train_targets), ('held-out', eval_features, eval_targets)):
        if len(x) != len(y) or not len(x):
            raise ValueError(f'{len(x)} {kind} features for {len(y)} {kind} targets.')
