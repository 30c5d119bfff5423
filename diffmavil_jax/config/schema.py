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
from collections.abc import Iterator, Mapping
from typing import Any

from diffmavil_jax.config import tree as config_tree
from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.constraints import Problem, one_of
from diffmavil_jax.config.network import DiffusionConfig, LossConfig, MaskingConfig, ModelConfig
from diffmavil_jax.config.training import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)
from diffmavil_jax.config.tree import ConfigError

OBJECTIVES = ('pretraining', 'stage2', 'classification')


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
        yield from one_of('objective', self.objective, OBJECTIVES)
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
