"""Multiply-accumulates (MACs) of a forward pass, counted from the shapes.

As in the papers, which call a MAC a "FLOP", only matrix products count. Softmax, norms, GELU,
the front end and the B x B products of InfoNCE are left out.
"""

from __future__ import annotations

import dataclasses

from diffmavil_jax.config.schema import Config

MAVIL_RATIO = 0.8  # of MAViL's masks
MAVIL = f'MAViL at a fixed mask of {MAVIL_RATIO} with class tokens and both views, the same network'


@dataclasses.dataclass(frozen=True)
class Macs:
    """Forward multiply-accumulates of a clip, for each part of the network."""

    audio_encoder: int
    video_encoder: int
    fusion: int
    audio_decoder: int
    video_decoder: int
    embeddings: int  # patches in, latents between, predictions out
    second_view: int
    teacher: int  # in stage 2: as large as the student, over the whole clip, without a backward pass

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def macs_per_clip(config: Config, audio_visible: int, video_visible: int) -> Macs:
    """Forward multiply-accumulates of one pretraining clip with so many visible tokens."""
    model = config.model
    width, depth = model.vit.width, model.vit.depth
    audio, video = model.class_tokens + audio_visible, model.class_tokens + video_visible
    encoders = (_stack(depth, width, audio), _stack(depth, width, video))
    patches_in = width * (audio_visible * config.audio.patch_dim + video_visible * config.video.patch_dim)
    decoded_audio = decoded_tokens(config, config.audio.num_tokens, audio_visible)
    decoded_video = decoded_tokens(config, config.video_tokens, video_visible)
    return Macs(
        audio_encoder=encoders[0],
        video_encoder=encoders[1],
        fusion=_stack(model.fusion_layers, width, audio + video),
        audio_decoder=_decoder(config, model.audio_decoder, decoded_audio, audio),
        video_decoder=_decoder(config, model.video_decoder, decoded_video, video),
        embeddings=patches_in
        + _decoder_ends(config, decoded_audio, audio, config.audio.patch_dim)
        + _decoder_ends(config, decoded_video, video, config.video.patch_dim),
        second_view=sum(encoders) + patches_in if config.loss.second_view else 0,
        teacher=teacher_macs(config),
    )


def classifier_macs(config: Config, audio_tokens: int, video_tokens: int) -> int:
    """Forward multiply-accumulates of one clip through the classifier, without its linear layer.

    Args:
        config: the run.
        audio_tokens: tokens that the audio encoder is given; 0 without audio.
        video_tokens: tokens that the video encoder is given; 0 without video.
    """
    model = config.model
    width, depth = model.vit.width, model.vit.depth
    total, tokens = 0, 0
    for seen, patch_dim in (
        (audio_tokens, config.audio.patch_dim),
        (video_tokens, config.video.patch_dim),
    ):
        if seen:
            total += encoder_macs(width, depth, seen, patch_dim, model.class_tokens)
            tokens += model.class_tokens + seen
    both = audio_tokens and video_tokens
    return total + (_stack(model.fusion_layers, width, tokens) if both else 0)


def encoder_macs(width: int, depth: int, tokens: int, patch_dim: int, class_tokens: int = 1) -> int:
    """Forward multiply-accumulates of one uni-modal encoder over patches and class tokens."""
    return _stack(depth, width, class_tokens + tokens) + tokens * patch_dim * width


def teacher_macs(config: Config) -> int:
    """Forward multiply-accumulates of a whole clip through the teacher of stage 2; 0 without one."""
    if config.objective != 'stage2':
        return 0
    return classifier_macs(config, config.audio.num_tokens, config.video_tokens)


def decoded_tokens(config: Config, tokens: int, visible: int) -> int:
    """How many of the masked tokens are decoded: `model.decoded_fraction` of them, at least one."""
    return max(1, round(config.model.decoded_fraction * (tokens - visible)))


def mavil_baseline(config: Config) -> Config:
    """MAViL as its paper has it, with the run's clips and network: what savings are measured against.

    The mask ratio is 0.8 throughout, whatever the run's; all masked tokens are decoded with self-attention;
    encoders have class tokens and see two views.
    """
    replace = dataclasses.replace
    return replace(
        config,
        diffusion=replace(config.diffusion, enabled=False, target='x0', conditioning='none'),
        model=replace(
            config.model, audio_decoder='self', video_decoder='self', decoded_fraction=1.0, class_token=True
        ),
        masking=replace(
            config.masking, curriculum='none', end_ratio=MAVIL_RATIO, token_multiple=1, contrast_power=0.0
        ),
        loss=replace(config.loss, second_view=True, inter_both_views=False),
        batch=replace(config.batch, rule='fixed', sizes=''),
    )


def _decoder(config: Config, kind: str, decoded: int, memory: int) -> int:
    model = config.model
    width, depth = model.decoder_width, model.decoder_layers
    branches = {'self': 2, 'cross': 2, 'cross_self': 3}[kind]
    conditioning = {
        'none': 0,
        'add': 2 * width**2,
        'adaln': 2 * width**2 + depth * branches * 3 * width**2,
    }[config.diffusion.conditioning]
    if kind == 'self':
        return _stack(depth, width, memory + decoded) + conditioning
    attention = _attention(width, decoded, memory)
    if kind == 'cross_self':
        attention += _attention(width, decoded, decoded)
    return depth * (attention + _mlp(width, decoded)) + conditioning


def _decoder_ends(config: Config, decoded: int, memory: int, patch_dim: int) -> int:
    width = config.model.decoder_width
    noisy_patches = decoded * patch_dim * width if config.diffusion.enabled else 0
    target_dim = config.model.vit.width if config.objective == 'stage2' else patch_dim
    return memory * config.model.vit.width * width + noisy_patches + decoded * width * target_dim


def _stack(depth: int, width: int, tokens: int) -> int:
    return depth * (_attention(width, tokens, tokens) + _mlp(width, tokens))


def _attention(width: int, queries: int, memory: int) -> int:
    projections = 2 * width**2 * (queries + memory)
    return projections + 2 * queries * memory * width


def _mlp(width: int, tokens: int) -> int:
    return 8 * tokens * width**2
