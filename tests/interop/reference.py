"""Random state dicts as other projects write them, and their forward passes in NumPy."""

import numpy as np
from scipy.special import erf

WIDTH, LAYERS, HEADS = 128, 4, 4  # the size `demo`


def linear(rng, name, rows, columns):
    weight = rng.normal(size=(rows, columns), scale=columns**-0.5)
    return {f'{name}.weight': weight, f'{name}.bias': rng.normal(size=rows, scale=0.1)}


def norm(rng, name, width=WIDTH):
    return {
        f'{name}.weight': 1 + 0.2 * rng.normal(size=width),
        f'{name}.bias': 0.2 * rng.normal(size=width),
    }


def blocks(rng, prefix, count, norms=('',)):
    """Blocks named as in timm; a block has its two norms once for each ending in `norms`."""
    state = {}
    for i in range(count):
        here = f'{prefix}.{i}'
        for end in norms:
            state |= norm(rng, f'{here}.norm1{end}') | norm(rng, f'{here}.norm2{end}')
        state |= linear(rng, f'{here}.attn.qkv', 3 * WIDTH, WIDTH)
        state |= linear(rng, f'{here}.attn.proj', WIDTH, WIDTH)
        state |= linear(rng, f'{here}.mlp.fc1', 4 * WIDTH, WIDTH)
        state |= linear(rng, f'{here}.mlp.fc2', WIDTH, 4 * WIDTH)
    return state


def convolution(rng, name, *shape):
    weight = rng.normal(size=(WIDTH, *shape), scale=np.prod(shape) ** -0.5)
    return {f'{name}.weight': weight, f'{name}.bias': rng.normal(size=WIDTH, scale=0.1)}


def tokens(rng, *shape):
    return rng.normal(size=shape, scale=0.5)


def vit(channels, patch, count):
    """An encoder of MAE or AudioMAE, with a few parameters of a decoder."""
    rng = np.random.default_rng(channels)
    return {
        'cls_token': tokens(rng, 1, 1, WIDTH),
        'pos_embed': tokens(rng, 1, 1 + count, WIDTH),
        **convolution(rng, 'patch_embed.proj', channels, patch, patch),
        **blocks(rng, 'blocks', LAYERS),
        **norm(rng, 'norm'),
        'mask_token': tokens(rng, 1, 1, 32),
        'decoder_blocks.0.norm1.weight': tokens(rng, 32),
    }


def cavmae():
    """The encoders of CAV-MAE: 8 x 4 tokens of 16 x 16 values of sound, 2 x 2 of 8 x 8 of a picture."""
    rng = np.random.default_rng(2)
    ends = ('', '_a', '_v')
    return {
        **convolution(rng, 'patch_embed_a.proj', 1, 16, 16),
        **convolution(rng, 'patch_embed_v.proj', 3, 8, 8),
        'pos_embed_a': tokens(rng, 1, 32, WIDTH),
        'pos_embed_v': tokens(rng, 1, 4, WIDTH),
        'modality_a': tokens(rng, 1, 1, WIDTH),
        'modality_v': tokens(rng, 1, 1, WIDTH),
        **blocks(rng, 'blocks_a', LAYERS - 1, ends),
        **blocks(rng, 'blocks_v', LAYERS - 1, ends),
        **blocks(rng, 'blocks_u', 1, ends),
        **norm(rng, 'norm_a'),
        **norm(rng, 'norm_v'),
        **norm(rng, 'norm'),
        'decoder_pos_embed_a': tokens(rng, 1, 32, 32),
    }


def mavil():
    """MAViL in AV-SUPERB: 2 x 8 tokens of 16 x 16 values of sound, 2 x 2 x 2 of 2 x 8 x 8 of video."""
    rng = np.random.default_rng(3)
    return {
        'cls_token': tokens(rng, 1, 1, WIDTH),
        'cls_token_v': tokens(rng, 1, 1, WIDTH),
        'pos_embed': tokens(rng, 1, 17, WIDTH),
        'pos_embed_v': tokens(rng, 1, 9, WIDTH),
        **convolution(rng, 'patch_embed.proj', 1, 16, 16),
        **convolution(rng, 'patch_embed_v.proj', 3, 2, 8, 8),
        **blocks(rng, 'blocks', LAYERS),
        **blocks(rng, 'blocks_v', LAYERS),
        **blocks(rng, 'blocks_av', 3),
        **norm(rng, 'fc_norm_av', 2 * WIDTH),
        **linear(rng, 'head_av', 7, 2 * WIDTH),
    }


def normed(state, name, x, epsilon=1e-6):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale, bias = state[f'{name}.weight'], state[f'{name}.bias']
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


def layer(state, name, x):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def block(state, name, x, ends='', epsilon=1e-6):
    """Pre-norm attention and MLP, head by head."""
    qkv = layer(state, f'{name}.attn.qkv', normed(state, f'{name}.norm1{ends}', x, epsilon))
    query, key, value = np.split(qkv, 3, axis=-1)
    mixed, width = np.zeros_like(x), WIDTH // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        logits = query[..., part] @ key[..., part].swapaxes(-1, -2) / np.sqrt(width)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed[..., part] = weights / weights.sum(-1, keepdims=True) @ value[..., part]
    x = x + layer(state, f'{name}.attn.proj', mixed)
    hidden = layer(state, f'{name}.mlp.fc1', normed(state, f'{name}.norm2{ends}', x, epsilon))
    return x + layer(state, f'{name}.mlp.fc2', hidden * (1 + erf(hidden / np.sqrt(2))) / 2)


def embedded(state, name, picture):
    """A convolution whose stride is its kernel: [b c y x] -> [b, y x, d], or with time [b c t y x]."""
    weight = state[f'{name}.weight']
    kernel = weight.shape[2:]
    grid = [size // k for size, k in zip(picture.shape[2:], kernel, strict=True)]
    out = []
    for cell in np.ndindex(*grid):
        part = picture[(..., *(slice(i * k, (i + 1) * k) for i, k in zip(cell, kernel, strict=True)))]
        axes = list(range(1, weight.ndim))
        out.append(np.tensordot(part, weight, axes=(axes, axes)) + state[f'{name}.bias'])
    return np.stack(out, axis=1)
