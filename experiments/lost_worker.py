"""Kills one of two workers of `diffmavil prepare`: python -m experiments.lost_worker --source=S --input=DIR.

Beam's portable runner has its two workers in processes of their own, which get their work by gRPC as they
would on another machine. The dataset is made once in peace. Then it is made again, and one of the workers is
killed (SIGKILL) when a third of the shards are done; if the command fails of that, the same command is given
again, as one would. The clips of both datasets must be the same bytes, in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow_datasets as tfds

from diffmavil_jax.data.prepare import worker
from diffmavil_jax.data.prepare.builder import REPORT, VERSION

WITHIN_S = 90.0  # after a kill: a command that has not ended by then hangs


def main() -> None:
    """Makes both datasets, and prints what came of the kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--source', required=True, help='of `diffmavil prepare`')
    parser.add_argument('--input', required=True, help='its lists and media')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/lost_worker'))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    flags = [f'--source={options.source}', f'--input={options.input}', '--name=clips', '--workers=2']

    peace, killed = options.out / 'peace', options.out / 'killed'
    start(flags, peace).wait()
    shards = json.loads((peace / 'clips' / VERSION / REPORT).read_text())['shards']
    process = start(flags, killed)
    done = wait_for_shards(killed, shards // 3)
    victim = kill_a_worker(process.pid)
    code = ended(process)
    print(f'{shards} shards, worker {victim} killed at {done}: the command ended with {code}')
    if code:
        left = done_shards(killed)
        code = start(flags, killed).wait()
        print(f'the same command went on from {left} shards and ended with {code}')
    clips = contents(peace)
    same = clips == contents(killed)
    number = sum(map(len, clips.values()))
    print(f'{number:,} clips in {len(clips)} splits, {"the same bytes" if same else "not the same"}')
    sys.exit(0 if same and not code else 1)


def start(flags: Sequence[str], output: pathlib.Path) -> subprocess.Popen[bytes]:
    """Starts `diffmavil prepare`."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'diffmavil_jax.cli', 'prepare', *flags, f'--output={output}']
    with (output / 'log').open('ab') as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def done_shards(output: pathlib.Path) -> int:
    """How many shards of unfinished work are done."""
    return len(list(output.glob('.work/clips-*/*.done.jsonl')))


def wait_for_shards(output: pathlib.Path, wanted: int) -> int:
    """Waits until so many shards are done; returns how many there are then."""
    deadline = time.monotonic() + WITHIN_S
    while (done := done_shards(output)) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f'{output}: {done} of {wanted} shards within {WITHIN_S:.0f} s')
        time.sleep(0.05)
    return done


def kill_a_worker(command: int) -> int:
    """Kills a worker of the command with this process id; returns the worker's."""
    workers = [
        child
        for child in psutil.Process(command).children(recursive=True)
        if worker.__name__ in child.cmdline()
    ]
    workers[-1].send_signal(signal.SIGKILL)
    return workers[-1].pid


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code; a command that hangs is killed with its workers."""
    try:
        return process.wait(WITHIN_S)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        return process.wait()


def contents(output: pathlib.Path) -> dict[str, list[str]]:
    """The hash of each clip of the dataset, in order, by split.

    The files differ also between two starts in peace: TFDS writes the features of a clip in any order.
    """
    builder = tfds.builder_from_directory(output / 'clips' / VERSION)
    return {split: [_hash(clip) for clip in builder.as_data_source(split)] for split in builder.info.splits}


def _hash(clip: Mapping[str, Any]) -> str:
    content = hashlib.sha256()
    for name in sorted(clip):
        values = clip[name]
        content.update(f'{name} {len(values) if isinstance(values, list) else ""}'.encode())
        for value in values if isinstance(values, list) else [values]:
            content.update(value if isinstance(value, bytes) else np.asarray(value).tobytes())
    return content.hexdigest()


if __name__ == '__main__':
    main()
