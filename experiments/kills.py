"""Kills runs at random moments and starts them again: python -m experiments.kills --kills=50.

Half of the kills hit a run of one process, half hit one of the two processes of a run, whose other process
has to end by itself. The moment is drawn uniformly from the time that a whole run takes, from its start to
its report. Whenever a run comes to its end, its parameters are compared with those of a run that nobody
killed: they must be the same bits. Every kill is kept below --out, and a second start goes on with the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffmavil_jax.commands.train import train
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.saved.params import load_params

MODES = {'alone': 1, 'one of two': 2}  # processes
HEARTBEAT_S = 10
WITHIN_S = 1_800.0  # no run takes longer, also on a busy machine
CONFIG = {
    'name': 'kills',
    'data': {'seconds': 1.0, 'frames': 4, 'frame_size': 16, 'train_clips': 256, 'eval_clips': 8},
    'audio': {'num_mel_bins': 32, 'num_frames': 32, 'patch': 16},
    'video': {'patch': 8, 'patch_frames': 2},
    'model': {
        'size': 'demo', 'fusion_layers': 1, 'decoder_width': 32, 'decoder_layers': 1, 'decoder_heads': 2,
    },
    'compute': {'scan_unroll': 1},
    'loss': {'second_view': False},
    'masking': {'curriculum': 'none', 'end_ratio': 0.5},
    'batch': {'size': 8, 'max_size': 8, 'multiple': 8},
    'optimizer': {'learning_rate': 1e-3, 'warmup_samples': 16, 'weight_decay': 0.05},
    'train': {'samples': 640, 'log_every_samples': 32},
    'checkpoint': {'every_samples': 64},
    'evaluation': {
        'every_samples': 320, 'batch_size': 8, 'retrieval_clips': 8, 'reconstruction_clips': 8,
        'probe_train_clips': 0, 'probe_eval_clips': 0,
    },
}  # fmt: skip


def main() -> None:
    """Kills as often as is left, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/kills'))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
    # Processes are forked from one that has imported everything: a start takes a second or two.
    multiprocessing.set_start_method('forkserver')
    multiprocessing.set_forkserver_preload(['diffmavil_jax.experiment', 'diffmavil_jax.saved.params'])
    trials = [_Trial(options.out, mode) for mode in MODES]
    for count in range(1, options.kills // len(MODES) + 1):
        for trial in trials:
            trial.kill(count)
    for trial in trials:
        trial.finish()
    print(report(options.out))


class _Trial:
    """The kills of one mode, one run after another."""

    def __init__(self, out: pathlib.Path, mode: str) -> None:
        self._out, self._mode = out, mode
        self._folder = out / mode.replace(' ', '_')
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._folder / 'run'
        self._kills, self._ends = (out / f'{self._folder.name}_{what}.jsonl' for what in ('kills', 'ends'))

    def kill(self, count: int) -> None:
        """Kills until there are so many."""
        while (done := len(read(self._kills))) < count:
            rng = np.random.default_rng([done, len(self._mode)])
            if not self._start_and_kill(self._run, self._whole()[1], rng):
                self._compare()

    def finish(self) -> None:
        """Lets the run that was killed last come to its end."""
        if self._run.exists():
            finish(self._run, start(self._run, self._mode))
            self._compare()

    def _whole(self) -> tuple[pathlib.Path, float]:
        """A run that nobody kills, and the seconds that it takes when everything is compiled."""
        workdir, took = self._folder / 'whole', self._folder / 'seconds.json'
        if not took.exists():
            for _ in range(2):  # the first one compiles
                shutil.rmtree(workdir, ignore_errors=True)
                begin = time.monotonic()
                finish(workdir, start(workdir, self._mode))
            took.write_text(json.dumps(time.monotonic() - begin))
        return workdir, json.loads(took.read_text())

    def _start_and_kill(self, workdir: pathlib.Path, seconds: float, rng: np.random.Generator) -> bool:
        """Whether there was something left to kill."""
        group = start(workdir, self._mode)
        delay, victim = rng.uniform(0, seconds), group[rng.integers(len(group))]
        victim.join(delay)
        if victim.exitcode is not None:
            finish(workdir, group)
            return False
        os.kill(victim.pid, signal.SIGKILL)
        begin = time.monotonic()
        others = [code_of(workdir, process) for process in group if process is not victim]
        victim.join()
        append(
            self._kills,
            {
                'after_s': round(delay, 2),
                'checkpoint': newest(workdir),
                'reported': (workdir / 'report' / 'index.html').exists(),
                'others': others,
                'others_ended_after_s': round(time.monotonic() - begin, 1) if others else None,
            },
        )
        return True

    def _compare(self) -> None:
        """Notes which parameters are not the same bits, and removes the run."""
        ours, theirs = (flat(load_params(run)[0]) for run in (self._run, self._whole()[0]))
        different = [name for name in theirs if ours[name].tobytes() != theirs[name].tobytes()]
        append(self._ends, {'kills': len(read(self._kills)), 'arrays': len(theirs), 'different': different})
        shutil.rmtree(self._run)


def start(workdir: pathlib.Path, mode: str) -> Sequence[Any]:
    """The processes of a run, which write what they say beside its directory."""
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        port = listener.getsockname()[1]
    count = MODES[mode]
    group = [
        multiprocessing.Process(target=run, args=(str(workdir), port, count, number))
        for number in range(count)
    ]
    for process in group:
        process.start()
    return group


def code_of(workdir: pathlib.Path, process: Any) -> int:
    """The exit code of a process, which must end by itself."""
    process.join(WITHIN_S)
    if process.exitcode is None:
        process.kill()
        raise SystemExit(
            f'{workdir}: a process did not end within {WITHIN_S:.0f} s; its output is beside it.'
        )
    return process.exitcode


def finish(workdir: pathlib.Path, group: Sequence[Any]) -> None:
    """Waits for all processes of a run, which must end well."""
    codes = [code_of(workdir, process) for process in group]
    if any(codes):
        raise SystemExit(f'{workdir}: ended with {codes} and was not killed; its output is beside it.')


def run(workdir: str, port: int, count: int, number: int) -> None:
    """One process of a run, in its own process; ends it with the exit code of main.py."""
    log = os.open(f'{workdir}-{number}.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = train(config_of(workdir, port, count, number), workdir=workdir, overwrite=False, command='a kill',
                 started=time.time())  # fmt: skip
    sys.stdout.flush()
    os._exit(code)


def config_of(workdir: str, port: int, count: int, number: int) -> Config:
    """The config of one of the processes of a run."""
    config = from_dict(CONFIG)
    parallel = dataclasses.replace(
        config.parallel,
        compilation_cache=str(pathlib.Path(workdir).parent / 'compiled'),
        coordinator=f'localhost:{port}' if count > 1 else '',
        processes=count,
        process=number,
        heartbeat_s=HEARTBEAT_S,
    )
    return dataclasses.replace(config, parallel=parallel)


def report(out: pathlib.Path) -> str:
    """A line for each mode."""
    return '\n'.join(' | '.join(row) for row in rows(out))


def rows(out: pathlib.Path) -> list[list[str]]:
    """Of each mode: kills, those before the first and after the last checkpoint, runs, differing arrays."""
    table = []
    for mode in MODES:
        name = mode.replace(' ', '_')
        kills, ends = read(out / f'{name}_kills.jsonl'), read(out / f'{name}_ends.jsonl')
        waits = [kill['others_ended_after_s'] for kill in kills if kill['others']]
        total = CONFIG['train']['samples']  # type: ignore[index]
        table.append(
            [
                mode,
                str(len(kills)),
                str(sum(kill['checkpoint'] is None for kill in kills)),
                str(sum(kill['checkpoint'] == total for kill in kills)),
                str(len(ends)),
                str(sum(len(end['different']) for end in ends)) + f' of {sum(end["arrays"] for end in ends)}',
                f'{np.median(waits):.0f} s, at most {max(waits):.0f} s' if waits else 'none',
            ]
        )
    return table


def newest(workdir: pathlib.Path) -> int | None:
    """The samples seen at the newest complete checkpoint."""
    names = [int(path.name) for path in (workdir / 'checkpoints').glob('*') if path.name.isdigit()]
    return max(names, default=None)


def flat(tree: Any, prefix: str = '') -> dict[str, np.ndarray]:
    """Nested parameters by path."""
    if not isinstance(tree, dict):
        return {prefix: np.asarray(tree)}
    return {name: x for key, value in tree.items() for name, x in flat(value, f'{prefix}/{key}').items()}


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds a line to a file of JSON objects."""
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')


if __name__ == '__main__':
    main()
