"""The network, and what it learns from."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping

from diffmavil_jax.config.constraints import Problem, at_least, between, one_of


@dataclasses.dataclass(frozen=True)
class VitSize:
    """Width, depth and heads of a ViT encoder (Dosovitskiy et al. 2021, table 1)."""

    width: int
    depth: int
    heads: int


VIT_SIZES: Mapping[str, VitSize] = types.MappingProxyType(
    {
        'demo': VitSize(128, 4, 4),
        'Ti': VitSize(192, 12, 3),
        'S': VitSize(384, 12, 6),
        'B': VitSize(768, 12, 12),
        'L': VitSize(1024, 24, 16),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoders, fusion and decoders (MAViL: Huang et al. 2022, section 3)."""

    size: str = 'B'
    # Of the encoders. `stored`: a table in the parameters, which nothing trains, as in networks that others
    # trained; a new one holds sin-cos positions.
    positions: str = 'sincos'
    class_token: bool = True  # of each encoder; CAV-MAE has none
    fusion_layers: int = 2
    decoder_width: int = 512
    decoder_layers: int = 8
    decoder_heads: int = 16
    # `self`: all tokens attend to all. `cross`: masked tokens attend to the visible latents only.
    # `cross_self`: self-attention among the masked tokens, then cross-attention.
    # The summaries of DiffMAViL name cross-attention for video; audio is a guess.
    audio_decoder: str = 'self'
    video_decoder: str = 'cross'
    # Share of the masked tokens that is decoded (CrossMAE: Fu et al. 2024); needs cross decoders.
    decoded_fraction: float = 1.0
    dtype: str = 'float32'
    # `cudnn`: for NVIDIA GPUs, with bfloat16. `auto` takes it where a trial of it works, else `xla`.
    attention: str = 'auto'
    remat: bool = False
    # Encoder layers per iteration of the layer scan; more compile longer and run faster on a CPU.
    scan_unroll: int = 1

    def problems(self) -> Iterator[Problem]:
        yield from one_of('size', self.size, tuple(VIT_SIZES))
        yield from one_of('positions', self.positions, ('sincos', 'stored'))
        yield from one_of('dtype', self.dtype, ('float32', 'bfloat16'))
        yield from one_of('attention', self.attention, ('auto', 'xla', 'cudnn'))
        if self.attention == 'cudnn' and self.dtype != 'bfloat16':
            yield 'attention', self.attention, f'xla with dtype={self.dtype}: cuDNN has no attention in it'
        for field in ('fusion_layers', 'decoder_layers', 'decoder_heads', 'scan_unroll'):
            yield from at_least(field, getattr(self, field), 1)
        if self.decoder_heads > 0 and (self.decoder_width < 1 or self.decoder_width % self.decoder_heads):
            yield (
                'decoder_width',
                self.decoder_width,
                f'a positive multiple of decoder_heads ({self.decoder_heads})',
            )
        if self.decoder_width % 16:
            yield 'decoder_width', self.decoder_width, 'a multiple of 16: positions share it among three axes'
        for field in ('audio_decoder', 'video_decoder'):
            yield from one_of(field, getattr(self, field), ('self', 'cross', 'cross_self'))
        if not 0 < self.decoded_fraction <= 1:
            yield 'decoded_fraction', self.decoded_fraction, 'a share above 0, up to 1'
        if self.decoded_fraction < 1 and (self.audio_decoder, self.video_decoder) != ('cross', 'cross'):
            kinds = f'audio_decoder={self.audio_decoder}, video_decoder={self.video_decoder}'
            yield (
                'decoded_fraction',
                self.decoded_fraction,
                f'1 unless both decoders are cross ({kinds}): others need every token',
            )

    @property
    def vit(self) -> VitSize:
        return VIT_SIZES[self.size]

    @property
    def class_tokens(self) -> int:
        """Tokens of an encoder before those of the patches."""
        return int(self.class_token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Diffused patches in place of mask tokens; every detail but the idea is a guess.

    Not stated in the abstract: schedule, rho, target, how the time step is drawn and
    whether the decoder is told. The defaults follow DiffMAE (Wei et al. 2023).
    """

    enabled: bool = True
    schedule: str = 'linear'
    timesteps: int = 1000
    rho: float = 0.8  # each beta is raised to this power
    target: str = 'x0'
    conditioning: str = 'none'

    def problems(self) -> Iterator[Problem]:
        yield from one_of('schedule', self.schedule, ('linear', 'cosine'))
        yield from one_of('target', self.target, ('x0', 'eps', 'v'))
        yield from one_of('conditioning', self.conditioning, ('none', 'add', 'adaln'))
        yield from at_least('timesteps', self.timesteps, 1)
        if not 0 < self.rho <= 2:
            yield 'rho', self.rho, 'a number above 0, up to 2'
        if not self.enabled and (self.target, self.conditioning) != ('x0', 'none'):
            yield (
                'enabled',
                self.enabled,
                f'true with target={self.target}, conditioning={self.conditioning}; mask tokens have neither',
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """The mask-ratio curriculum over samples seen."""

    curriculum: str = 'linear'
    start_ratio: float = 0.9
    end_ratio: float = 0.8  # also the fixed ratio when the curriculum is `none`
    buckets: int = 5  # distinct ratios, each compiled once; not stated in the abstract
    token_multiple: int = 1  # visible tokens are rounded to a multiple of this
    # Visible tokens are drawn by the contrast of their patches to this power; 0, as in the papers: uniformly.
    contrast_power: float = 0.0

    def problems(self) -> Iterator[Problem]:
        yield from one_of('curriculum', self.curriculum, ('none', 'linear', 'cosine'))
        yield from between('start_ratio', self.start_ratio, 0, 1)
        yield from between('end_ratio', self.end_ratio, 0, 1)
        yield from at_least('buckets', self.buckets, 1)
        yield from at_least('token_multiple', self.token_multiple, 1)
        if not 0 <= self.contrast_power <= 8:
            yield 'contrast_power', self.contrast_power, 'a number from 0 to 8'

    @property
    def stretches(self) -> int:
        """Of training, each with its own ratio."""
        return 1 if self.curriculum == 'none' else self.buckets


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss terms (MAViL, section 3.1 and 3.2)."""

    audio_weight: float = 1.0
    video_weight: float = 1.0
    normalize_targets: bool = False  # per-patch normalised targets, as MAE; off: raw patches, as DiffMAE
    inter_weight: float = 0.1
    inter_temperature: float = 0.1
    intra_weight: float = 0.01
    intra_temperature: float = 1.0
    second_view: bool = True  # a second masked view through the encoders, for the intra-modal term
    # The inter-modal term is the mean over both views, which costs nothing; the papers contrast one.
    inter_both_views: bool = False

    def problems(self) -> Iterator[Problem]:
        for field in ('audio_weight', 'video_weight', 'inter_weight', 'intra_weight'):
            yield from at_least(field, getattr(self, field), 0)
        for field in ('inter_temperature', 'intra_temperature'):
            yield from at_least(field, getattr(self, field), 1e-4)
        if self.inter_both_views and not self.second_view:
            yield 'inter_both_views', True, 'false without second_view'
