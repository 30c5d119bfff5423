"""What a clip is, and where clips come from."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping

from diffmavil_jax.config.constraints import Problem, at_least, between, one_of

MODALITIES: tuple[str, ...] = ('audio', 'video')


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How a log-mel spectrogram is normalised: (x - mean) / (divisor * std).

    `pad` says on which side of the normalisation a short clip is padded with zeros.
    """

    mean: float
    std: float
    divisor: float
    pad: typing.Literal['before_normalization', 'after_normalization'] = 'before_normalization'


FRONT_ENDS: Mapping[str, FrontEnd] = types.MappingProxyType(
    {
        'generated': FrontEnd(-7.748, 3.681, 1.0),  # measured on 256 clips of the generated world, 64 bins
        'audiomae': FrontEnd(-4.2677393, 4.5689974, 2.0),
        'audiomae_esc50': FrontEnd(-6.6268077, 5.358466, 2.0),
        'audiomae_speech_commands': FrontEnd(-6.845978, 5.5654526, 2.0),
        'cavmae': FrontEnd(-5.081, 4.4849, 1.0),
    }
)


SOURCES = ('generated', 'folder', 'tfds')


DIFFICULTIES = ('easy', 'medium', 'hard')


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a list that is separated by commas, such as `data.path` of prepared datasets."""
    return tuple(part.strip() for part in text.split(',') if part.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and what one looks like on the wire."""

    source: str = 'generated'
    path: str = ''
    seconds: float = 2.0
    sample_rate: int = 16_000
    frames: int = 8
    frame_size: int = 48
    # The generated world: which factors sound and picture share, and how many clips there are.
    difficulty: str = 'easy'
    train_clips: int = 1_000_000
    eval_clips: int = 4_096
    # A folder: the share held out where no CSV says it, and how many clips may be unusable.
    eval_fraction: float = 0.1
    max_bad_fraction: float = 0.1
    # Prepared datasets (`tfds`): several paths, and as many weights, are separated by commas. Without
    # weights each clip weighs the same. So are splits, or parts of them such as
    # train[:90%]; of those named each dataset has at least one.
    weights: str = ''
    # Prepared datasets, one of which may be called `generated`: the generated world. With `mask`, one may
    # lack sound or pictures: black and silence stand in, and no loss is taken of what stands in.
    missing_modality: str = 'refuse'
    train_split: str = 'train'
    eval_split: str = ''  # empty: validation, test or eval, the first that a dataset has
    # Decoded clips of a folder kept in memory, in each process that reads, so that a small one is
    # decoded once.
    cache_gb: float = 1.0
    threads: int = 2  # that read, in each process that reads
    workers: int = 0  # processes that read; 0: the one that trains
    prefetch_batches: int = 2

    def problems(self) -> Iterator[Problem]:
        yield from one_of('source', self.source, SOURCES)
        yield from one_of('missing_modality', self.missing_modality, ('refuse', 'mask'))
        yield from at_least('workers', self.workers, 0)
        yield from one_of('difficulty', self.difficulty, DIFFICULTIES)
        for field in ('frames', 'frame_size', 'train_clips', 'eval_clips', 'threads', 'prefetch_batches'):
            yield from at_least(field, getattr(self, field), 1)
        yield from at_least('sample_rate', self.sample_rate, 1_000)
        yield from at_least('cache_gb', self.cache_gb, 0)
        if not 0.2 <= self.seconds <= 3_600:
            yield 'seconds', self.seconds, 'from 0.2 to 3600'
        yield from between('eval_fraction', self.eval_fraction, 0, 1)
        if not 0 <= self.max_bad_fraction <= 1:
            yield 'max_bad_fraction', self.max_bad_fraction, 'a share from 0 to 1'
        yield from self._mixture_problems()

    def _mixture_problems(self) -> Iterator[Problem]:
        try:
            weights = self.mixture_weights
        except ValueError:
            weights = (0.0,)
        if not all(0 < weight < math.inf for weight in weights):
            yield 'weights', self.weights, 'positive numbers separated by commas, or empty'
        if weights and (self.source != 'tfds' or len(weights) != len(split_list(self.path))):
            yield 'weights', self.weights, 'one for each dataset of data.path, with data.source=tfds'
        if not split_list(self.train_split):
            yield 'train_split', self.train_split, 'at least one split'
        shared = set(split_list(self.train_split)) & set(split_list(self.eval_split))
        if shared:
            yield 'eval_split', self.eval_split, f'without {shared.pop()!r}, which is trained on'

    @property
    def mixture_weights(self) -> tuple[float, ...]:
        """The weights of the datasets of `path`; none: each clip weighs the same."""
        return tuple(float(weight) for weight in split_list(self.weights))

    @property
    def num_samples(self) -> int:
        """Length of a waveform in samples."""
        return round(self.seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The audio front end: Kaldi log-mel, its normalisation and its patches."""

    front_end: str = 'generated'
    num_mel_bins: int = 128
    num_frames: int = 192  # 10 ms each; longer clips are cut, shorter ones padded
    patch: int = 16

    def problems(self) -> Iterator[Problem]:
        yield from one_of('front_end', self.front_end, tuple(FRONT_ENDS))
        yield from at_least('patch', self.patch, 1)
        for field in ('num_mel_bins', 'num_frames'):
            if self.patch > 0 and (getattr(self, field) < 1 or getattr(self, field) % self.patch):
                yield field, getattr(self, field), f'a positive multiple of patch ({self.patch})'

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
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    patch: int = 16
    patch_frames: int = 2

    def problems(self) -> Iterator[Problem]:
        yield from at_least('patch', self.patch, 1)
        yield from at_least('patch_frames', self.patch_frames, 1)
        if min(self.std) <= 0:
            yield 'std', self.std, 'three positive numbers'

    @property
    def patch_dim(self) -> int:
        return self.patch_frames * self.patch**2 * 3
