"""What a clip is, and where clips come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

from diffmavil_jax.config.constraints import VERBATIM, Count, NotNegative, Ratio, Share, Whole, must, one_of

MODALITIES: tuple[str, ...] = ('audio', 'video')


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How a log-mel spectrogram is normalised: (x - mean) / (divisor * std).

    `pad` says on which side of the normalisation a short clip is padded with zeros.
    """

    mean: float
    std: float
    divisor: float
    pad: Literal['before_normalization', 'after_normalization'] = 'before_normalization'

    @property
    def of_zero(self) -> float:
        """What a log-mel of 0 becomes."""
        return -self.mean / (self.divisor * self.std)


FRONT_ENDS: Mapping[str, FrontEnd] = {
    'generated': FrontEnd(-7.748, 3.681, 1.0),  # measured on 256 clips of the generated world, 64 bins
    'audiomae': FrontEnd(-4.2677393, 4.5689974, 2.0),
    'audiomae_esc50': FrontEnd(-6.6268077, 5.358466, 2.0),
    'audiomae_speech_commands': FrontEnd(-6.845978, 5.5654526, 2.0),
    'cavmae': FrontEnd(-5.081, 4.4849, 1.0),
}

FrontEndName = Annotated[str, one_of(lambda: FRONT_ENDS)]
Splits = Annotated[tuple[str, ...], must('at least one split', lambda splits: len(splits) > 0)]
Weights = Annotated[
    tuple[float, ...],
    must('positive numbers separated by commas, or empty', lambda ws: all(0 < w < math.inf for w in ws)),
]
Deviations = Annotated[tuple[float, float, float], must('three positive numbers', lambda std: min(std) > 0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and what one looks like on the wire."""

    source: Literal['generated', 'folder', 'tfds'] = 'generated'
    path: Annotated[tuple[str, ...], VERBATIM] = ()  # a folder, or prepared datasets
    seconds: Annotated[float, must('from 0.2 to 3600', lambda value: 0.2 <= value <= 3_600)] = 2.0
    sample_rate: Annotated[int, must('a number of at least 1000', lambda rate: rate >= 1_000)] = 16_000  # Hz
    frames: Count = 8
    # How long the pictures last, frames / video_seconds of them a second; 0: as long as the sound. Shorter
    # ones are from a random stretch of the sound in training, and from its middle in evaluation.
    video_seconds: NotNegative = 0.0
    frame_size: Count = 48  # pixels
    # The generated world: which factors sound and picture share, and how many clips there are.
    difficulty: Literal['easy', 'medium', 'hard'] = 'easy'
    train_clips: Count = 1_000_000
    eval_clips: Count = 4_096
    # A folder: the share held out where no CSV names splits, and the share of clips that may be unusable.
    eval_fraction: Ratio = 0.1
    max_bad_fraction: Share = 0.1
    # Prepared datasets (`tfds`): one weight for each path; without weights every clip weighs the same.
    weights: Weights = ()
    # Prepared datasets, one of which may be called `generated`: the generated world. With `mask`, a clip may
    # lack sound or pictures: silence and black frames replace them, and no loss is computed on these.
    missing_modality: Literal['refuse', 'mask'] = 'refuse'
    # Splits or parts of them, such as train[:90%]; each dataset has at least one of them.
    train_split: Splits = ('train',)
    eval_split: tuple[str, ...] = ()  # empty: validation, test or eval, the first that a dataset has
    cache_gb: NotNegative = 1.0  # of decoded clips of a folder, kept in memory by each reading process
    threads: Count = 2  # reading threads in each reading process
    workers: Whole = 0  # reading processes; 0: the training process reads
    prefetch_batches: Count = 2

    @property
    def folder(self) -> str:
        """The one path of a folder, whose name may have commas."""
        return ','.join(self.path)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The paths of prepared datasets."""
        return tuple(path.strip() for path in self.path if path.strip())

    @property
    def video_span(self) -> float:
        """How long the pictures last, in seconds."""
        return self.video_seconds or self.seconds

    @property
    def pictures(self) -> str:
        """Those of a clip in words, such as `8 pictures`, or `8 pictures of 4 s` of a longer clip."""
        of_part = f' of {self.video_span:g} s' if self.video_span < self.seconds else ''
        return f'{self.frames} picture{"s" if self.frames > 1 else ""}{of_part}'

    @property
    def num_samples(self) -> int:
        """Length of a waveform in samples."""
        return round(self.seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The audio front end: Kaldi log-mel, its normalisation and its patches."""

    front_end: FrontEndName = 'generated'
    num_mel_bins: int = 128
    num_frames: int = 192  # 10 ms each; longer clips are cut, shorter ones padded
    patch: Count = 16

    @property
    def normalization(self) -> FrontEnd:
        return FRONT_ENDS[self.front_end]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along (time, frequency); tokens are time-major."""
        return self.num_frames // self.patch, self.num_mel_bins // self.patch

    @property
    def num_tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def patch_dim(self) -> int:
        return self.patch**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """The video front end: pixel normalisation (ImageNet) and tubelets."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: Deviations = (0.229, 0.224, 0.225)
    patch: Count = 16
    patch_frames: Count = 2

    @property
    def patch_dim(self) -> int:
        return self.patch_frames * self.patch**2 * 3
