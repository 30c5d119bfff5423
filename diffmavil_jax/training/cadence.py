"""What is due after a step: a line of metrics, an evaluation, a checkpoint."""

from __future__ import annotations

import dataclasses

from diffmavil_jax.config.training import CheckpointConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often each thing happens, in samples seen (and minutes for checkpoints)."""

    train: TrainConfig
    checkpoint: CheckpointConfig
    evaluate_every_samples: int


@dataclasses.dataclass(frozen=True)
class Due:
    """What has to be done before the next step.

    Attributes:
        log: a line of metrics at its own cadence. An evaluation and a checkpoint write a line, too.
        evaluate: the evaluation of held-out clips.
        save: a checkpoint.
    """

    log: bool
    evaluate: bool
    save: bool

    @property
    def nothing(self) -> bool:
        """Whether the next step may follow at once."""
        return not (self.log or self.evaluate or self.save)


def due_after(before: int, seen: int, total: int, cadence: Cadence) -> Due:
    """What is due after a step; everything is due after the last one.

    Args:
        before: samples seen before the step.
        seen: samples seen after it.
        total: samples of the whole run.
        cadence: how often each thing happens. Something is due in each step that reaches or passes a
            multiple of its number of samples.
    """

    def reached(every: int) -> bool:
        return seen >= total or before // every != seen // every

    return Due(
        log=reached(cadence.train.log_every_samples),
        evaluate=reached(cadence.evaluate_every_samples),
        save=reached(cadence.checkpoint.every_samples),
    )
