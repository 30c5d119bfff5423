"""The network, and what it learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from diffmavil_jax.config.constraints import Count, Finite, NotNegative, Ratio, at_least, must, one_of


@dataclasses.dataclass(frozen=True)
class VitSize:
    """Width, depth and heads of a ViT encoder (Dosovitskiy et al. 2021)."""

    width: int
    depth: int
    heads: int


VIT_SIZES: Mapping[str, VitSize] = {
    'demo': VitSize(128, 4, 4),
    'Ti': VitSize(192, 12, 3),
    'S': VitSize(384, 12, 6),
    'B': VitSize(768, 12, 12),
    'L': VitSize(1024, 24, 16),
}

SizeName = Annotated[str, one_of(lambda: VIT_SIZES)]
DecoderKind = Literal['self', 'cross', 'cross_self']
Temperature = Annotated[float, at_least(1e-4)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoders, fusion and decoders (MAViL: Huang et al. 2022)."""

    size: SizeName = 'B'
    # Of the encoders. `stored`: a table among the parameters that is not trained, as in imported networks;
    # a new table holds sin-cos positions.
    positions: Literal['sincos', 'stored'] = 'sincos'
    class_token: bool = True  # of each encoder; CAV-MAE has none
    fusion_layers: Count = 2
    decoder_width: int = 512
    decoder_layers: Count = 8
    decoder_heads: Count = 16
    # `self`: all tokens attend to all. `cross`: masked tokens attend to the visible latents only.
    # `cross_self`: self-attention among the masked tokens, then cross-attention.
    # The summaries of DiffMAViL name cross-attention for video; audio is a guess.
    audio_decoder: DecoderKind = 'self'
    video_decoder: DecoderKind = 'cross'
    # Share of the masked tokens that is decoded (CrossMAE: Fu et al. 2024); needs cross decoders.
    decoded_fraction: Annotated[float, must('a share above 0, up to 1', lambda value: 0 < value <= 1)] = 1.0

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
    whether the decoder is conditioned on it. The defaults follow DiffMAE (Wei et al. 2023).
    """

    enabled: bool = True
    schedule: Literal['linear', 'cosine'] = 'linear'
    timesteps: Count = 1000
    # The power of each beta.
    rho: Annotated[float, must('a number above 0, up to 2', lambda rho: 0 < rho <= 2)] = 0.8
    target: Literal['x0', 'eps', 'v'] = 'x0'
    conditioning: Literal['none', 'add', 'adaln'] = 'none'


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """The mask-ratio curriculum over samples seen."""

    curriculum: Literal['none', 'linear', 'cosine'] = 'linear'
    start_ratio: Ratio = 0.9
    end_ratio: Ratio = 0.8  # also the fixed ratio when the curriculum is `none`
    buckets: Count = 5  # distinct ratios, each compiled once; not stated in the abstract
    token_multiple: Count = 1  # visible tokens are rounded to a multiple of this
    # Visible tokens are drawn by the contrast of their patches to this power; 0, as in the papers: uniformly.
    contrast_power: Annotated[float, must('a number from 0 to 8', lambda power: 0 <= power <= 8)] = 0.0

    @property
    def stretches(self) -> int:
        """Parts of training with a mask ratio each."""
        return 1 if self.curriculum == 'none' else self.buckets


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss terms (MAViL)."""

    audio_weight: NotNegative = 1.0
    video_weight: NotNegative = 1.0
    normalize_targets: bool = False  # per-patch normalised targets, as MAE; off: raw patches, as DiffMAE
    inter_weight: NotNegative = 0.1
    inter_temperature: Temperature = 0.1
    inter_kind: Literal['info_nce', 'sigmoid'] = 'info_nce'
    sigmoid_bias: Finite = -5.0  # of inter_kind=sigmoid; SigLIP learns it, from -10
    intra_weight: NotNegative = 0.01
    intra_temperature: Temperature = 1.0
    second_view: bool = True  # a second masked view through the encoders, for the intra-modal term
    # The inter-modal term is the mean over both views, which costs nothing; the papers contrast one.
    inter_both_views: bool = False
