"""The variants that DiffMAViL and MAViL share, and what `:help` prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from diffmavil_jax.config.schema import Config, to_flags

Settings = Callable[[ConfigDict], None]


def build(
    method: str,
    variant: str,
    technique: Settings,
    help_text: str,
    variants: Mapping[str, Settings] | None = None,
) -> ConfigDict:
    """The config of one method at the scale of one variant; exits after printing for `help`.

    Raises:
        SystemExit: for `help`, and for a variant that does not exist.
    """
    variants = VARIANTS if variants is None else variants
    if variant == 'help':
        print(help_text.strip() + '\n\nVariants:\n' + describe_variants(variants))
        sys.exit(0)
    if variant not in variants:
        print(
            f'error: no variant {variant!r} of configs/{method}.py; there are: {", ".join(variants)} '
            f'(--config=configs/{method}.py:help describes them)',
            file=sys.stderr,
        )
        sys.exit(2)
    config = ConfigDict(to_flags(Config()))
    config.name = f'{method}_{variant}'
    technique(config)
    variants[variant](config)
    return config


def describe_variants(variants: Mapping[str, Settings]) -> str:
    """One line for each variant."""
    return '\n'.join(
        f'  :{name:15} {(settings.__doc__ or "").splitlines()[0]}' for name, settings in variants.items()
    )


def _small(config: ConfigDict) -> None:
    """A network that trains on two CPU cores."""
    config.data.update(seconds=2.0, frames=8, frame_size=48)
    # 64 mel bins: a patch then spans several partials of a sound, and a clip has half the tokens.
    config.audio.update(front_end='generated', num_mel_bins=64, num_frames=192, patch=16)
    # Small patches that span four frames: an object is two patches wide.
    config.video.update(patch=8, patch_frames=4)
    config.model.update(size='demo', fusion_layers=1, decoder_width=64, decoder_layers=1, decoder_heads=2)
    # The papers weight the contrastive terms 0.1 and 0.01, over 20 epochs of 2 M clips. A run of minutes
    # learns if these terms lead, steps are many and small, and more than a tenth of 120 tokens is visible.
    config.loss.update(inter_weight=1.0, intra_weight=0.5, intra_temperature=0.1)
    config.loss.update(audio_weight=10.0, video_weight=3.0)
    config.masking.update(start_ratio=0.75, end_ratio=0.5, buckets=2)
    config.batch.update(size=32, max_size=48)
    config.optimizer.update(learning_rate=1.5e-3, warmup_samples=1_500, weight_decay=0.05)
    config.evaluation.update(mask_ratio=0.75)


def demo(config: ConfigDict) -> None:
    """The generated world on a CPU (the default); see experiments/results/demo.md."""
    demo_plain(config)
    # Not in the papers; every method gains by it. Visible tokens are where something varies, both views are
    # contrasted, and no token stands for the clip: so more can be hidden, and fewer clips suffice.
    config.masking.update(contrast_power=1.0, start_ratio=0.85, end_ratio=0.7)
    config.loss.inter_both_views = True
    config.model.class_token = False
    config.batch.update(size=24, max_size=36)
    config.optimizer.learning_rate = 3e-3
    config.train.samples = 9_000
    config.optimizer.warmup_samples = 1_100
    config.evaluation.every_samples = config.checkpoint.every_samples = 4_500


def demo_plain(config: ConfigDict) -> None:
    """The demo without what the papers do not have, which the experiments compare."""
    _small(config)
    config.train.update(samples=11_500, log_every_samples=500)
    config.evaluation.update(every_samples=5_750, probe_train_clips=1_024, probe_eval_clips=512)
    config.checkpoint.update(every_minutes=1.0, every_samples=5_750)


def demo_long(config: ConfigDict) -> None:
    """:demo_plain, ten times as long: 35 minutes on two CPU cores."""
    demo_plain(config)
    config.train.update(samples=120_000, log_every_samples=2_000)
    config.evaluation.update(every_samples=20_000, probe_train_clips=2_048, probe_eval_clips=1_024)
    config.checkpoint.update(every_minutes=5.0, every_samples=20_000)


def _augmented(config: ConfigDict) -> None:
    """Another start, rectangle and side each time that a clip of real media is drawn."""
    # Area and flips are those of MAE on pictures and on video; no public code tells MAViL's.
    config.augmentation.update(random_start=True, crop_min_area=0.5, flip=0.5)


def folder(config: ConfigDict) -> None:
    """Your own videos: --config.data.path=DIR; sized for 2 cores and a few hundred clips."""
    _small(config)
    _augmented(config)
    config.augmentation.gain = True  # no roll: pictures are as long as the sound, and would not fit it
    config.data.update(source='folder', frame_size=64)
    config.video.update(patch=16, patch_frames=2)
    config.audio.update(front_end='cavmae')
    config.train.update(samples=20_000, log_every_samples=500)
    config.evaluation.update(every_samples=5_000)
    config.checkpoint.update(every_minutes=2.0, every_samples=10_000)


def _paper(config: ConfigDict) -> None:
    """MAViL's scale: ViT-B, 10 s of sound, 8 frames of 4 s at 224 x 224."""
    config.data.update(source='tfds', seconds=10.0, frames=8, frame_size=224, threads=16)
    config.data.video_seconds = 4.0
    _augmented(config)
    config.augmentation.update(roll=True, gain=True)  # AudioMAE's, in pretraining too
    config.audio.update(front_end='audiomae', num_mel_bins=128, num_frames=1024, patch=16)
    config.video.update(patch=16, patch_frames=2)
    config.model.size = 'B'
    config.compute.dtype = 'bfloat16'
    config.batch.update(size=512, max_size=1024, multiple=256)  # divides over up to 256 chips
    config.optimizer.update(learning_rate=4e-4, weight_decay=1e-5)


def audioset(config: ConfigDict) -> None:
    """AudioSet-2M at the paper's scale, 20 epochs: --config.data.path=DIR, prepared; not yet measured.

    diffmavil prepare --source=audioset ... writes DIR, under the names of the segment CSVs.
    """
    _paper(config)
    config.data.update(train_split='balanced_train,unbalanced_train', eval_split='eval')
    config.train.update(samples=40_000_000, log_every_samples=50_000)
    config.optimizer.update(warmup_samples=8_000_000)


def vggsound(config: ConfigDict) -> None:
    """VGGSound at the paper's scale, 20 epochs: --config.data.path=DIR, prepared; not yet measured.

    diffmavil prepare --source=vggsound ... writes DIR.
    """
    _paper(config)
    config.data.update(train_split='train', eval_split='test')
    config.train.update(samples=3_600_000, log_every_samples=20_000)
    config.optimizer.update(warmup_samples=720_000)


VARIANTS: dict[str, Settings] = {
    'demo': demo,
    'demo_plain': demo_plain,
    'demo_long': demo_long,
    'folder': folder,
    'audioset': audioset,
    'vggsound': vggsound,
}
