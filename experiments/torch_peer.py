"""MAViL's step in plain PyTorch, of the same geometry and losses as ours, to compare speed with.

Eager or compiled, autocast to bfloat16, fused attention and fused AdamW. It trains on noise: only its
time and memory are measured. Needs the extra: pip install -e '.[torch]'.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.plan.buckets import make_plan


class Block(nn.Module):
    """Pre-norm attention to a memory (itself without one) and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        """x: [b q d], memory: [b n d]."""
        normed = self.norm(x)
        source = normed if memory is None else memory
        key, value = self.key_value(source).chunk(2, dim=-1)
        heads = [t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(normed), key, value)]
        x = x + self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class Stack(nn.Module):
    """Several blocks."""

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        """x: [b q d], memory: [b n d]."""
        for block in self.blocks:
            x = block(x, memory)
        return x


class Peer(nn.Module):
    """Two encoders, their fusion, two decoders; the loss of two views."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model, vit = config.model, config.model.vit
        width, decoder = vit.width, model.decoder_width
        dims = {'audio': config.audio.patch_dim, 'video': config.video.patch_dim}
        counts = {'audio': config.audio.num_tokens, 'video': config.video_tokens}
        self.loss, self.kinds = config.loss, {'audio': model.audio_decoder, 'video': model.video_decoder}
        self.embed = nn.ModuleDict({m: nn.Linear(dims[m], width) for m in MODALITIES})
        self.class_token = nn.ParameterDict({m: nn.Parameter(torch.zeros(1, 1, width)) for m in MODALITIES})
        self.encoder = nn.ModuleDict({m: Stack(vit.depth, width, vit.heads) for m in MODALITIES})
        self.pool_norm = nn.ModuleDict({m: nn.LayerNorm(width, 1e-6) for m in MODALITIES})
        self.fusion = Stack(model.fusion_layers, width, vit.heads)
        self.fusion_norm = nn.LayerNorm(width, 1e-6)
        self.to_decoder = nn.ModuleDict({m: nn.Linear(width, decoder) for m in MODALITIES})
        self.noisy = nn.ModuleDict({m: nn.Linear(dims[m], decoder) for m in MODALITIES})
        self.decoder = nn.ModuleDict(
            {m: Stack(model.decoder_layers, decoder, model.decoder_heads) for m in MODALITIES}
        )
        self.decoder_norm = nn.ModuleDict({m: nn.LayerNorm(decoder, 1e-6) for m in MODALITIES})
        self.predict = nn.ModuleDict({m: nn.Linear(decoder, dims[m]) for m in MODALITIES})
        for m in MODALITIES:
            self.register_buffer(f'positions_{m}', torch.randn(counts[m], width) * 0.02)
            self.register_buffer(f'decoder_positions_{m}', torch.randn(counts[m], decoder) * 0.02)

    def forward(self, patches: dict[str, torch.Tensor], tokens: dict[str, tuple[int, int]]) -> torch.Tensor:
        """The loss.

        Args:
            patches: clean, [b n p] of each modality.
            tokens: visible and decoded tokens of each modality.
        """
        views = 2 if self.loss.second_view else 1
        seen, order, pooled = {}, {}, {}
        for m in MODALITIES:
            b, n, _ = patches[m].shape
            order[m] = torch.rand(views, b, n, device=patches[m].device).argsort(dim=-1)
            visible = order[m][:, :, : tokens[m][0]].flatten(0, 1)
            clean = (
                patches[m]
                .repeat(views, 1, 1)
                .gather(1, visible[..., None].expand(-1, -1, patches[m].shape[2]))
            )
            x = self.embed[m](clean) + getattr(self, f'positions_{m}')[visible]
            x = torch.cat([self.class_token[m].expand(len(x), -1, -1), x], dim=1)
            encoded = self.encoder[m](x)
            pooled[m] = self.pool_norm[m](encoded[:, 1:]).float().mean(dim=1).chunk(views)
            seen[m] = encoded[:b]
        fused = self.fusion_norm(self.fusion(torch.cat([seen[m] for m in MODALITIES], dim=1)))
        latents = dict(
            zip(MODALITIES, fused.split([seen[m].shape[1] for m in MODALITIES], dim=1), strict=True)
        )
        loss = self.loss.inter_weight * _info_nce(
            *(pooled[m][0] for m in MODALITIES), self.loss.inter_temperature
        )
        for m in MODALITIES:
            loss = loss + self._reconstruction(m, patches[m], latents[m], order[m][0], tokens[m])
            if views == 2:
                loss = loss + self.loss.intra_weight * _info_nce(*pooled[m], self.loss.intra_temperature)
        return loss

    def _reconstruction(
        self,
        m: str,
        patches: torch.Tensor,
        latents: torch.Tensor,
        order: torch.Tensor,
        tokens: tuple[int, int],
    ) -> torch.Tensor:
        positions = getattr(self, f'decoder_positions_{m}')
        visible, decoded = order[:, : tokens[0]], order[:, tokens[0] : sum(tokens)]
        target = patches.gather(1, decoded[..., None].expand(-1, -1, patches.shape[2]))
        memory = self.to_decoder[m](latents)
        memory = torch.cat([memory[:, :1], memory[:, 1:] + positions[visible]], dim=1)
        queries = self.noisy[m](target + torch.randn_like(target)) + positions[decoded]
        if self.kinds[m] == 'self':
            x = self.decoder[m](torch.cat([memory, queries], dim=1))[:, memory.shape[1] :]
        else:
            x = self.decoder[m](queries, memory)
        return F.mse_loss(self.predict[m](self.decoder_norm[m](x)).float(), target)


def _info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def measure(config: Config, *, compiled: bool, steps: int = 6, rounds: int = 4) -> dict[str, Any]:
    """The time and the memory of a step at the config's last bucket."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    bucket = make_plan(config).buckets[-1]
    tokens = {
        'audio': (bucket.audio_tokens, bucket.audio_decoded),
        'video': (bucket.video_tokens, bucket.video_decoded),
    }
    shapes = {
        'audio': (bucket.batch_size, config.audio.num_tokens, config.audio.patch_dim),
        'video': (bucket.batch_size, config.video_tokens, config.video.patch_dim),
    }
    batch = {m: torch.randn(shapes[m], device=device) for m in MODALITIES}
    model: Any = Peer(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if compiled else model
    dtype = torch.bfloat16 if config.compute.dtype == 'bfloat16' else torch.float32

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = forward(batch, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def wait() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize()

    began = time.perf_counter()
    step()
    wait()
    first_s, seconds = time.perf_counter() - began, []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        seconds.append((time.perf_counter() - began) / steps)
    step_s = statistics.median(seconds)
    peak = torch.cuda.max_memory_allocated() if device.type == 'cuda' else 0
    return {
        'batch': bucket.batch_size,
        'first step s': first_s,
        'step ms': 1e3 * step_s,
        'clips/s': bucket.batch_size / step_s,
        'peak GB': peak / 1e9,
        'parameters': sum(p.numel() for p in model.parameters()),
        'torch': torch.__version__,
    }
