"""The configuration schema: frozen dataclasses, their defaults, and their validation.

This is the only place that holds defaults. `configs/` changes some of them for a
purpose; flags change them for a run; `from_dict` turns the result into the dataclasses
that the code receives. Nothing here imports JAX, so that a plan or an error costs
milliseconds.

Where a default is a guess, because the abstract of DiffMAViL (Nunez et al. 2023) does
not state it, the comment says so.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from diffmavil_jax.config import tree as config_tree
from diffmavil_jax.config.tree import ConfigError

Problem = tuple[str, Any, str]  # field, value, what is allowed


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

OBJECTIVES = ('pretraining', 'stage2', 'classification')
SOURCES = ('generated', 'folder', 'tfds')
DIFFICULTIES = ('easy', 'medium', 'hard')


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a list that is separated by commas, such as `data.path` of prepared datasets."""
    return tuple(part.strip() for part in text.split(',') if part.strip())


def _one_of(field: str, value: Any, allowed: typing.Collection[Any]) -> Iterator[Problem]:
    if value not in allowed:
        yield field, value, 'one of ' + ', '.join(repr(a) for a in allowed)


def _at_least(field: str, value: float, low: float) -> Iterator[Problem]:
    if not (math.isfinite(value) and value >= low):
        yield field, value, f'a number of at least {low}'


def _between(field: str, value: float, low: float, high: float) -> Iterator[Problem]:
    if not low < value < high:
        yield field, value, f'a number between {low} and {high}, both excluded'


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
        yield from _one_of('source', self.source, SOURCES)
        yield from _one_of('missing_modality', self.missing_modality, ('refuse', 'mask'))
        yield from _at_least('workers', self.workers, 0)
        yield from _one_of('difficulty', self.difficulty, DIFFICULTIES)
        for field in ('frames', 'frame_size', 'train_clips', 'eval_clips', 'threads', 'prefetch_batches'):
            yield from _at_least(field, getattr(self, field), 1)
        yield from _at_least('sample_rate', self.sample_rate, 1_000)
        yield from _at_least('cache_gb', self.cache_gb, 0)
        if not 0.2 <= self.seconds <= 3_600:
            yield 'seconds', self.seconds, 'from 0.2 to 3600'
        yield from _between('eval_fraction', self.eval_fraction, 0, 1)
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
        yield from _one_of('front_end', self.front_end, tuple(FRONT_ENDS))
        yield from _at_least('patch', self.patch, 1)
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
        yield from _at_least('patch', self.patch, 1)
        yield from _at_least('patch_frames', self.patch_frames, 1)
        if min(self.std) <= 0:
            yield 'std', self.std, 'three positive numbers'

    @property
    def patch_dim(self) -> int:
        return self.patch_frames * self.patch**2 * 3


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
        yield from _one_of('size', self.size, tuple(VIT_SIZES))
        yield from _one_of('positions', self.positions, ('sincos', 'stored'))
        yield from _one_of('dtype', self.dtype, ('float32', 'bfloat16'))
        yield from _one_of('attention', self.attention, ('auto', 'xla', 'cudnn'))
        if self.attention == 'cudnn' and self.dtype != 'bfloat16':
            yield 'attention', self.attention, f'xla with dtype={self.dtype}: cuDNN has no attention in it'
        for field in ('fusion_layers', 'decoder_layers', 'decoder_heads', 'scan_unroll'):
            yield from _at_least(field, getattr(self, field), 1)
        if self.decoder_heads > 0 and (self.decoder_width < 1 or self.decoder_width % self.decoder_heads):
            yield (
                'decoder_width',
                self.decoder_width,
                f'a positive multiple of decoder_heads ({self.decoder_heads})',
            )
        if self.decoder_width % 16:
            yield 'decoder_width', self.decoder_width, 'a multiple of 16: positions share it among three axes'
        for field in ('audio_decoder', 'video_decoder'):
            yield from _one_of(field, getattr(self, field), ('self', 'cross', 'cross_self'))
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
        yield from _one_of('schedule', self.schedule, ('linear', 'cosine'))
        yield from _one_of('target', self.target, ('x0', 'eps', 'v'))
        yield from _one_of('conditioning', self.conditioning, ('none', 'add', 'adaln'))
        yield from _at_least('timesteps', self.timesteps, 1)
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
        yield from _one_of('curriculum', self.curriculum, ('none', 'linear', 'cosine'))
        yield from _between('start_ratio', self.start_ratio, 0, 1)
        yield from _between('end_ratio', self.end_ratio, 0, 1)
        yield from _at_least('buckets', self.buckets, 1)
        yield from _at_least('token_multiple', self.token_multiple, 1)
        if not 0 <= self.contrast_power <= 8:
            yield 'contrast_power', self.contrast_power, 'a number from 0 to 8'

    @property
    def stretches(self) -> int:
        """Of training, each with its own ratio."""
        return 1 if self.curriculum == 'none' else self.buckets


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The batch at the end ratio, and how it adapts while clips are cheaper.

    `visible_tokens` keeps batch x visible tokens constant, `macs` keeps the
    multiply-accumulates of a step constant. Which of them the paper used is not stated
    in the abstract. `listed` takes `sizes`, such as those that `main.py --fit_batch` finds
    for a memory.
    """

    size: int = 512
    rule: str = 'visible_tokens'
    sizes: str = ''  # of the buckets, in order, separated by commas
    max_size: int = 1024
    multiple: int = 8
    lr_scaling: str = 'sqrt'  # how the learning rate follows a batch that differs from size
    # Gradients are added up over so many parts of a batch, for machines that can't hold it. InfoNCE
    # then contrasts within a part: this saves memory, and gives no negatives.
    parts: int = 1

    def problems(self) -> Iterator[Problem]:
        yield from _one_of('rule', self.rule, ('fixed', 'visible_tokens', 'macs', 'listed'))
        yield from _one_of('lr_scaling', self.lr_scaling, ('none', 'sqrt', 'linear'))
        yield from _at_least('multiple', self.multiple, 1)
        yield from _at_least('parts', self.parts, 1)
        if self.multiple > 0 and (self.size < 1 or self.size % self.multiple):
            yield 'size', self.size, f'a positive multiple of batch.multiple ({self.multiple})'
        yield from _at_least('max_size', self.max_size, self.size)
        yield from self._sizes_problems()

    def _sizes_problems(self) -> Iterator[Problem]:
        parts = split_list(self.sizes)
        if not all(part.isdigit() and int(part) for part in parts):
            yield 'sizes', self.sizes, 'positive whole numbers separated by commas, or empty'
        if bool(parts) != (self.rule == 'listed'):
            yield (
                'sizes',
                self.sizes,
                f'one for each bucket with rule=listed, empty with others ({self.rule})',
            )

    @property
    def listed(self) -> tuple[int, ...]:
        """The sizes that are given."""
        return tuple(int(part) for part in split_list(self.sizes))


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
            yield from _at_least(field, getattr(self, field), 0)
        for field in ('inter_temperature', 'intra_temperature'):
            yield from _at_least(field, getattr(self, field), 1e-4)
        if self.inter_both_views and not self.second_view:
            yield 'inter_both_views', True, 'false without second_view'


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine, both in samples seen."""

    learning_rate: float = 4e-4  # the peak at batch.size
    warmup_samples: int = 0
    final_lr_fraction: float = 0.0
    weight_decay: float = 1e-5
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8  # added to the root of the second moment
    clip_norm: float = 0.0  # 0: no clipping

    def problems(self) -> Iterator[Problem]:
        for field in ('learning_rate', 'warmup_samples', 'final_lr_fraction', 'weight_decay', 'clip_norm'):
            yield from _at_least(field, getattr(self, field), 0)
        yield from _between('b1', self.b1, 0, 1)
        yield from _between('b2', self.b2, 0, 1)
        if not self.epsilon > 0:
            yield 'epsilon', self.epsilon, 'greater than 0'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how often it speaks, and what stops it."""

    samples: int = 40_000_000
    log_every_samples: int = 10_000
    max_nonfinite_steps: int = 3  # in a row
    stuck_minutes: float = 30.0  # that a step may take before the process ends with an error; 0: no limit
    stuck_pause_minutes: float = 180.0  # the same for an evaluation, a save or the compiler; 0: no limit

    def problems(self) -> Iterator[Problem]:
        yield from _at_least('samples', self.samples, 1)
        yield from _at_least('log_every_samples', self.log_every_samples, 1)
        yield from _at_least('max_nonfinite_steps', self.max_nonfinite_steps, 1)
        yield from _at_least('stuck_minutes', self.stuck_minutes, 0)
        yield from _at_least('stuck_pause_minutes', self.stuck_pause_minutes, 0)
        if self.samples >= 2**31:
            yield 'samples', self.samples, 'below 2**31: samples seen are counted in an int32 on the device'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Which checkpoints are written and kept."""

    every_minutes: float = 15.0
    every_samples: int = 1_000_000
    keep_latest: int = 2
    keep_best: int = 1

    def problems(self) -> Iterator[Problem]:
        if not self.every_minutes > 0:
            yield 'every_minutes', self.every_minutes, 'a positive number'
        yield from _at_least('every_samples', self.every_samples, 1)
        yield from _at_least('keep_latest', self.keep_latest, 1)
        yield from _at_least('keep_best', self.keep_best, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on held-out clips, and how often."""

    every_samples: int = 2_000_000
    batch_size: int = 64
    retrieval_clips: int = 256
    reconstruction_clips: int = 128
    probe_train_clips: int = 2_048
    probe_eval_clips: int = 1_024
    mask_ratio: float = 0.8

    def problems(self) -> Iterator[Problem]:
        for field in ('every_samples', 'batch_size', 'reconstruction_clips'):
            yield from _at_least(field, getattr(self, field), 1)
        yield from _at_least('retrieval_clips', self.retrieval_clips, 2)
        yield from _at_least('probe_train_clips', self.probe_train_clips, 0)
        yield from _at_least('probe_eval_clips', self.probe_eval_clips, 0)
        yield from _between('mask_ratio', self.mask_ratio, 0, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Training on labels, with `objective=classification`.

    Defaults are AudioMAE's on AudioSet (Huang et al. 2022b, table 6) where it has one.
    """

    modality: str = 'both'
    scratch: bool = False  # of the run that `init` names, only network and front end are taken
    # `none`: all parameters are trained. `linear`, `attentive`: the encoders are frozen, and a linear
    # layer on their mean, or one on a learnt query's attention to their tokens, is trained.
    probe: str = 'none'
    loss: str = 'auto'  # auto: sigmoid where a clip may have several labels, else softmax
    label_smoothing: float = 0.0
    layer_decay: float = 0.75  # of the learning rate, for each layer towards the input
    drop_path: float = 0.1  # of the last layer; falls to 0 at the first
    average_decay: float = 0.0  # of the exponential moving average of the parameters; 0: none
    # Shares of the tokens that are dropped: whole columns and rows of the spectrogram; any of the video.
    time_mask: float = 0.2
    frequency_mask: float = 0.2
    video_mask: float = 0.2
    # The widest stripe that is blanked in the spectrogram, in frames and in mel bins.
    spec_augment_time: int = 0
    spec_augment_frequency: int = 0
    mixup_rate: float = 0.0  # share of the clips that are mixed with another
    mixup_alpha: float = 10.0  # of the Beta distribution
    roll: bool = False  # sound is shifted in time, around its ends
    gain_db: float = 0.0  # sound becomes louder or softer by up to this
    class_balanced: bool = False  # clips of rare classes are drawn more often
    # Of a length other than that of `init`, also to pretrain: `extend` (stored ones: trim) or `interpolate`.
    positions: str = 'extend'
    # Splits that are held out in turn, one run each, such as fold1,fold2; they replace data.eval_split.
    folds: str = ''
    validation_fraction: float = 0.1  # of the training clips of each class
    select: str = 'last'  # the parameters that are tested: `last`, or `best` on the validation clips
    clips_per_class: int = 0  # trained on; 0: all

    def problems(self) -> Iterator[Problem]:
        yield from _one_of('modality', self.modality, ('audio', 'video', 'both'))
        yield from _one_of('probe', self.probe, ('none', 'linear', 'attentive'))
        yield from _one_of('loss', self.loss, ('auto', 'softmax', 'sigmoid'))
        yield from _one_of('positions', self.positions, ('extend', 'interpolate'))
        yield from _one_of('select', self.select, ('last', 'best'))
        for field in (
            'label_smoothing',
            'drop_path',
            'average_decay',
            'time_mask',
            'frequency_mask',
            'video_mask',
            'validation_fraction',
        ):
            if not 0 <= getattr(self, field) < 1:
                yield field, getattr(self, field), 'a share from 0 to below 1'
        if not 0 < self.layer_decay <= 1:
            yield 'layer_decay', self.layer_decay, 'a number above 0, up to 1'
        if not 0 <= self.mixup_rate <= 1:
            yield 'mixup_rate', self.mixup_rate, 'a share from 0 to 1'
        if not self.mixup_alpha > 0:
            yield 'mixup_alpha', self.mixup_alpha, 'a positive number'
        for field in ('spec_augment_time', 'spec_augment_frequency', 'gain_db', 'clips_per_class'):
            yield from _at_least(field, getattr(self, field), 0)
        if self.select == 'best' and not self.validation_fraction:
            yield 'select', self.select, "'last' without validation clips (validation_fraction = 0)"
        if len(split_list(self.folds)) == 1:
            yield 'folds', self.folds, 'at least two splits separated by commas, or empty'

    @property
    def modalities(self) -> tuple[str, ...]:
        return ('audio', 'video') if self.modality == 'both' else (self.modality,)

    def kept_lines(self, grid: tuple[int, int]) -> tuple[int, int]:
        """How many columns (time) and rows (frequency) of the audio tokens the masks leave."""
        time, frequency = grid
        return (
            max(1, round(time * (1 - self.time_mask))),
            max(1, round(frequency * (1 - self.frequency_mask))),
        )

    def kept_video(self, tokens: int) -> int:
        """How many video tokens the mask leaves."""
        return max(1, round(tokens * (1 - self.video_mask)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Mesh axes; -1 takes the devices that the others leave. And how the hosts find each other."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    compilation_cache: str = '~/.cache/diffmavil_jax'  # empty: none
    # Without these, a TPU pod, Slurm and MPI are asked. One process alone asks nobody.
    coordinator: str = ''  # host:port of process 0
    processes: int = 0
    process: int = -1
    heartbeat_s: int = 100  # a process that is not heard of for so long is lost, and the others end

    def problems(self) -> Iterator[Problem]:
        sizes = {'data': self.data, 'fsdp': self.fsdp, 'tensor': self.tensor}
        for field, value in sizes.items():
            if value != -1 and value < 1:
                yield field, value, 'a positive number, or -1 for the devices that are left'
        if list(sizes.values()).count(-1) > 1:
            yield 'data', self.data, 'at most one axis of -1 among data, fsdp and tensor'
        yield from _at_least('processes', self.processes, 0)
        yield from _at_least('heartbeat_s', self.heartbeat_s, 1)
        if self.coordinator and not re.fullmatch(r'.+:\d+', self.coordinator):
            yield 'coordinator', self.coordinator, 'HOST:PORT of process 0'
        if self.coordinator and self.processes < 1:
            yield 'processes', self.processes, 'the number of processes, with parallel.coordinator'
        if self.coordinator and not 0 <= self.process < self.processes:
            yield 'process', self.process, f'from 0 to {self.processes - 1}, with parallel.coordinator'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run. `from_dict` builds one from flags."""

    name: str = 'diffmavil'
    seed: int = 0
    objective: str = 'pretraining'
    # What this run starts from: the encoders (and, to pretrain, decoders) of a run, or the directory of an
    # import or export, whose missing parts begin new.
    init: str = ''
    teacher: str = ''  # of `stage2`: the run whose tokens the student predicts (MAViL, stage 2)
    data: DataConfig = DataConfig()
    audio: AudioConfig = AudioConfig()
    video: VideoConfig = VideoConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    masking: MaskingConfig = MaskingConfig()
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    parallel: ParallelConfig = ParallelConfig()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            section = getattr(self, field.name)
            if dataclasses.is_dataclass(section):
                for name, value, allowed in section.problems():  # type: ignore[union-attr]
                    raise ConfigError(f'config.{field.name}.{name} = {value!r}: must be {allowed}.')
        for name, value, allowed in self._cross_field_problems():
            raise ConfigError(f'config.{name} = {value!r}: must be {allowed}.')

    def _cross_field_problems(self) -> Iterator[Problem]:
        yield from _one_of('objective', self.objective, OBJECTIVES)
        if bool(self.teacher) != (self.objective == 'stage2'):
            yield 'teacher', self.teacher, 'the workdir of a run with objective=stage2, empty with others'
        if self.objective == 'stage2' and self.diffusion.target != 'x0':
            target = self.diffusion.target
            yield 'diffusion.target', target, 'x0 with objective=stage2: tokens are predicted, not patches'
        if self.data.frame_size % self.video.patch:
            yield 'data.frame_size', self.data.frame_size, f'a multiple of video.patch ({self.video.patch})'
        if self.data.frames % self.video.patch_frames:
            yield (
                'data.frames',
                self.data.frames,
                f'a multiple of video.patch_frames ({self.video.patch_frames})',
            )
        if self.loss.normalize_targets and self.diffusion.target != 'x0':
            target = self.diffusion.target
            yield (
                'loss.normalize_targets',
                True,
                f'false with diffusion.target={target}; only x0 can be normalised',
            )
        if self.batch.rule == 'listed' and len(self.batch.listed) != self.masking.stretches:
            yield 'batch.sizes', self.batch.sizes, f'{self.masking.stretches} sizes, one for each mask ratio'
        if self.finetune.scratch and not self.init:
            yield 'finetune.scratch', True, 'false without config.init, which says what network is meant'
        if not 0 <= self.seed < 2**31:
            yield 'seed', self.seed, 'from 0 to 2**31 - 1'
        if self.optimizer.warmup_samples > self.train.samples:
            yield (
                'optimizer.warmup_samples',
                self.optimizer.warmup_samples,
                f'at most train.samples ({self.train.samples})',
            )
        if self.data.source == 'generated' and self.evaluation.retrieval_clips > self.data.eval_clips:
            yield (
                'evaluation.retrieval_clips',
                self.evaluation.retrieval_clips,
                f'at most data.eval_clips ({self.data.eval_clips})',
            )

    @property
    def loaded(self) -> str:
        """The run whose parameters this one starts from; empty: its own are new."""
        return '' if self.finetune.scratch else self.init

    @property
    def video_grid(self) -> tuple[int, int, int]:
        """Tubelets along (time, height, width)."""
        side = self.data.frame_size // self.video.patch
        return self.data.frames // self.video.patch_frames, side, side

    @property
    def grids(self) -> dict[str, tuple[int, ...]]:
        """The grid of the tokens of each modality."""
        return {'audio': self.audio.grid, 'video': self.video_grid}

    @property
    def video_tokens(self) -> int:
        return math.prod(self.video_grid)


def field_type(path: str) -> str:
    """The name of the type of a field such as `config.batch.size`.

    Raises:
        ConfigError: where there is no such field.
    """
    return config_tree.field_type(Config, path)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dictionaries of JSON types."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Builds a Config from nested mappings.

    Raises:
        ConfigError: for an unknown field, a value of a wrong type, or one that is not allowed.
    """
    return config_tree.build(Config, values, 'config')
