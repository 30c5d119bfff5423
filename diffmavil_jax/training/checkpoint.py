"""Checkpoints of a run, named by the samples seen: saved, kept, restored, and stepped over if broken.

Orbax writes them asynchronously and commits each atomically. This module adds what a long
run needs besides. It keeps the latest next to the best. If a checkpoint can't be read, it says
so and takes the one before. A checkpoint of another model is an error, not an unreadable one.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from diffmavil_jax.parallel import agreement, hosts
from diffmavil_jax.storage.buckets import CLIENTS, is_away
from diffmavil_jax.storage.paths import is_remote
from diffmavil_jax.training.orbax_manager import open_manager

PyTree = Any

# A save can fail in several ways, of which Orbax raises one at a time.
_FAILURES_AT_ONCE = 8
# Storage may show a host late what another one wrote.
_LISTING_PAUSES_S = (0.0, 1.0, 5.0, 25.0)

# Messages by which TensorStore says that storage refused something.
_STORAGE_ERROR = re.compile(
    r'os_error_code|^(RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL|PERMISSION_DENIED)'
)
# How JAX says that another process did not come to the end of a save.
_GIVEN_UP = re.compile('(DEADLINE_EXCEEDED|Timed out).*[Bb]arrier')


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
        self._see_what_the_first_sees()
        scores = agreement.first('the scores of checkpoints', self._read_scores() if hosts.is_first() else {})
        self._scores.update((int(samples), score) for samples, score in scores.items())

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
        if not self._set_unreadable_aside():
            return True
        self.settle()
        latest = self.latest()
        if latest is not None and samples < latest:
            raise ValueError(f'Checkpoint at {samples} samples: there is a later one, at {latest}.')
        is_new = samples != latest
        if is_new:
            metrics = {name: float(value) for name, value in (metrics or {}).items()}
            score = self._score(metrics)
            if score is not None:
                self._scores[samples] = score
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                metadata=ocp.args.JsonSave({'metadata': dict(metadata), 'metrics': metrics}),
            )
            self._failure = ''
            with self._noting_failure() if hosts.is_alone() else self._ending_on_failure():
                self._manager.save(samples, args=items, force=True)
            if agreement.any_of('whether to wait for the checkpoint', block or bool(self._failure)):
                self.settle()
        return is_new

    def settle(self) -> str:
        """Waits as `wait` does, but returns what went wrong, on any host, instead of raising it.

        All processes call it together. A checkpoint that was only half written is removed: storage may have
        little room left.
        """
        self._wait_noting_failures()
        self._failure = _reason(agreement.gather('the last checkpoint', self._failure))
        if self._failure:
            with self._noting_failure():  # a bucket that is away lists nothing either
                self._manager.reload()
            self._see_what_the_first_sees()
        return self._failure

    def failure(self) -> str:
        """Why this process could not write the newest checkpoint, as far as it knows; empty if it could."""
        with self._noting_failure():
            self._manager.check_for_errors()
        if self._failure:
            self._wait_noting_failures()
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
            CheckpointError: if there are checkpoints, and none can be read; or a bucket is away.
        """
        self.wait()
        reasons: dict[int, str] = {}
        for samples in reversed(self.steps()):
            restored, reason = self._try_to_read(samples, abstract_state)
            if not reason:
                # Only now: if none can be read, a second attempt should see all of them again.
                self._unreadable |= reasons.keys()
                return restored
            reasons[samples] = reason
            logging.warning('Checkpoint %s cannot be read: %s', self._path(samples), reason)
        if reasons:
            names = '; '.join(f'{self._path(samples)} ({reason})' for samples, reason in reasons.items())
            raise CheckpointError(f'None of the {len(reasons)} checkpoints can be read: {names}')
        return None

    def restore_best(self, abstract_state: PyTree) -> PyTree | None:
        """The state with the best metric; None where no checkpoint has one, or it can't be read.

        Args:
            abstract_state: as for `restore`; items that it lacks are not read.
        """
        self.wait()
        best = self.best()
        if best is None:
            return None
        restored, reason = self._try_to_read(best, abstract_state, partial=True)
        if reason:
            logging.warning('The best checkpoint, %s, cannot be read: %s', self._path(best), reason)
            return None
        return restored[0]

    def _try_to_read(self, samples: int, abstract_state: PyTree, *, partial: bool = False) -> tuple[Any, str]:
        """State and metadata, or why some process can't read them; the same answer in all processes.

        Raises:
            CheckpointMismatchError: it is of another model.
            CheckpointError: it is in a bucket that is away, which says nothing of the checkpoint.
        """
        restored, reason = None, ''
        with agreement.together('which checkpoint can be read', CheckpointMismatchError, CheckpointError):
            try:
                if not partial:
                    self._check_matches(samples, abstract_state)
                restored = self._read(samples, abstract_state)
            except (CheckpointMismatchError, jax.errors.JaxRuntimeError):
                raise  # another model, or no memory left: an older checkpoint would not help
            except Exception as error:  # a broken file raises whatever its parser raises
                if is_remote(self._manager.directory) and is_away(error):
                    raise CheckpointError(
                        f'{self._path(samples)} can not be reached ({_first_line(error)}); the same command '
                        f'tries again.'
                    ) from error
                reason = f'{type(error).__name__}: {_first_line(error)}'
        for number, other in enumerate(agreement.gather('why a checkpoint can not be read', reason)):
            reason = reason or (other and f'by process {number}: {other}')
        return (None, reason) if reason else (restored, '')

    def wait(self) -> None:
        """Returns when no checkpoint is being written; raises what went wrong with the last."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases threads; each process does so alone, also after an error."""
        self._wait_noting_failures()
        with self._noting_failure():
            self._manager.close()

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Notes errors of storage, which may be full, or away for a while."""
        try:
            yield
        except Exception as error:
            if not _is_of_storage(error):
                raise
            self._failure = _reason([self._failure, _first_line(error)])
            logging.warning('A checkpoint could not be written: %s', _first_line(error))

    @contextlib.contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        """Among several processes: the others wait within Orbax for one that failed, and can't be told."""
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f'A checkpoint could not be begun on {platform.node()} ({_first_line(error)}); the same '
                f'command resumes from clip {self.latest() or 0:,}.'
            ) from error

    def _wait_noting_failures(self) -> None:
        for _ in range(_FAILURES_AT_ONCE):
            with self._noting_failure():
                self.wait()
                break
        self._remove_unfinished()

    def _see_what_the_first_sees(self) -> None:
        """Lists the checkpoints anew until this process sees those of the first.

        Raises:
            CheckpointError: storage does not show them.
        """
        theirs = agreement.first('the checkpoints', self.steps())
        with agreement.together('the same checkpoints', CheckpointError):
            for pause in _LISTING_PAUSES_S:
                if self.steps() == theirs:
                    return
                time.sleep(pause)
                self._manager.reload()
            raise CheckpointError(
                f'{self._manager.directory}: must be on storage that all hosts share; process 0 sees the '
                f'checkpoints {theirs} there, and {platform.node()} sees {self.steps()}.'
            )

    def _remove_unfinished(self) -> None:
        if hosts.is_first():
            if is_remote(self._manager.directory):
                return  # there, Orbax removes them before the next save and at the next start
            for unfinished in self._manager.directory.glob('*.orbax-checkpoint-tmp'):
                with contextlib.suppress(OSError):  # a thread of the failed save may still write to it
                    unfinished.rmtree()

    def _path(self, samples: int) -> Any:  # a pathlib.Path or, for gs:// and the like, an etils.epath.Path
        return self._manager.directory / str(samples)

    def _read(self, samples: int, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        # Not by the manager, which would wait for the other processes, of which one may have failed to read.
        arguments = ocp.args.PyTreeRestore(
            item=abstract_state,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
            partial_restore=True,
        )
        state = ocp.PyTreeCheckpointHandler().restore(self._path(samples) / 'state', args=arguments)
        return state, self._read_metadata(samples)['metadata']

    def _read_metadata(self, samples: int) -> dict[str, Any]:
        return ocp.JsonCheckpointHandler().restore(self._path(samples) / 'metadata')

    def _check_matches(self, samples: int, abstract_state: PyTree) -> None:
        saved = self._manager.item_metadata(samples)['state']
        if saved is None:
            raise FileNotFoundError('the description of its arrays is missing')
        difference = _first_difference(_leaves(saved.tree), _leaves(abstract_state))
        if difference:
            raise CheckpointMismatchError(
                f'Checkpoint {self._path(samples)} is of another model: {difference}'
            )

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        value = metrics.get(self._best_metric, math.nan) if self._best_metric else math.nan
        return None if math.isnan(value) else value

    def _read_scores(self) -> dict[str, float]:
        scores = {}
        for samples in self.steps():
            try:
                score = self._score(self._read_metadata(samples)['metrics'])
            except Exception as error:  # then it is never a best one; `restore` says more
                logging.warning('Metrics of checkpoint %s cannot be read: %s', self._path(samples), error)
                continue
            if score is not None:
                scores[str(samples)] = score
        return scores

    def _set_unreadable_aside(self) -> bool:
        """Renames what `restore` stepped over: the run comes to the same sample counts again.

        Returns:
            False if storage refuses that, which `failure` then says.
        """
        if not self._unreadable:
            return True
        self._failure = ''
        if hosts.is_first():
            with self._noting_failure():
                self._rename_unreadable()
        self._failure = agreement.first('setting unreadable checkpoints aside', self._failure)
        if self._failure:
            return False
        self._manager.reload()
        for samples in self._unreadable:
            self._scores.pop(samples, None)
        self._unreadable.clear()
        return True

    def _rename_unreadable(self) -> None:
        for samples in self._unreadable:
            if self._path(samples).exists():  # else it was renamed before storage refused another
                aside = self._manager.directory / f'unreadable-{samples}-{int(time.time())}'
                self._path(samples).rename(aside)
                logging.warning('Unreadable checkpoint %d was set aside as %s', samples, aside)


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


def _reason(failures: Sequence[str]) -> str:
    """The first failure that says more than that another process did not come; empty if there is none."""
    known = [failure for failure in failures if failure]
    return next((failure for failure in known if not _GIVEN_UP.search(failure)), known[0] if known else '')


def _is_of_storage(error: Exception) -> bool:
    """Whether storage refused something, and another try may help."""
    if isinstance(error, OSError) or type(error).__module__.partition('.')[0] in CLIENTS:
        return True
    if isinstance(error, jax.errors.JaxRuntimeError):
        return bool(_GIVEN_UP.search(str(error)))
    return isinstance(error, ValueError) and bool(_STORAGE_ERROR.search(str(error)))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0][:300]
