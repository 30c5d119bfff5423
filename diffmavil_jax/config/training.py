"""How a run is trained, checkpointed, evaluated and spread over devices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from diffmavil_jax.config.clips import split_list
from diffmavil_jax.config.constraints import Problem, at_least, between, one_of


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
        yield from one_of('rule', self.rule, ('fixed', 'visible_tokens', 'macs', 'listed'))
        yield from one_of('lr_scaling', self.lr_scaling, ('none', 'sqrt', 'linear'))
        yield from at_least('multiple', self.multiple, 1)
        yield from at_least('parts', self.parts, 1)
        if self.multiple > 0 and (self.size < 1 or self.size % self.multiple):
            yield 'size', self.size, f'a positive multiple of batch.multiple ({self.multiple})'
        yield from at_least('max_size', self.max_size, self.size)
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
            yield from at_least(field, getattr(self, field), 0)
        yield from between('b1', self.b1, 0, 1)
        yield from between('b2', self.b2, 0, 1)
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
        yield from at_least('samples', self.samples, 1)
        yield from at_least('log_every_samples', self.log_every_samples, 1)
        yield from at_least('max_nonfinite_steps', self.max_nonfinite_steps, 1)
        yield from at_least('stuck_minutes', self.stuck_minutes, 0)
        yield from at_least('stuck_pause_minutes', self.stuck_pause_minutes, 0)
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
        yield from at_least('every_samples', self.every_samples, 1)
        yield from at_least('keep_latest', self.keep_latest, 1)
        yield from at_least('keep_best', self.keep_best, 0)


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
            yield from at_least(field, getattr(self, field), 1)
        yield from at_least('retrieval_clips', self.retrieval_clips, 2)
        yield from at_least('probe_train_clips', self.probe_train_clips, 0)
        yield from at_least('probe_eval_clips', self.probe_eval_clips, 0)
        yield from between('mask_ratio', self.mask_ratio, 0, 1)


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
        yield from one_of('modality', self.modality, ('audio', 'video', 'both'))
        yield from one_of('probe', self.probe, ('none', 'linear', 'attentive'))
        yield from one_of('loss', self.loss, ('auto', 'softmax', 'sigmoid'))
        yield from one_of('positions', self.positions, ('extend', 'interpolate'))
        yield from one_of('select', self.select, ('last', 'best'))
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
            yield from at_least(field, getattr(self, field), 0)
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
        yield from at_least('processes', self.processes, 0)
        yield from at_least('heartbeat_s', self.heartbeat_s, 1)
        if self.coordinator and not re.fullmatch(r'.+:\d+', self.coordinator):
            yield 'coordinator', self.coordinator, 'HOST:PORT of process 0'
        if self.coordinator and self.processes < 1:
            yield 'processes', self.processes, 'the number of processes, with parallel.coordinator'
        if self.coordinator and not 0 <= self.process < self.processes:
            yield 'process', self.process, f'from 0 to {self.processes - 1}, with parallel.coordinator'
