"""The step: one AdamW update, none where the loss is not finite."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffmavil_jax.training.step import make_step


def host(tree):
    return jax.device_get(tree)


def trained(toy, batches):
    """A state whose optimizer is no longer zero."""
    state, step = toy.init(), jax.jit(toy.step(8))
    for k in range(batches):
        state, metrics = step(state, toy.batch(8 * k, 8))
    return state, step, metrics


def test_an_update_is_that_of_optax(make_toy):
    toy = make_toy()
    step = jax.jit(make_step(lambda p, b: toy_loss(p, b), toy.optimizer, lambda samples: 0.25, 8))
    state, metrics = step(toy.init(), toy.batch(0, 8))
    params = toy.init().params
    (loss, _), gradients = jax.value_and_grad(toy_loss, has_aux=True)(params, toy.batch(0, 8))
    reference = optax.adamw(0.25, 0.9, 0.95, weight_decay=0.01, mask={'kernel': True, 'bias': False})
    updates, _ = reference.update(gradients, reference.init(params), params)
    chex.assert_trees_all_close(state.params, optax.apply_updates(params, updates), atol=1e-6)
    assert float(metrics['loss'][0]) / 8 == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics['gradient_norm'][0]) == pytest.approx(float(optax.global_norm(gradients)), rel=1e-5)


def toy_loss(params, batch):
    error = (batch['x'] @ params['kernel'] + params['bias'] - batch['y']) ** 2
    return error.mean(), {'loss': (error.sum(), jnp.float32(error.shape[0]))}


@pytest.mark.parametrize('microbatches', [2, 8])
def test_a_batch_in_microbatches_gives_the_update_of_the_whole(make_toy, microbatches):
    toy = make_toy()

    def update(**options):
        step = make_step(toy_loss, toy.optimizer, lambda samples: 0.25, 8, **options)
        return jax.jit(step)(toy.init(), toy.batch(0, 8))

    whole, expected = update()
    state, metrics = update(microbatches=microbatches)
    chex.assert_trees_all_close(state, whole, rtol=1e-5)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)


@pytest.mark.parametrize('poison', ['nan', 'inf'])
def test_a_loss_that_is_not_finite_changes_nothing_but_the_count(make_toy, poison):
    toy = make_toy()
    state, step, metrics = trained(toy, 3)
    assert float(metrics['skipped'][0]) == 0
    before = host(state)
    batch = toy.batch(24, 8)
    batch['y'] = batch['y'].at[5].set(float(poison))
    after, metrics = step(state, batch)
    after = host(after)
    chex.assert_trees_all_equal(after.params, before.params)
    chex.assert_trees_all_equal(after.opt_state, before.opt_state)
    assert int(after.samples_seen) == 32
    assert (float(metrics['skipped'][0]), float(metrics['skipped'][1])) == (1, 1)
    # And it goes on as if the batch had not been.
    state, metrics = step(after, toy.batch(32, 8))
    assert float(metrics['skipped'][0]) == 0
    assert not np.array_equal(state.params['kernel'], before.params['kernel'])


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is_finite(make_toy):
    toy = make_toy()

    def loss(params, batch):
        # The square root of zero: 0, with an infinite derivative.
        value = jnp.sqrt(jnp.abs(params['bias'])) + 0 * batch['x'].sum()
        return value, {'loss': (value, jnp.float32(1))}

    before = toy.init()
    after, metrics = jax.jit(toy.step(8, loss))(before, toy.batch(0, 8))
    assert np.isfinite(float(metrics['loss'][0]))
    assert float(metrics['skipped'][0]) == 1
    chex.assert_trees_all_equal(after.params, before.params)


def test_the_learning_rate_is_taken_at_the_middle_of_the_batch_and_scales_the_update(make_toy):
    toy = make_toy()
    asked = []

    def rate(scale):
        def at(samples):
            asked.append(samples)
            return scale * (jnp.float32(samples) + 1)

        return at

    def moved(scale):
        step = make_step(toy_loss, toy.optimizer, rate(scale), 8)
        state = dataclasses.replace(toy.init(), samples_seen=jnp.int32(100))
        new, metrics = step(state, toy.batch(0, 8))
        assert float(metrics['learning_rate'][0]) == pytest.approx(scale * 105)
        return new.params['kernel'] - state.params['kernel']

    np.testing.assert_allclose(2 * moved(1e-4), moved(2e-4), rtol=1e-3)
    assert [int(samples) for samples in asked] == [104, 104]


def test_samples_seen_advance_by_the_batch(make_toy):
    toy = make_toy()
    state, _ = jax.jit(toy.step(8))(toy.init(), toy.batch(0, 8))
    state, _ = jax.jit(toy.step(16))(state, toy.batch(8, 16))
    assert (int(state.samples_seen), state.samples_seen.dtype) == (24, jnp.int32)


def test_the_loss_falls_on_one_batch(make_toy):
    toy = make_toy()
    step = jax.jit(make_step(toy_loss, toy.optimizer, lambda samples: 0.1, 8))
    state, batch, losses = toy.init(), toy.batch(0, 8), []
    for _ in range(150):
        state, metrics = step(state, batch)
        losses.append(float(metrics['loss'][0]) / 8)
    assert losses[0] > 10
    assert losses[-1] < 0.01 * losses[0]


def test_the_ema_follows_fast_at_first_and_then_at_its_decay(make_toy):
    toy = make_toy()
    step = jax.jit(make_step(toy_loss, toy.optimizer, lambda samples: 0.1, 8, ema_decay=0.5))
    state = toy.init()
    state = dataclasses.replace(state, ema=state.params)
    expected = host(state.params)
    for k in range(15):
        state, _ = step(state, toy.batch(8 * k, 8))
        decay = min(0.5, (k + 1) / (k + 11))
        expected = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, expected, host(state.params))
    chex.assert_trees_all_close(state.ema, expected, rtol=1e-5)
    assert state.evaluated is state.ema
    assert toy.init().evaluated is not None
