"""Checkpoints of a run, named by the samples seen: saved, kept, restored, and stepped over if broken.

Orbax writes them asynchronously and commits each atomically. This module adds what a long
run needs besides. It keeps the latest next to the best. If a checkpoint can't be read, it says
so and takes the one before. A checkpoint of another model is an error, not an unreadable one.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from diffmavil_jax.training.orbax_manager import open_manager

PyTree = Any

# Messages by which TensorStore says that storage refused something.
_STORAGE_ERROR = re.compile(
    r'os_error_code|^(RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL|PERMISSION_DENIED)'
)


class CheckpointError(RuntimeError):
    """No checkpoint can be read, or the last one could not be written: says which and why."""


class CheckpointMismatchError(ValueError):
    """A checkpoint can be read, but is of another model: names the first leaf that differs."""


class CheckpointStore:
    """The checkpoints of one run in one directory.

    Args:
        directory: created if it does not exist.
        keep_latest: how many of the newest are always kept.
        keep_best: how many of the best by `best_metric` are kept besides.
        best_metric: the name in `save`'s metrics that ranks checkpoints; None ranks nothing.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_latest: int,
        keep_best: int,
        best_metric: str | None,
    ) -> None:
        if keep_latest < 1:
            raise ValueError(f'keep_latest = {keep_latest}: must be at least 1.')
        self._best_metric = best_metric
        self._scores: dict[int, float] = {}
        self._unreadable: set[int] = set()
        self._failure = ''
        self._manager = open_manager(
            directory, keep_latest, keep_best if best_metric is not None else 0, self._scores
        )
        for samples in self.steps():
            self._read_score(samples)

    def steps(self) -> list[int]:
        """Samples seen of all checkpoints, ascending; the last one may not be complete yet."""
        return sorted(set(self._manager.all_steps()) - self._unreadable)

    def latest(self) -> int | None:
        """Samples seen of the newest checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Samples seen of the checkpoint with the best metric."""
        ranked = [samples for samples in self.steps() if samples in self._scores]
        return max(ranked, key=self._scores.__getitem__, default=None)

    def save(
        self,
        samples: int,
        state: PyTree,
        metadata: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        block: bool = False,
    ) -> bool:
        """Writes a checkpoint, in the background unless `block`.

        The state is copied to the host before this returns, so it may be donated at once.

        Args:
            samples: samples seen, larger than that of every checkpoint so far.
            state: a pytree of arrays.
            metadata: JSON values, which are restored with the state.
            metrics: values by name. Without `best_metric` among them, the checkpoint is never a best one.
            block: whether to return only when the checkpoint is on disk.

        If storage refuses it, that is logged and noted in `failure`; it is no error, as the run can go on.

        Returns:
            False if there is already a checkpoint at this sample count; nothing is written then.

        Raises:
            ValueError: for a sample count before the newest checkpoint's.
        """
        self._set_unreadable_aside()
        self.settle()
        latest = self.latest()
        if latest is not None and samples < latest:
            raise ValueError(f'Checkpoint at {samples} samples: there is a later one, at {latest}.')
        is_new = samples != latest
        if is_new:
            metrics = {name: float(value) for name, value in (metrics or {}).items()}
            self._add_score(samples, metrics)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                metadata=ocp.args.JsonSave({'metadata': dict(metadata), 'metrics': metrics}),
            )
            self._failure = ''
            with self._noting_failure():
                self._manager.save(samples, args=items, force=True)
            if block or self._failure:
                self.settle()
        return is_new

    def settle(self) -> None:
        """Waits as `wait` does, but notes what went wrong instead of raising it.

        A checkpoint that was only half written is removed: storage may have little room left.
        """
        while True:  # a save can fail in several ways, and Orbax raises one at a time
            with self._noting_failure():
                self.wait()
                break
        self._remove_unfinished()

    def failure(self) -> str:
        """Why the newest checkpoint was not written, as far as is known; empty if nothing is wrong."""
        with self._noting_failure():
            self._manager.check_for_errors()
        if self._failure:
            self.settle()
        return self._failure

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Reads the newest checkpoint that can be read.

        Args:
            abstract_state: a pytree of `jax.ShapeDtypeStruct` with shardings; arrays are read
                straight onto them, whatever mesh they were saved from.

        Returns:
            The state and its metadata, or None if there is no checkpoint.

        Raises:
            CheckpointMismatchError: if a readable checkpoint holds another tree, shape or dtype.
            CheckpointError: if there are checkpoints, and none can be read.
        """
        self.wait()
        reasons: dict[int, str] = {}
        for samples in reversed(self.steps()):
            try:
                self._check_matches(samples, abstract_state)
                restored = self._read(samples, abstract_state)
            except (CheckpointMismatchError, jax.errors.JaxRuntimeError):
                raise  # another model, or no memory left: an older checkpoint would not help
            except Exception as error:  # a broken file raises whatever its parser raises
                reasons[samples] = f'{type(error).__name__}: {_first_line(error)}'
                logging.warning('Checkpoint %s cannot be read: %s', self._path(samples), reasons[samples])
                continue
            # Only now: if none can be read, a second attempt should see all of them again.
            self._unreadable |= reasons.keys()
            return restored
        if reasons:
            names = '; '.join(f'{self._path(samples)} ({reason})' for samples, reason in reasons.items())
            raise CheckpointError(f'None of the {len(reasons)} checkpoints can be read: {names}')
        return None

    def restore_best(self, abstract_state: PyTree) -> PyTree | None:
        """The state with the best metric; None where no checkpoint has one, or it can't be read."""
        self.wait()
        best = self.best()
        if best is None:
            return None
        try:
            return self._read(best, abstract_state)[0]
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # a broken file raises whatever its parser raises
            logging.warning(
                'The best checkpoint, %s, cannot be read: %s', self._path(best), _first_line(error)
            )
            return None

    def wait(self) -> None:
        """Returns when no checkpoint is being written; raises what went wrong with the last."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases threads."""
        self.settle()
        with self._noting_failure():
            self._manager.close()

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Notes errors of storage, which may be full, or away for a while; the first of several says why."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not _STORAGE_ERROR.search(str(error)):
                raise
            self._failure = self._failure or _first_line(error)
            logging.warning('A checkpoint could not be written: %s', _first_line(error))

    def _remove_unfinished(self) -> None:
        if jax.process_index() == 0:
            for unfinished in self._manager.directory.glob('*.orbax-checkpoint-tmp'):
                with contextlib.suppress(OSError):  # a thread of the failed save may still write to it
                    unfinished.rmtree()

    def _path(self, samples: int) -> Any:  # a pathlib.Path or, for gs:// and the like, an etils.epath.Path
        return self._manager.directory / str(samples)

    def _read(self, samples: int, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        restored = self._manager.restore(
            samples,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract_state), metadata=ocp.args.JsonRestore()
            ),
        )
        return restored['state'], restored['metadata']['metadata']

    def _check_matches(self, samples: int, abstract_state: PyTree) -> None:
        saved = self._manager.item_metadata(samples)['state']
        if saved is None:
            raise FileNotFoundError('the description of its arrays is missing')
        difference = _first_difference(_leaves(saved.tree), _leaves(abstract_state))
        if difference:
            raise CheckpointMismatchError(
                f'Checkpoint {self._path(samples)} is of another model: {difference}'
            )

    def _add_score(self, samples: int, metrics: Mapping[str, float]) -> None:
        value = metrics.get(self._best_metric, math.nan) if self._best_metric else math.nan
        if not math.isnan(value):
            self._scores[samples] = value

    def _read_score(self, samples: int) -> None:
        try:
            args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
            self._add_score(samples, self._manager.restore(samples, args=args)['metadata']['metrics'])
        except Exception as error:  # then it is never a best one; `restore` says more
            logging.warning('Metrics of checkpoint %s cannot be read: %s', self._path(samples), error)

    def _set_unreadable_aside(self) -> None:
        """Renames what `restore` stepped over: the run comes to the same sample counts again."""
        if not self._unreadable:
            return
        if jax.process_index() == 0:
            for samples in self._unreadable:
                aside = self._manager.directory / f'unreadable-{samples}-{int(time.time())}'
                self._path(samples).rename(aside)
                logging.warning('Unreadable checkpoint %d was set aside as %s', samples, aside)
        ocp.multihost.sync_global_processes('diffmavil:unreadable_checkpoints_set_aside')
        self._manager.reload()
        for samples in self._unreadable:
            self._scores.pop(samples, None)
        self._unreadable.clear()


def _leaves(tree: PyTree) -> dict[str, str]:
    """From each leaf's path, as Orbax names it, to its dtype and shape; in the tree's order."""
    flat = ocp.tree.to_flat_dict(tree, sep='/')
    return {path: f'{leaf.dtype}{list(leaf.shape)}' for path, leaf in flat.items()}


def _first_difference(saved: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    for path in [*expected, *saved]:
        old, new = saved.get(path, 'nothing'), expected.get(path, 'nothing')
        if old != new:
            return f'{path} is {old} in it, where {new} is expected.'
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0][:300]
