"""Trains a classifier on labels: a pretrained network (--config.init=RUN), or one from scratch.

python main.py --config=configs/finetune.py:esc10 --config.data.path=DIR --config.init=RUN
python main.py --config=configs/finetune.py:spoken_digit --config.data.path=DIR --config.finetune.probe=linear
python main.py --config=configs/finetune.py:audioset20k --plan

Network and front end are those of the run; --config.audio.front_end=audiomae_esc50 takes another.
DIR is written by `diffmavil prepare`.
"""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from diffmavil_jax.configs import common


def get_config(variant: str = 'help') -> ConfigDict:
    """The config of a variant; `help` lists them."""
    return common.build('finetune', variant, lambda config: None, __doc__ or '', VARIANTS)


def _audio(config: ConfigDict, seconds: float, epochs: int, clips: int, batch: int) -> None:
    """Sound of so many seconds, for some epochs over so many clips."""
    config.objective = 'classification'
    config.data.update(source='tfds', seconds=seconds, threads=2)
    # 10 ms a frame, rounded up as AudioMAE has it: 1024 for 10 s, 512 for 5 s, 128 for 1 s.
    config.audio.update(front_end='audiomae', num_frames=-(-round(100 * seconds) // 128) * 128)
    config.finetune.update(modality='audio')
    samples = epochs * clips
    config.train.update(samples=samples, log_every_samples=max(1, samples // 20))
    config.batch.update(size=batch, max_size=batch)
    config.optimizer.update(warmup_samples=samples // 10, weight_decay=0.05, b2=0.999)
    config.evaluation.update(every_samples=max(1, samples // 10))
    config.checkpoint.update(every_samples=max(1, samples // 5))


def _both(config: ConfigDict) -> None:
    """Sound and pictures, as MAViL's."""
    config.finetune.update(modality='both')
    config.data.update(frames=8, frame_size=224, video_seconds=4.0, threads=16)
    config.augmentation.update(random_start=True, crop_min_area=0.5, flip=0.5)


def _masked_and_rolled(config: ConfigDict, frames: int, mel_bins: int) -> None:
    """AudioMAE's SpecAugment, with stripes of up to so many frames and mel bins, and its roll with a gain."""
    config.finetune.update(spec_augment_time=frames, spec_augment_frequency=mel_bins)
    config.finetune.spec_augment_fill = 'zero'
    config.augmentation.update(roll=True, gain=True)


def esc50(config: ConfigDict) -> None:
    """ESC-50, audio, five folds: `diffmavil prepare --source=esc50`; AudioMAE's recipe."""
    _audio(config, seconds=5.0, epochs=60, clips=1_600, batch=64)
    config.optimizer.update(learning_rate=2.5e-4)
    config.finetune.update(folds='fold1,fold2,fold3,fold4,fold5', validation_fraction=0.0, mixup_rate=0.5)
    _masked_and_rolled(config, 96, 24)


def esc10(config: ConfigDict) -> None:
    """ESC-10, audio, five folds: `diffmavil prepare --source=esc10`."""
    _audio(config, seconds=5.0, epochs=60, clips=320, batch=32)
    config.optimizer.update(learning_rate=2.5e-4)
    config.finetune.update(folds='fold1,fold2,fold3,fold4,fold5', validation_fraction=0.0, mixup_rate=0.5)
    _masked_and_rolled(config, 96, 24)


def speech_commands(config: ConfigDict) -> None:
    """Speech Commands v2, 35 words, audio: `diffmavil prepare --source=speech_commands`."""
    _audio(config, seconds=1.0, epochs=10, clips=84_843, batch=256)
    config.data.eval_split = 'test'
    config.optimizer.update(learning_rate=1e-3)
    config.finetune.update(mixup_rate=0.5, loss='sigmoid')


def spoken_digit(config: ConfigDict) -> None:
    """Free spoken digits, audio: `diffmavil prepare --source=spoken_digit`."""
    _audio(config, seconds=1.0, epochs=20, clips=2_700, batch=64)
    config.data.eval_split = 'test'
    config.optimizer.update(learning_rate=5e-4)
    config.finetune.update(mixup_rate=0.5)


def audioset20k(config: ConfigDict) -> None:
    """AudioSet-20K, sound and pictures: `diffmavil prepare --source=audioset`; not yet measured."""
    _audio(config, seconds=10.0, epochs=60, clips=20_550, batch=32)
    _both(config)
    config.data.update(train_split='balanced_train', eval_split='eval')
    config.optimizer.update(learning_rate=1.25e-4)
    config.finetune.update(mixup_rate=0.5)
    _masked_and_rolled(config, 192, 48)


def audioset2m(config: ConfigDict) -> None:
    """AudioSet-2M, sound and pictures, drawn by class; not yet measured."""
    _audio(config, seconds=10.0, epochs=100, clips=200_000, batch=256)
    _both(config)
    config.data.update(train_split='balanced_train,unbalanced_train', eval_split='eval')
    config.optimizer.update(learning_rate=2e-4)
    config.finetune.update(mixup_rate=0.5, class_balanced=True)
    _masked_and_rolled(config, 192, 48)


def vggsound(config: ConfigDict) -> None:
    """VGGSound, sound and pictures: `diffmavil prepare --source=vggsound`; not yet measured."""
    _audio(config, seconds=10.0, epochs=60, clips=180_000, batch=256)
    _both(config)
    config.data.update(train_split='train', eval_split='test')
    config.optimizer.update(learning_rate=2e-4)
    config.finetune.update(mixup_rate=0.5)
    _masked_and_rolled(config, 192, 48)


def folder(config: ConfigDict) -> None:
    """Your own media, a sub-folder a class or a CSV with labels: --config.data.path=DIR."""
    _audio(config, seconds=2.0, epochs=60, clips=300, batch=16)
    config.data.update(source='folder', frames=8, frame_size=64)
    config.finetune.update(modality='both')
    config.optimizer.update(learning_rate=5e-4)


VARIANTS: dict[str, Callable[[ConfigDict], None]] = {
    'esc50': esc50,
    'esc10': esc10,
    'speech_commands': speech_commands,
    'spoken_digit': spoken_digit,
    'audioset20k': audioset20k,
    'audioset2m': audioset2m,
    'vggsound': vggsound,
    'folder': folder,
}
