"""From command to first step, and what changing the bucket costs: python -m experiments.throughput start.

Runs main.py twice, first without compiled steps on disk, and stops it a few steps after the second
bucket has begun. Every step writes a line, so that the seconds between lines are those of the steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
_POLL_S = 0.002
_AROUND = 5  # steps before and after the change
# A line for every step; no evaluation and no save between two steps.
_FLAGS = (
    '--config.train.log_every_samples=1',
    '--config.evaluation.every_samples=1000000000',
    '--config.checkpoint.every_samples=1000000000',
    '--config.checkpoint.every_minutes=1000000',
)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--config', default='configs/diffmavil.py')
    options, flags = parser.parse_known_args()
    print('| compiled steps | to the first step | median step | slowest around the change | x median |')
    print('|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        cache = f'--config.parallel.compilation_cache={folder}/cache'
        for state in ('none', 'on disk'):
            first_s, steps_s, change = timed_start(
                options.config, pathlib.Path(folder, state), [cache, *flags]
            )
            median = statistics.median(steps_s)
            slowest = max(steps_s[change - _AROUND : change + _AROUND])
            print(
                f'| {state} | {first_s:.1f} s | {1e3 * median:.0f} ms | {1e3 * slowest:.0f} ms '
                f'| {slowest / median:.2f} |',
                flush=True,
            )


def timed_start(config: str, workdir: pathlib.Path, flags: list[str]) -> tuple[float, list[float], int]:
    """Seconds to the first line and of each later step, and which of these begins the second bucket."""
    command = [sys.executable, 'main.py', f'--config={config}', f'--workdir={workdir}', *flags]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *_FLAGS], cwd=ROOT, stdout=subprocess.DEVNULL)
    times: list[float] = []
    ratios: list[float] = []
    try:
        for line in follow(workdir / 'metrics.jsonl', process):
            times.append(time.perf_counter())
            ratios.append(line['mask_ratio'])
            if ratios[0] != ratios[-1] and ratios.count(ratios[-1]) > _AROUND:
                break
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    steps = [after - before for before, after in itertools.pairwise(times)]
    return times[0] - began, steps, ratios.index(ratios[-1]) - 1


def follow(path: pathlib.Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, float]]:
    """Yields the lines of a JSONL file while a process writes them."""
    while not path.exists():
        _wait(process)
    with path.open() as file:
        line = ''
        while True:
            line += file.readline()
            if line.endswith('\n'):
                yield json.loads(line)
                line = ''
            else:
                _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f'{process.args} ended with {process.returncode} before its second bucket')
    time.sleep(_POLL_S)


if __name__ == '__main__':
    main()
