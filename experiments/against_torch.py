"""The train step of a small masked autoencoder, ours and PyTorch's: python -m experiments.against_torch.

Both have the same parameters, batch and AdamW; the script checks first that they give the same losses over
three steps. Each has a process of its own, and rounds take turns, so that both have the same share of a
busy machine. PyTorch runs eagerly, with its fused attention and optimizer. Needs the extra:
pip install -e '.[torch]'.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jaxtyping import Array, Float, Int

from diffmavil_jax.models.decoders import Decoder
from diffmavil_jax.models.encoders import Encoder
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.positions import sincos_table
from diffmavil_jax.models.transformer import Compute
from diffmavil_jax.parallel.allocator import keep_freed_memory

RATE = 1e-3
BETAS = (0.9, 0.95)
PATCH_DIM = 256

Batch = tuple[np.ndarray, ...]  # patches, and the indices of visible and of masked ones


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the autoencoder; the defaults are a ViT-Ti of four layers on 10 s of sound."""

    grid: tuple[int, int]
    visible: int
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


class OurAutoencoder(nn.Module):
    """One encoder and its decoder with mask tokens, as MAE has them."""

    sizes: Sizes

    @nn.compact
    def __call__(
        self, patches: Float[Array, 'b n p'], visible: Int[Array, 'b k'], masked: Int[Array, 'b m']
    ) -> Float[Array, 'b m p']:
        s = self.sizes
        encoder, decoder = Compute(unroll=s.depth), Compute(unroll=s.decoder_depth)
        seen = take_tokens(patches, visible)
        latents = Encoder(s.grid, s.width, s.depth, s.heads, encoder, name='encoder')(seen, visible)
        return Decoder(
            s.grid, PATCH_DIM, s.decoder_width, s.decoder_depth, s.decoder_heads,
            kind='self', conditioning='none', timesteps=1, compute=decoder, name='decoder',
        )(latents, visible, masked, None, None)  # fmt: skip


class TorchBlock(torch.nn.Module):
    """A pre-norm block with fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = torch.nn.LayerNorm(width, eps=1e-6)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.norm2 = torch.nn.LayerNorm(width, eps=1e-6)
        self.wide = torch.nn.Linear(width, 4 * width)
        self.narrow = torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(*qkv)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm2(x))))


class TorchAutoencoder(torch.nn.Module):
    """The same network in PyTorch."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.patches = torch.nn.Linear(PATCH_DIM, s.width)
        self.class_token = torch.nn.Parameter(torch.zeros(1, 1, s.width))
        self.encoder = torch.nn.ModuleList(TorchBlock(s.width, s.heads) for _ in range(s.depth))
        self.latents = torch.nn.Linear(s.width, s.decoder_width)
        self.mask_token = torch.nn.Parameter(torch.zeros(1, 1, s.decoder_width))
        self.decoder = torch.nn.ModuleList(
            TorchBlock(s.decoder_width, s.decoder_heads) for _ in range(s.decoder_depth)
        )
        self.norm = torch.nn.LayerNorm(s.decoder_width, eps=1e-6)
        self.prediction = torch.nn.Linear(s.decoder_width, PATCH_DIM)
        self.register_buffer('positions', torch.from_numpy(sincos_table(s.grid, s.width)))
        self.register_buffer('decoder_positions', torch.from_numpy(sincos_table(s.grid, s.decoder_width)))

    def forward(self, patches: torch.Tensor, visible: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        seen = torch.gather(patches, 1, visible[..., None].expand(-1, -1, PATCH_DIM))
        x = self.patches(seen) + self.positions[visible]
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.encoder:
            x = block(x)
        x = self.latents(x)
        x = torch.cat([x[:, :1], x[:, 1:] + self.decoder_positions[visible]], dim=1)
        first = x.shape[1]
        x = torch.cat([x, self.mask_token + self.decoder_positions[masked]], dim=1)
        for block in self.decoder:
            x = block(x)
        return self.prediction(self.norm(x[:, first:]))


def copy_parameters(params: dict[str, Any], model: TorchAutoencoder) -> None:
    """Copies our parameters into PyTorch's network."""

    def put(target: torch.Tensor, *values: Any) -> None:
        joined = np.concatenate([np.asarray(v) for v in values], axis=-1)
        with torch.no_grad():
            target.copy_(torch.from_numpy(joined.T.copy() if joined.ndim == 2 else joined))

    def linear(target: torch.nn.Linear, *parts: dict[str, Any]) -> None:
        put(target.weight, *(part['kernel'] for part in parts))
        put(target.bias, *(part['bias'] for part in parts))

    def norm(target: torch.nn.LayerNorm, part: dict[str, Any]) -> None:
        put(target.weight, part['scale'])
        put(target.bias, part['bias'])

    def blocks(targets: torch.nn.ModuleList, stack: dict[str, Any]) -> None:
        for i, target in enumerate(targets):
            part = jax.tree.map(lambda x, i=i: x[i], stack['block'])
            norm(target.norm1, part['self_norm'])
            linear(target.qkv, *(part['self_attention'][name] for name in ('query', 'key', 'value')))
            linear(target.out, part['self_attention']['out'])
            norm(target.norm2, part['mlp_norm'])
            linear(target.wide, part['mlp']['wide'])
            linear(target.narrow, part['mlp']['narrow'])

    encoder, decoder = params['encoder'], params['decoder']
    linear(model.patches, encoder['patch_embedding'])
    put(model.class_token, encoder['class_token'])
    blocks(model.encoder, encoder['layers'])
    linear(model.latents, decoder['latent_embedding'])
    put(model.mask_token, decoder['mask_token'])
    blocks(model.decoder, decoder['layers'])
    norm(model.norm, decoder['norm'])
    linear(model.prediction, decoder['prediction'])


def our_step(model: OurAutoencoder, params: Any, batch: Batch) -> Callable[[], float]:
    """A function that makes one training step and returns the loss before it."""
    optimizer = optax.adamw(RATE, *BETAS, weight_decay=0.05)

    def loss_function(params: Any, patches: jax.Array, visible: jax.Array, masked: jax.Array) -> jax.Array:
        predicted = model.apply({'params': params}, patches, visible, masked)
        return jnp.square(predicted - take_tokens(patches, masked)).mean()

    def step(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_function)(params, *batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    carried = [jax.tree.map(jnp.copy, params), optimizer.init(params)]

    def timed_step() -> float:
        carried[0], carried[1], loss = compiled(*carried)
        return float(jax.block_until_ready(loss))

    return timed_step


def torch_step(model: TorchAutoencoder, batch: Batch) -> Callable[[], float]:
    """The same in PyTorch."""
    patches, visible, masked = (torch.from_numpy(np.asarray(x)) for x in batch)
    visible, masked = visible.long(), masked.long()
    target = torch.gather(patches, 1, masked[..., None].expand(-1, -1, PATCH_DIM))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=0.05, fused=True)

    def timed_step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(model(patches, visible, masked), target)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return timed_step


def serve_ours(pipe: Connection, sizes: Sizes, batch: Batch) -> None:
    """Runs our network in its own process: sends its parameters, then times as many steps as told."""
    keep_freed_memory()  # as main.py does
    model = OurAutoencoder(sizes)
    params = nn.unbox(model.init(jax.random.key(0), *batch)['params'])
    pipe.send(jax.device_get(params))
    _serve(pipe, our_step(model, params, batch))


def serve_torch(pipe: Connection, sizes: Sizes, batch: Batch) -> None:
    """Runs PyTorch's network in a process of its own, with the parameters that it receives."""
    keep_freed_memory()  # PyTorch gains from it too
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = TorchAutoencoder(sizes)
    copy_parameters(pipe.recv(), model)
    _serve(pipe, torch_step(model, batch))


def _serve(pipe: Connection, step: Callable[[], float]) -> None:
    pipe.send([step() for _ in range(3)])
    while steps := pipe.recv():
        step()
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        pipe.send(seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--mask_ratio', type=float, default=0.8)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--steps', type=int, default=3, help='in a row in each round')
    for name, value in (('width', 192), ('depth', 4), ('heads', 3)):
        parser.add_argument(f'--{name}', type=int, default=value)
    for name, value in (('decoder_width', 128), ('decoder_depth', 2), ('decoder_heads', 4)):
        parser.add_argument(f'--{name}', type=int, default=value)
    options = parser.parse_args()
    tokens = 64 * 8
    visible = round(tokens * (1 - options.mask_ratio))
    names = [field.name for field in dataclasses.fields(Sizes) if hasattr(options, field.name)]
    sizes = Sizes(grid=(64, 8), visible=visible, **{name: getattr(options, name) for name in names})
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(tokens, dtype=np.int32), (options.batch, 1)), axis=1)
    patches = rng.standard_normal((options.batch, tokens, PATCH_DIM), dtype=np.float32)
    batch = (patches, order[:, :visible], order[:, visible:])
    context = multiprocessing.get_context('spawn')
    pipes = {}
    for name, serve in (('ours', serve_ours), ('PyTorch', serve_torch)):
        pipes[name], end = context.Pipe()
        context.Process(target=serve, args=(end, sizes, batch), daemon=True).start()
    pipes['PyTorch'].send(pipes['ours'].recv())
    first = {name: pipe.recv() for name, pipe in pipes.items()}
    if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(*first.values(), strict=True)):
        raise SystemExit(f'The two do not compute the same: {first}')
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(options.rounds):
        for name, pipe in pipes.items():
            pipe.send(options.steps)
            seconds[name] += pipe.recv()
    for pipe in pipes.values():
        pipe.send(0)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f'jax {jax.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {sizes}')
    print('| step, ms | ours | PyTorch | ours / PyTorch |')
    print('|---|---|---|---|')
    ratio = medians['ours'] / medians['PyTorch']
    print(f'| median | {1e3 * medians["ours"]:.1f} | {1e3 * medians["PyTorch"]:.1f} | {ratio:.2f} |')


if __name__ == '__main__':
    main()
