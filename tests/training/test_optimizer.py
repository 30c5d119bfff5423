"""AdamW against optax, and the learning rate over samples seen."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffmavil_jax.config.training import OptimizerConfig
from diffmavil_jax.training.optimizer import layer_decay, learning_rate, make_optimizer


def parameters(seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    return {
        'dense': {'kernel': jax.random.normal(keys[0], (4, 3)), 'bias': jax.random.normal(keys[1], (3,))},
        # Layers under a scan are stacked: a bias has two axes then, a kernel three.
        'layers': {
            'kernel': jax.random.normal(keys[2], (2, 4, 3)),
            'bias': jax.random.normal(keys[3], (2, 3)),
        },
        'norm': {'scale': jax.random.normal(keys[4], (2, 4))},
        'cls_token': jnp.ones((1, 4)),
    }


def is_kernel(params):
    return {
        'dense': {'kernel': True, 'bias': False},
        'layers': {'kernel': True, 'bias': False},
        'norm': {'scale': False},
        'cls_token': False,
    }


def test_the_schedule_rises_to_the_peak_and_falls_as_a_cosine():
    config = OptimizerConfig(learning_rate=2.0, warmup_samples=100, final_lr_fraction=0.1)
    rate = learning_rate(config, 1_100)
    assert [float(rate(s)) for s in (0, 25, 50, 100)] == pytest.approx([0.0, 0.5, 1.0, 2.0])
    # Halfway and a quarter of the way down from 2 to 0.2.
    assert float(rate(600)) == pytest.approx(1.1)
    assert float(rate(350)) == pytest.approx(0.2 + 1.8 * (1 + np.cos(np.pi / 4)) / 2)
    assert [float(rate(s)) for s in (1_100, 5_000)] == pytest.approx([0.2, 0.2])


def test_the_schedule_without_warm_up_starts_at_the_peak_and_is_float32_of_a_traced_count():
    rate = learning_rate(OptimizerConfig(learning_rate=4e-4), 2_000_000_000)
    assert float(rate(0)) == pytest.approx(4e-4)
    traced = jax.jit(rate)(jnp.int32(1_000_000_000))
    assert traced.dtype == jnp.float32
    assert float(traced) == pytest.approx(2e-4, rel=1e-4)


def test_a_warm_up_over_the_whole_run_ends_at_the_peak():
    rate = learning_rate(OptimizerConfig(learning_rate=1.0, warmup_samples=100), 100)
    assert float(rate(99)) == pytest.approx(0.99)


def test_only_kernels_decay_stacked_or_not():
    params = parameters()
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params, finite=True)
    expected = jax.tree.map(
        lambda p, decays: 0.1 * p if decays else jnp.zeros_like(p), params, is_kernel(params)
    )
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_the_names_in_the_real_model_are_the_ones_decided_on(tiny, make_pretrainer):
    program, _ = make_pretrainer(tiny(), range(8), jax.devices()[:1])
    leaves = jax.tree_util.tree_leaves_with_path(program.abstract.params)
    names = {path[-1].key for path, _ in leaves}
    # A new name needs a decision whether it decays.
    assert names == {'kernel', 'bias', 'scale', 'class_token'}
    # Stacked layers: by the number of axes, a bias would pass for a kernel.
    assert {2, 1} <= {leaf.ndim for path, leaf in leaves if path[-1].key == 'bias'}


@pytest.mark.parametrize('clip_norm', [0.0, 0.5])
def test_adamw_is_that_of_optax(clip_norm):
    config = OptimizerConfig(learning_rate=3e-3, weight_decay=0.2, b1=0.8, b2=0.97, clip_norm=clip_norm)
    rate = 3e-3
    reference = optax.adamw(rate, b1=0.8, b2=0.97, weight_decay=0.2, mask=is_kernel)
    if clip_norm:
        reference = optax.chain(optax.clip_by_global_norm(clip_norm), reference)
    ours, theirs = parameters(), parameters()
    optimizer = make_optimizer(config)
    our_state, their_state = optimizer.init(ours), reference.init(theirs)
    for step in range(4):
        gradients = jax.tree.map(lambda p, s=step: jnp.sin(p + s), parameters(1))
        updates, our_state = optimizer.update(gradients, our_state, ours, finite=True)
        ours = jax.tree.map(lambda p, u: p - rate * u, ours, updates)
        updates, their_state = reference.update(gradients, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    chex.assert_trees_all_close(ours, theirs, atol=1e-6)
    assert not np.allclose(ours['dense']['kernel'], parameters()['dense']['kernel'], atol=1e-3)


class TestLayerDecay:
    """Parameters as a classifier has them: two encoder layers, one of the fusion."""

    PARAMS = {
        'encoder_audio': {
            'patch_embedding': {'kernel': np.ones((3, 4))},
            'class_token': np.ones((1, 1, 4)),
            'layers': {'block': {'mlp': {'kernel': np.ones((2, 4, 4))}}},
        },
        'fusion': {'layers': {'block': {'mlp': {'kernel': np.ones((1, 4, 4))}}}},
        'head': {'kernel': np.ones((4, 5))},
        'head_norm': {'scale': np.ones(4)},
    }

    def test_each_layer_towards_the_input_learns_slower(self):
        scales = layer_decay(0.5, 2, 1, ('head',), frozen=False)(self.PARAMS)
        encoder = scales['encoder_audio']
        assert float(encoder['patch_embedding']['kernel']) == float(encoder['class_token']) == 0.5**4
        np.testing.assert_allclose(encoder['layers']['block']['mlp']['kernel'].ravel(), [0.5**3, 0.5**2])
        np.testing.assert_allclose(scales['fusion']['layers']['block']['mlp']['kernel'].ravel(), [0.5])
        assert float(scales['head']['kernel']) == float(scales['head_norm']['scale']) == 1

    def test_what_is_frozen_does_not_move(self):
        params = jax.tree.map(jnp.asarray, self.PARAMS)
        optimizer = make_optimizer(
            OptimizerConfig(weight_decay=0.1), layer_decay(0.5, 2, 1, ('head',), frozen=True)
        )
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params, finite=True)
        for name, part in updates.items():
            moves = {bool((leaf != 0).all()) for leaf in jax.tree.leaves(part)}
            assert moves == {name.startswith('head')}
