"""Orbax's checkpoint manager as a run needs it: what it keeps, and three habits that it loses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

_WRITE_WITHIN_S = 1_200


def open_manager(
    directory: str | os.PathLike[str], keep_latest: int, keep_best: int, scores: Mapping[int, float]
) -> ocp.CheckpointManager:
    """A manager of checkpoints with a `state` of arrays and `metadata` of JSON values.

    Args:
        directory: created if it does not exist.
        keep_latest: how many of the newest are kept.
        keep_best: how many of those with the highest scores are kept besides.
        scores: by samples seen; looked up after each save.
    """
    meeting = _Meeting()
    return _Manager(
        _absolute(directory),
        item_handlers={
            'state': ocp.StandardCheckpointHandler(),
            'metadata': ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            # Not max_to_keep with best_fn, which keeps the best and deletes the latest.
            preservation_policy=AnyPreservationPolicy([LatestN(keep_latest), _BestN(keep_best, scores)]),
            cleanup_tmp_directories=True,
            # Orbax would read its own metrics files here and fail on a truncated one.
            lightweight_initialize=True,
            # A host that could not write its part does not come to the end; the others then give up.
            async_options=ocp.options.AsyncOptions(timeout_secs=_WRITE_WITHIN_S, barrier_sync_fn=meeting),
        ),
        meeting=meeting,
    )


class _Meeting:
    """Where the processes meet in the course of a save, under a name that no other save has.

    JAX counts for each process how often it came to a place. After a save that one process left early, the
    counts differ, and they would never meet there again.
    """

    def __init__(self) -> None:
        self.save = 0
        self._wait = ocp.multihost.get_barrier_sync_fn()

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        self._wait(key=f'{key}.save_{self.save}', timeout_ms=timeout_ms)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without three habits that can end a run."""

    def __init__(self, *arguments: Any, meeting: _Meeting, **named: Any) -> None:
        self._meeting = meeting
        super().__init__(*arguments, **named)

    def save(self, *arguments: Any, **named: Any) -> bool:
        """Saves, and meets the other processes at new places."""
        self._meeting.save += 1
        return super().save(*arguments, **named)

    def reached_preemption(self, step: int) -> bool:
        """Never: the loop looks for notices of preemption, once a step.

        JAX makes all hosts stop just after the highest number that any of them asked with. The loop asks
        with the number of the step. Orbax would ask in each save with the samples seen, a much higher
        number, and a notice after that would be for a step that never comes.
        """
        del step
        return False

    def wait_until_finished(self) -> None:
        """Waits for the arrays also where metadata could not be written."""
        super().wait_until_finished()
        self._wait_for_checkpointers()


@dataclasses.dataclass(frozen=True)
class _BestN:
    """Keeps the n checkpoints with the highest scores; one without a score is not among them."""

    n: int
    scores: Mapping[int, float]  # shared with the store, which fills it

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        ranked = [c.step for c in checkpoints if c.step in self.scores]
        ranked.sort(key=self.scores.__getitem__, reverse=True)
        return [c.step in ranked[: self.n] for c in checkpoints]


def _absolute(directory: str | os.PathLike[str]) -> str:
    text = os.fspath(directory)
    return text if '://' in text else os.path.abspath(os.path.expanduser(text))
