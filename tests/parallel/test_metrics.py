"""Sums and counts add up to the mean over all values."""

import math

import jax.numpy as jnp
import numpy as np

from diffmavil_jax.parallel.metrics import accumulate, finalize


def test_unequal_batches_give_the_mean_over_all_values():
    values = np.random.default_rng(0).normal(size=10).astype(np.float32)
    batches = [{'loss': (part.sum(), part.size)} for part in np.split(values, [1, 7])]
    total = {}
    for batch in batches:
        total = accumulate(total, batch)
    np.testing.assert_allclose(finalize(total)['loss'], values.mean(), rtol=1e-6)


def test_accumulate_keeps_what_only_one_side_has():
    added = accumulate({'a': (1.0, 1), 'b': (2.0, 2)}, {'b': (4.0, 1), 'c': (9.0, 3)})
    assert added == {'a': (1.0, 1), 'b': (6.0, 3), 'c': (9.0, 3)}
    assert finalize(added) == {'a': 1.0, 'b': 2.0, 'c': 3.0}


def test_an_empty_mean_is_nan():
    means = finalize({'x': (4.0, 2.0), 'y': (jnp.float32(0), jnp.float32(0))})
    assert means['x'] == 2.0
    assert math.isnan(means['y'])
