import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.models import attention as attention_module
from diffmavil_jax.models.attention import attend, choose
from diffmavil_jax.models.transformer import Block, Compute, Stack, gelu


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_params(module, *inputs):
    """Nonzero parameters, because zeros of the initialisation would hide errors."""
    shapes = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs)['params'])
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: 0.2 * rng.normal(size=p.shape).astype(np.float32), shapes)


def test_gelu_is_the_exact_one_in_value_and_gradient():
    x = np.linspace(-6, 6, 1001).astype(np.float32)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    gradient = jax.vmap(jax.grad(gelu))(x)
    expected = jax.vmap(jax.grad(lambda v: jax.nn.gelu(v, approximate=False)))(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    tanh_form = jax.nn.gelu(x, approximate=True)
    assert np.abs(gelu(x) - tanh_form).max() > 1e-4  # the comparison can tell the two apart


def plain_attention(query, key, value):
    logits = jnp.einsum('bhqc,bhnc->bhqn', query, key) / math.sqrt(query.shape[-1])
    return jnp.einsum('bhqn,bhnc->bhqc', jax.nn.softmax(logits, axis=-1), value)


def test_attention_and_its_gradients_match_the_plain_formula():
    query, key, value = normal(2, 3, 5, 4, seed=1), normal(2, 3, 7, 4, seed=2), normal(2, 3, 7, 4, seed=3)
    weight = normal(2, 3, 5, 4, seed=4)
    np.testing.assert_allclose(attend(query, key, value), plain_attention(query, key, value), atol=1e-5)

    def gradients(function):
        return jax.jit(jax.grad(lambda *a: (weight * function(*a)).sum(), argnums=(0, 1, 2)))(
            query, key, value
        )

    for ours, expected in zip(gradients(attend), gradients(plain_attention), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def norm_in_numpy(x, p=None):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x if p is None else x * p['scale'] + p['bias']


def linear_in_numpy(x, p):
    return x @ p['kernel'] + p['bias']


def attention_in_numpy(x, memory, p, heads):
    query, key, value = (
        linear_in_numpy(y, p[n]) for y, n in ((x, 'query'), (memory, 'key'), (memory, 'value'))
    )
    size = x.shape[-1] // heads
    out = np.zeros_like(x)
    for clip in range(x.shape[0]):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            logits = query[clip][:, part] @ key[clip][:, part].T / math.sqrt(size)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[clip][:, part] = weights / weights.sum(-1, keepdims=True) @ value[clip][:, part]
    return linear_in_numpy(out, p['out'])


def block_in_numpy(x, memory, condition, drop_path_scale, p, kind, heads):
    attention_scale, mlp_scale = (1, 1) if drop_path_scale is None else drop_path_scale.T[:, :, None, None]

    def normed(branch):
        if condition is None:
            return norm_in_numpy(x, p[f'{branch}_norm']), 1.0
        silu = condition / (1 + np.exp(-condition))
        shift, scale, gate = np.split(linear_in_numpy(silu, p[f'{branch}_modulation'])[:, None], 3, axis=-1)
        return norm_in_numpy(x) * (1 + scale) + shift, gate

    erf = np.vectorize(math.erf)
    if kind != 'cross':
        y, gate = normed('self')
        x = x + attention_scale * gate * attention_in_numpy(y, y, p['self_attention'], heads)
    if kind != 'self':
        y, gate = normed('cross')
        x = x + attention_scale * gate * attention_in_numpy(y, memory, p['cross_attention'], heads)
    y, gate = normed('mlp')
    hidden = linear_in_numpy(y, p['mlp']['wide'])
    hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
    return x + mlp_scale * gate * linear_in_numpy(hidden, p['mlp']['narrow'])


def test_attention_is_chosen_by_what_the_device_has():
    assert choose('xla', 'bfloat16') == ('xla', 'set in the config')
    assert choose('cudnn', 'bfloat16') == ('cudnn', 'set in the config')
    assert choose('auto', 'float32') == ('xla', 'cuDNN has none for float32 on cpu')


@pytest.mark.parametrize('damage', ['refuses', 'is wrong', 'is right'])
def test_a_trial_decides_on_a_gpu(damage, monkeypatch):
    def attention(query, key, value, implementation='xla'):
        if implementation == 'cudnn' and damage == 'refuses':
            raise RuntimeError('no kernel for this device\nand more')
        wrong = 1.1 if implementation == 'cudnn' and damage == 'is wrong' else 1.0
        return wrong * attend(query, key, value)

    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(attention_module, 'attend', attention)
    monkeypatch.setattr(attention_module, '_try_cudnn', attention_module._try_cudnn.__wrapped__)
    chosen, why = choose('auto', 'bfloat16')
    assert chosen == ('cudnn' if damage == 'is right' else 'xla')
    words = {'refuses': 'no kernel for this device', 'is wrong': 'differs by', 'is right': 'right numbers'}
    assert words[damage] in why and 'and more' not in why


@pytest.mark.parametrize(('conditioned', 'dropping'), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_block_matches_numpy(kind, conditioned, dropping):
    x, memory = normal(2, 5, 8, seed=1), normal(2, 7, 8, seed=2)
    condition = normal(2, 8, seed=3) if conditioned else None
    drop_path_scale = np.array([[0, 1.25], [1.25, 0]], np.float32) if dropping else None
    block = Block(kind, heads=2)
    inputs = x, memory, condition, drop_path_scale
    params = random_params(block, *inputs)
    expected = block_in_numpy(*(a if a is None else a.astype(np.float64) for a in inputs), params, kind, 2)
    np.testing.assert_allclose(jax.jit(block.apply)({'params': params}, *inputs), expected, atol=2e-5)


@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_adaln_starts_as_the_identity(kind):
    x, memory, condition = normal(2, 5, 8, seed=1), normal(2, 7, 8, seed=2), normal(2, 8, seed=3)
    block = Block(kind, heads=2)
    variables = block.init(jax.random.key(0), x, memory, condition, None)
    np.testing.assert_array_equal(block.apply(variables, x, memory, condition, None), x)
    unconditioned = block.init(jax.random.key(0), x, memory, None, None)
    assert np.abs(block.apply(unconditioned, x, memory, None, None) - x).max() > 0.1


@pytest.fixture(scope='module')
def stack():
    """A stack's inputs and parameters, and what a function of them computes."""
    x, memory, condition = normal(2, 5, 8, seed=1), normal(2, 7, 8, seed=2), normal(2, 8, seed=3)
    params = random_params(Stack(2, 2, 'cross_self'), x, memory, condition)

    def value_and_gradient(**settings):
        module = Stack(2, 2, 'cross_self', Compute(**settings))

        def square(params):
            out = module.apply({'params': params}, x, memory, condition)
            return jnp.square(out).mean(), out

        (_, out), gradient = jax.jit(jax.value_and_grad(square, has_aux=True))(params)
        return out, gradient

    return (x, memory, condition), params, value_and_gradient


@pytest.fixture(scope='module')
def scanned(stack):
    return stack[2]()


def test_stack_applies_its_layers_in_order(stack, scanned):
    (x, memory, condition), params, _ = stack
    for layer in range(2):
        one = jax.tree.map(lambda p, layer=layer: p[layer], params['block'])
        x = block_in_numpy(x.astype(np.float64), memory, condition, None, one, 'cross_self', 2)
    np.testing.assert_allclose(scanned[0], x, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('settings', [{'unroll': 8}, {'remat': 'dots'}, {'remat': 'full'}])
def test_unrolling_and_rematerialisation_change_nothing(stack, scanned, settings):
    out, gradient = stack[2](**settings)
    np.testing.assert_allclose(out, scanned[0], atol=1e-5, rtol=1e-5)
    for ours, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(scanned[1]), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)


def test_layers_start_different():
    x = normal(1, 3, 8)
    params = nn.meta.unbox(jax.jit(Stack(2, 2).init)(jax.random.key(0), x)['params'])
    kernel = params['block']['mlp']['wide']['kernel']
    assert kernel.shape == (2, 8, 32)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
