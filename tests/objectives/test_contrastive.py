import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffmavil_jax.objectives.contrastive import info_nce, sigmoid


def features(clips=8, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, clips, width)).astype(np.float32)


def info_nce_in_loops(left, right, temperature):
    def similarity(i, j):
        return left[i] @ right[j] / np.linalg.norm(left[i]) / np.linalg.norm(right[j]) / temperature

    losses = []
    for i in range(len(left)):
        to_right = math.log(sum(math.exp(similarity(i, j)) for j in range(len(left))))
        to_left = math.log(sum(math.exp(similarity(j, i)) for j in range(len(left))))
        losses.append((to_right + to_left) / 2 - similarity(i, i))
    correct = [
        all(similarity(i, i) > similarity(i, j) for j in range(len(left)) if j != i) for i in range(len(left))
    ]
    return losses, correct


@pytest.mark.parametrize('temperature', [0.1, 1.0])
def test_matches_loops(temperature):
    left, right = features()
    right[:3] += left[:3]  # some pairs are found, some are not
    loss, correct = info_nce(left, right, temperature)
    expected_loss, expected_correct = info_nce_in_loops(
        left.astype(np.float64), right.astype(np.float64), temperature
    )
    np.testing.assert_allclose(loss, expected_loss, atol=1e-5)
    assert correct.tolist() == expected_correct
    assert 0 < sum(expected_correct) < len(left)


def test_the_same_features_everywhere_cost_the_logarithm_of_the_batch_and_are_wrong():
    same = np.ones((8, 6), np.float32)
    loss, correct = info_nce(same, same, 0.1)
    np.testing.assert_allclose(loss, math.log(8), atol=1e-5)
    assert not correct.any()


def test_one_tie_is_enough_to_be_wrong():
    left = np.eye(4, dtype=np.float32)
    right = left.copy()
    right[1] = right[0]  # left 0 scores right 0 and right 1 alike; nothing is like left 1
    _, correct = info_nce(left, right, 0.1)
    assert correct.tolist() == [False, False, True, True]


def test_perfect_pairs():
    left = np.eye(8, dtype=np.float32)
    loss, correct = info_nce(left, 5 * left, 0.05)
    assert correct.all()
    assert float(loss.max()) < 1e-6


def test_order_and_length_of_the_features_do_not_matter():
    left, right = features()
    loss, correct = info_nce(left, right, 0.1)
    order = np.random.default_rng(1).permutation(8)
    permuted_loss, permuted_correct = info_nce(left[order] * 3, right[order] / 7, 0.1)
    np.testing.assert_allclose(permuted_loss, np.asarray(loss)[order], atol=1e-5)
    np.testing.assert_array_equal(permuted_correct, np.asarray(correct)[order])


def test_zero_features_have_a_finite_gradient():
    left, right = features()
    left[0] = 0
    gradient = jax.grad(lambda x: info_nce(x, right, 0.1)[0].mean())(left)
    assert np.isfinite(gradient).all()


@pytest.fixture(scope='module')
def on_devices():
    """Loss and gradients of 16 pairs, with the batch divided among 1 and among 8 fake devices."""
    left, right = features(clips=16, seed=3)

    def compute(count):
        mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
        sharding = NamedSharding(mesh, PartitionSpec('data'))
        step = jax.jit(jax.value_and_grad(lambda *x: info_nce(*x, 0.1)[0].mean(), argnums=(0, 1)))
        return jax.device_get(step(jax.device_put(left, sharding), jax.device_put(right, sharding)))

    assert len(jax.devices()) == 8
    return {count: compute(count) for count in (1, 8)}


def test_negatives_come_from_every_device(on_devices):
    one, eight = on_devices[1], on_devices[8]
    np.testing.assert_allclose(one[0], eight[0], atol=1e-5)
    for ours, expected in zip(eight[1], one[1], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    left, right = features(clips=16, seed=3)
    local = np.mean([jnp.mean(info_nce(left[i : i + 2], right[i : i + 2], 0.1)[0]) for i in range(0, 16, 2)])
    assert abs(local - eight[0]) > 0.5  # the loss with negatives of one device alone


def test_incomplete_pairs_are_no_negatives_and_do_not_change_the_others():
    rng = np.random.default_rng(3)
    left, right = (jnp.asarray(rng.standard_normal((6, 4)), jnp.float32) for _ in range(2))
    present = jnp.array([1.0, 0, 1, 1, 0, 1])
    there = np.flatnonzero(present)
    losses, correct = info_nce(left, right, 0.2, present)
    expected, expected_correct = info_nce(left[there], right[there], 0.2)
    np.testing.assert_allclose(losses[there], expected, rtol=1e-5)
    np.testing.assert_array_equal(correct[there], expected_correct)
    np.testing.assert_allclose(losses[np.array([1, 4])], 0, atol=1e-6)


def test_similarities_and_their_gradients_are_in_full_float32_on_every_device():
    one = jax.ShapeDtypeStruct((8, 6), np.float32)
    gradient = jax.grad(lambda left, right: info_nce(left, right, 0.1)[0].sum(), argnums=(0, 1))
    products = [
        line for line in jax.jit(gradient).lower(one, one).as_text().splitlines() if 'dot_general' in line
    ]
    assert len(products) == 3  # forward, and one for each side
    assert all('precision = [HIGHEST, HIGHEST]' in line for line in products)


@pytest.mark.parametrize('there', [range(8), [0, 2, 3, 6]])
def test_sigmoid_loss_matches_numpy(there):
    left, right = features()
    there = np.array(there)
    present = np.isin(np.arange(8), there).astype(np.float32)
    x, y = (z[there].astype(np.float64) / np.linalg.norm(z[there], axis=1)[:, None] for z in (left, right))
    logits = x @ y.T / 0.1 - 4
    signs = 2 * np.eye(len(there)) - 1
    expected = np.log1p(np.exp(-signs * logits))
    loss, correct = sigmoid(left, right, 0.1, -4.0, present)
    np.testing.assert_allclose(loss[there], (expected.sum(0) + expected.sum(1)) / 2, rtol=1e-5)
    np.testing.assert_allclose(np.sum(loss) / len(there), expected.sum() / len(there), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(loss)[present == 0], 0)
    np.testing.assert_array_equal(correct[there], logits.argmax(1) == np.arange(len(there)))
