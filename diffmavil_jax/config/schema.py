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
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from diffmavil_jax.config import clips, network, renamed, rules, training, tree
from diffmavil_jax.config.augmentation import AugmentationConfig
from diffmavil_jax.config.compute import ComputeConfig
from diffmavil_jax.config.constraints import must

Seed = Annotated[int, must('from 0 to 2**31 - 1', lambda seed: 0 <= seed < 2**31)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run. `from_dict` builds one from flags."""

    name: str = 'diffmavil'
    seed: Seed = 0
    objective: Literal['pretraining', 'stage2', 'classification'] = 'pretraining'
    # The run whose encoders (and, in pretraining, decoders) this one starts from, or the directory of an
    # import or export. Parts that it lacks start from random values.
    init: str = ''
    teacher: str = ''  # of `stage2`: the run whose tokens the student predicts (MAViL, stage 2)
    data: clips.DataConfig = clips.DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    audio: clips.AudioConfig = clips.AudioConfig()
    video: clips.VideoConfig = clips.VideoConfig()
    model: network.ModelConfig = network.ModelConfig()
    compute: ComputeConfig = ComputeConfig()
    diffusion: network.DiffusionConfig = network.DiffusionConfig()
    masking: network.MaskingConfig = network.MaskingConfig()
    batch: training.BatchConfig = training.BatchConfig()
    loss: network.LossConfig = network.LossConfig()
    optimizer: training.OptimizerConfig = training.OptimizerConfig()
    train: training.TrainConfig = training.TrainConfig()
    checkpoint: training.CheckpointConfig = training.CheckpointConfig()
    evaluation: training.EvaluationConfig = training.EvaluationConfig()
    finetune: training.FinetuneConfig = training.FinetuneConfig()
    parallel: training.ParallelConfig = training.ParallelConfig()

    def __post_init__(self) -> None:
        tree.check(self, 'config')
        for field, allowed in rules.contradictions(self):
            raise tree.refusal(f'config.{field}', operator.attrgetter(field)(self), allowed)

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
