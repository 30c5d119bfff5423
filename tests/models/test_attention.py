"""cuDNN's attention for every length, its library replaced by XLA's of the same interface."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.compute import ComputeConfig
from diffmavil_jax.models import attention
from diffmavil_jax.models.transformer import Compute, Stack


@pytest.fixture
def calls(monkeypatch):
    """`jax.nn.dot_product_attention` on a CPU; records the shapes and lengths that it is given."""
    recorded = []
    original = jax.nn.dot_product_attention

    def stand_in(query, key, value, *, implementation, **lengths):
        assert implementation == 'cudnn'
        assert query.shape[1] % 2 == key.shape[1] % 2 == 0  # or cuDNN's gradient refuses it
        recorded.append((query.shape[1], key.shape[1], lengths['query_seq_lengths'] is not None))
        return original(query, key, value, implementation='xla', **lengths)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', stand_in)
    return recorded


def random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def square_of(function):
    return lambda *arrays: jnp.square(function(*arrays)).sum()


@pytest.mark.parametrize(('queries', 'keys'), [(37, 101), (8, 5), (5, 8), (6, 4), (1, 7)])
def test_any_length_gives_xlas_numbers_and_gradients(calls, queries, keys):
    arrays = random(2, 3, queries, 8), random(2, 3, keys, 8), random(2, 3, keys, 8)

    def attend(implementation):
        def loss(*arrays):
            attended = attention.attend(*arrays, implementation)
            return jnp.square(attended).sum(), attended

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), attend('cudnn'), attend('xla'))
    even = queries % 2 == keys % 2 == 0
    assert calls[0] == (queries + queries % 2, keys + keys % 2, not even)


@pytest.mark.parametrize(
    ('kind', 'tokens', 'memory'),
    [('self', 5, 7), ('cross', 5, 7), ('cross_self', 4, 7), ('cross_self', 5, 6), ('cross_self', 4, 6)],
)
def test_a_stack_pads_once_and_gives_the_same(calls, kind, tokens, memory):
    x, memory = random(2, tokens, 16), random(2, memory, 16)
    context = None if kind == 'self' else memory
    plain = Stack(2, 2, kind, Compute())
    fused = Stack(2, 2, kind, Compute(attention='cudnn', remat='dots', unroll=2))
    shapes = jax.eval_shape(plain.init, jax.random.key(0), x, context)
    params = jax.tree.map(lambda p: 0.3 * random(*p.shape), nn.meta.unbox(shapes))

    def run(stack):
        function = jax.jit(jax.value_and_grad(square_of(lambda params, x: stack.apply(params, x, context))))
        return function(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), run(fused), run(plain))


def test_what_is_automatic_is_chosen_by_backend():
    chosen = {
        (platform, dtype): ComputeConfig(dtype=dtype).on(platform)
        for platform in ('cpu', 'gpu', 'tpu')
        for dtype in ('float32', 'bfloat16')
    }
    assert {name: compute.remat for name, compute in chosen.items() if compute.remat != 'none'} == {
        ('gpu', 'float32'): 'dots',
        ('gpu', 'bfloat16'): 'dots',
    }
    assert chosen['gpu', 'float32'].scan_unroll == chosen['tpu', 'bfloat16'].scan_unroll == 1
    assert chosen['gpu', 'bfloat16'].scan_unroll >= 24  # all layers of the largest encoder
    given = ComputeConfig(remat='full', scan_unroll=3)
    assert all(given.on(platform) == given for platform in ('cpu', 'gpu', 'tpu'))


@pytest.mark.skipif(jax.default_backend() != 'gpu', reason='runs where a GPU is')
@pytest.mark.parametrize(('queries', 'keys'), [(37, 101), (103, 158), (513, 513), (785, 158)])
def test_on_a_gpu_cudnn_agrees_with_xla_within_bfloat16(queries, keys):
    arrays = [
        x.astype(jnp.bfloat16)
        for x in (random(2, 4, queries, 64), random(2, 4, keys, 64), random(2, 4, keys, 64))
    ]

    def gradients(implementation):
        function = square_of(lambda *x: attention.attend(*x, implementation).astype(jnp.float32))
        return jax.jit(jax.grad(function, argnums=(0, 1, 2)))(*arrays)

    for ours, theirs in zip(gradients('cudnn'), gradients('xla'), strict=True):
        difference = jnp.linalg.norm((ours - theirs).astype(jnp.float32))
        assert difference < 0.02 * jnp.linalg.norm(theirs.astype(jnp.float32))
