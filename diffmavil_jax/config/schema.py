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
from typing import Annotated, Any, Literal

from diffmavil_jax.config import renamed, tree
from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.constraints import Problem, must
from diffmavil_jax.config.network import (
    ComputeConfig,
    DiffusionConfig,
    LossConfig,
    MaskingConfig,
    ModelConfig,
)
from diffmavil_jax.config.training import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)

Seed = Annotated[int, must('from 0 to 2**31 - 1', lambda seed: 0 <= seed < 2**31)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run. `from_dict` builds one from flags."""

    name: str = 'diffmavil'
    seed: Seed = 0
    objective: Literal['pretraining', 'stage2', 'classification'] = 'pretraining'
    # What this run starts from: the encoders (and, to pretrain, decoders) of a run, or the directory of an
    # import or export, whose missing parts begin new.
    init: str = ''
    teacher: str = ''  # of `stage2`: the run whose tokens the student predicts (MAViL, stage 2)
    data: DataConfig = DataConfig()
    audio: AudioConfig = AudioConfig()
    video: VideoConfig = VideoConfig()
    model: ModelConfig = ModelConfig()
    compute: ComputeConfig = ComputeConfig()
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
        tree.check(self, 'config')

    def problems(self) -> Iterator[Problem]:
        """What contradicts what in other sections."""
        target = self.diffusion.target
        stage2 = self.objective == 'stage2'
        if bool(self.teacher) != stage2:
            yield 'teacher', self.teacher, 'the workdir of a run with objective=stage2, empty with others'
        if stage2 and target != 'x0':
            yield 'diffusion.target', target, 'x0 with objective=stage2: tokens are predicted, not patches'
        for field, count, patch in (
            ('frame_size', self.data.frame_size, 'patch'),
            ('frames', self.data.frames, 'patch_frames'),
        ):
            if count % getattr(self.video, patch):
                allowed = f'a multiple of video.{patch} ({getattr(self.video, patch)})'
                yield f'data.{field}', count, allowed
        if self.loss.normalize_targets and target != 'x0':
            allowed = f'false with diffusion.target={target}; only x0 can be normalised'
            yield 'loss.normalize_targets', True, allowed
        stretches = self.masking.stretches
        if self.batch.rule == 'listed' and len(self.batch.sizes) != stretches:
            yield 'batch.sizes', self.batch.sizes, f'{stretches} sizes, one for each mask ratio'
        if self.finetune.scratch and not self.init:
            yield 'finetune.scratch', True, 'false without config.init, which says what network is meant'
        warmup, samples = self.optimizer.warmup_samples, self.train.samples
        if warmup > samples:
            yield 'optimizer.warmup_samples', warmup, f'at most train.samples ({samples})'
        clips, there = self.evaluation.retrieval_clips, self.data.eval_clips
        if self.data.source == 'generated' and clips > there:
            yield 'evaluation.retrieval_clips', clips, f'at most data.eval_clips ({there})'

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
    return tree.field_type(Config, path)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dictionaries of JSON types."""
    return dataclasses.asdict(config)


def to_flags(config: Config) -> dict[str, Any]:
    """As `to_dict`, but with lists as flags take them: separated by commas."""

    def flat(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: flat(f'{name}.{key}', part) for key, part in value.items()}
        return tree.spelled(value) if field_type(name).endswith('...]') else value

    return flat('config', to_dict(config))


def from_dict(values: Mapping[str, Any]) -> Config:
    """Builds a Config from nested mappings.

    Raises:
        ConfigError: for an unknown field, a value of a wrong type, or one that is not allowed.
    """
    return tree.build(Config, renamed.with_new_names(values), 'config')
