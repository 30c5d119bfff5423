"""Where the metrics of a run go besides its directory: Weights & Biases and MLflow."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from diffmavil_jax.atomic import write_json
from diffmavil_jax.config.tree import ConfigError

PROJECT = 'diffmavil-jax'
FILE = 'trackers.json'  # by tracker: the name by which it knows the run


class Tracker(Protocol):
    """A service that shows the metrics of runs.

    Attributes:
        identity: by which it knows the run.
    """

    identity: str

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        """Adds finite numbers at a number of samples seen, which grows from call to call."""
        ...

    def close(self) -> None:
        """Sends what is left; the run may go on later."""
        ...


class WandbTracker:
    """Weights & Biases; WANDB_MODE=offline keeps all in the run's directory, for `wandb sync`.

    Args:
        workdir: of the run.
        name: to show.
        config: of the run, nested.
        identity: what an earlier start returned as `identity`; None for a new run.
    """

    def __init__(
        self, workdir: pathlib.Path, name: str, config: Mapping[str, Any], identity: str | None
    ) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get('WANDB_PROJECT', PROJECT),
            name=name,
            config=dict(config),
            dir=str(workdir),
            id=identity,
            resume='allow',
            settings=wandb.Settings(silent=True, console='off'),
        )
        self.identity = str(self._run.id)

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=samples)

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """MLflow, at MLFLOW_TRACKING_URI; without that, files in `mlruns` in the run's directory.

    Args: see WandbTracker.
    """

    def __init__(
        self, workdir: pathlib.Path, name: str, config: Mapping[str, Any], identity: str | None
    ) -> None:
        import mlflow

        place = os.environ.get('MLFLOW_TRACKING_URI')
        if place is None:
            place = (workdir / 'mlruns').absolute().as_uri()
            os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')
        self._client = mlflow.MlflowClient(tracking_uri=place)
        if identity is None:
            project = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
            experiment = self._client.get_experiment_by_name(project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(project)
            identity = self._client.create_run(number, run_name=name).info.run_id
            self._client.log_dict(identity, dict(config), 'config.json')
        else:
            self._client.update_run(identity, status='RUNNING')
        self.identity = identity

    def log(self, samples: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self.identity, [Metric(*value, now, samples) for value in values.items()])

    def close(self) -> None:
        self._client.set_terminated(self.identity)


TRACKERS: dict[str, Callable[[pathlib.Path, str, Mapping[str, Any], str | None], Tracker]] = {
    'wandb': WandbTracker,
    'mlflow': MlflowTracker,
}


def check_trackers(names: Iterable[str]) -> None:
    """Raises ConfigError if the package of a tracker is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"config.train.trackers: {name} needs its package: pip install -e '.[{name}]'.")


def open_trackers(
    names: Iterable[str], workdir: pathlib.Path, name: str, config: Mapping[str, Any]
) -> list[Tracker]:
    """Opens trackers; a run that resumes goes on as the run that they know.

    Args:
        names: of TRACKERS.
        workdir: the run's directory on this machine, which keeps by what names they know the run.
        name: of the run, to show.
        config: of the run, nested.

    Raises:
        ConfigError: a tracker can't be reached, or does not know who asks.
    """
    known = workdir / FILE
    identities = json.loads(known.read_text(encoding='utf-8')) if known.exists() else {}
    trackers: list[Tracker] = []
    for kind in names:
        try:
            tracker = TRACKERS[kind](workdir, name, config, identities.get(kind))
        except Exception as error:  # each has errors of its own
            first_line = str(error).strip().partition('\n')[0]
            raise ConfigError(
                f'config.train.trackers: {kind} can not be opened ({type(error).__name__}: {first_line}); '
                f'mend it, or leave {kind} out: the run resumes either way.'
            ) from error
        identities[kind] = tracker.identity
        write_json(known, identities)
        trackers.append(tracker)
    return trackers


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that every tracker takes."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
