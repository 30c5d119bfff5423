"""Multiply-accumulates against figures by hand and against XLA's count."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from diffmavil_jax.config import network as config_module
from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.compute import ComputeConfig
from diffmavil_jax.config.network import LossConfig, MaskingConfig, ModelConfig, VitSize
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.training import BatchConfig
from diffmavil_jax.models.pretraining import PretrainingModel, View
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.plan.macs import encoder_macs, macs_per_clip, mavil_baseline

PAPER = Config(
    data=DataConfig(seconds=10.0, frames=8, frame_size=224),
    audio=AudioConfig(front_end='audiomae', num_mel_bins=128, num_frames=1024),
    model=ModelConfig(size='B'),
)


def change(config, **sections):
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in sections.items()},
    )


def at_ratio(config, ratio=0.8):
    visible = [round((1 - ratio) * tokens) for tokens in (config.audio.num_tokens, config.video_tokens)]
    return macs_per_clip(config, *visible)


def test_full_encoders_at_paper_scale():
    assert encoder_macs(768, 12, 512, 256) == pytest.approx(48.5e9, rel=0.01)
    assert encoder_macs(768, 12, 784, 1536) == pytest.approx(79.0e9, rel=0.01)


def test_an_encoder_without_a_class_token_has_a_token_less():
    macs = at_ratio(change(PAPER, model={'class_token': False}))
    tokens, width = 102, 768  # a fifth of 512
    assert macs.audio_encoder == 12 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    assert encoder_macs(width, 12, tokens, 256, 0) == macs.audio_encoder + tokens * 256 * width


def test_one_view_of_mavil_at_paper_scale():
    macs = at_ratio(change(mavil_baseline(PAPER), loss={'second_view': False}))
    assert macs.total == pytest.approx(68.3e9, rel=0.02)
    assert macs.second_view == 0
    parts = (macs.audio_encoder, macs.video_encoder, macs.fusion, macs.audio_decoder, macs.video_decoder)
    for ours, expected in zip(parts, (8.9e9, 13.8e9, 3.9e9, 15.1e9, 24.8e9), strict=True):
        assert ours == pytest.approx(expected, rel=0.03)


def test_a_second_view_passes_the_encoders_once_more():
    macs = at_ratio(change(mavil_baseline(PAPER), loss={'second_view': True}))
    assert macs.total == pytest.approx(91.0e9, rel=0.02)


@pytest.mark.parametrize(
    ('decoders', 'start', 'one_view', 'two_views'),
    [
        (('self', 'self'), 0.8, 24.9, 0.0),
        (('self', 'cross'), 0.8, 35.7, 10.8),
        (('cross', 'cross'), 0.8, 41.9, 17.0),
        (('self', 'self'), 0.9, 32.4, 13.8),
        (('self', 'cross'), 0.9, 42.6, 23.9),
        (('cross', 'cross'), 0.9, 48.4, 29.7),
        (('self', 'self'), 0.95, 36.1, 20.6),
        (('self', 'cross'), 0.95, 46.0, 30.4),
        (('cross', 'cross'), 0.95, 51.6, 36.1),
    ],
)
def test_share_saved_against_mavil(decoders, start, one_view, two_views):
    for second_view, expected in ((False, one_view), (True, two_views)):
        config = change(
            PAPER,
            model={'audio_decoder': decoders[0], 'video_decoder': decoders[1]},
            masking={'curriculum': 'linear', 'start_ratio': start, 'end_ratio': 0.8, 'buckets': 8},
            loss={'second_view': second_view},
        )
        assert 100 * make_plan(config).saved == pytest.approx(expected, abs=1.5)


def test_the_reference_of_what_is_saved_counted_by_hand(monkeypatch):
    sizes = types.MappingProxyType({'two': VitSize(16, 1, 1)})
    monkeypatch.setattr(config_module, 'VIT_SIZES', sizes)
    config = Config(
        data=DataConfig(seconds=1.0, frames=2, frame_size=20),
        audio=AudioConfig(num_mel_bins=8, num_frames=20, patch=4),  # 5 x 2 tokens of 16 values
        video=VideoConfig(patch=10, patch_frames=1),  # 2 x 2 x 2 tokens of 300 values
        model=ModelConfig(
            size='two', class_token=False, fusion_layers=1,
            decoder_width=32, decoder_layers=1, decoder_heads=1,
            audio_decoder='cross', video_decoder='cross', decoded_fraction=0.5,
        ),
        masking=MaskingConfig(curriculum='none', end_ratio=0.5, token_multiple=4, contrast_power=1.0),
        loss=LossConfig(second_view=False),
    )  # fmt: skip

    def block(tokens, width):  # queries, keys, values and what follows; scores and sums; the MLP
        return 4 * tokens * width**2 + 2 * tokens**2 * width + 8 * tokens * width**2

    # Of 10 and 8 tokens 2 and 2 are visible, 8 and 6 masked; each encoder has a class token besides.
    encoders = 2 * (block(3, 16) + block(3, 16) + 16 * (2 * 16 + 2 * 300))  # two views
    decoders = block(3 + 8, 32) + block(3 + 6, 32)
    ends = 2 * 3 * 16 * 32 + 32 * (8 * 16 + 6 * 300)  # latents in, predictions out
    by_hand = encoders + block(6, 16) + decoders + ends
    plan = make_plan(config)
    assert plan.baseline_macs_per_clip == by_hand == 401_280
    assert plan.saved == 1 - plan.macs / (by_hand * plan.total_samples)
    assert '0.8' in plan.baseline and 'class tokens' in plan.baseline and 'both views' in plan.baseline
    # The run's own ratio, views, decoders and class tokens do not change it.
    other = change(
        config, masking={'end_ratio': 0.7}, loss={'second_view': True}, model={'class_token': True}
    )
    assert make_plan(other).baseline_macs_per_clip == by_hand


@pytest.fixture(scope='module')
def wide():
    """Few tokens of a wide network: elementwise work is below a hundredth of the matrix products."""
    sizes = types.MappingProxyType({**config_module.VIT_SIZES, 'wide': VitSize(512, 2, 8)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_module, 'VIT_SIZES', sizes)
        yield Config(
            data=DataConfig(seconds=1.0, frames=4, frame_size=64),  # 2 x 4 x 4 tokens
            audio=AudioConfig(num_mel_bins=64, num_frames=96),  # 6 x 4 tokens
            # Unrolled: XLA counts the body of a loop once.
            model=ModelConfig(
                size='wide',
                fusion_layers=2,
                decoder_width=512,
                decoder_layers=2,
                decoder_heads=8,
            ),
            compute=ComputeConfig(scan_unroll=2),
            masking=MaskingConfig(curriculum='none', end_ratio=0.75),
            batch=BatchConfig(size=8),
        )


def forward_flops(config):
    """XLA's count for one clip: encoders, fusion, decoders, and the second view if the loss has one."""
    (bucket,) = make_plan(config).buckets
    counts = {
        'audio': (config.audio.num_tokens, config.audio.patch_dim, bucket.audio_tokens, bucket.audio_decoded),
        'video': (config.video_tokens, config.video.patch_dim, bucket.video_tokens, bucket.video_decoded),
    }
    diffused = config.diffusion.enabled
    views = {
        modality: View(
            patches=jnp.zeros((1, tokens, values)),
            visible=jnp.zeros((1, visible), jnp.int32),
            decoded=jnp.zeros((1, decoded), jnp.int32),
            noisy=jnp.zeros((1, decoded, values)) if diffused else None,
            timestep=jnp.zeros(1, jnp.int32) if diffused else None,
            second=jnp.zeros((1, visible), jnp.int32) if config.loss.second_view else None,
        )
        for modality, (tokens, values, visible, decoded) in counts.items()
    }
    model = PretrainingModel(config)
    variables = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), views))

    analysis = jax.jit(model.apply).lower(variables, views).compile().cost_analysis()
    return analysis['flops'], bucket.macs_per_clip


@pytest.mark.parametrize(
    ('model', 'diffusion', 'loss'),
    [
        (
            {'audio_decoder': 'self', 'video_decoder': 'cross'},
            {'conditioning': 'adaln'},
            {'second_view': True},
        ),
        (
            {'audio_decoder': 'cross_self', 'video_decoder': 'self'},
            {'enabled': False},
            {'second_view': False},
        ),
        (
            {'audio_decoder': 'cross', 'video_decoder': 'cross', 'decoded_fraction': 0.5},
            {'conditioning': 'add'},
            {'second_view': False},
        ),
    ],
)
def test_the_count_is_that_of_xla(wide, model, diffusion, loss):
    flops, macs = forward_flops(change(wide, model=model, diffusion=diffusion, loss=loss))
    assert flops / 2 == pytest.approx(macs, rel=0.03)
