"""How near `embed` comes to the encoder's own speed: python -m experiments.embedding --model=RUN --input=DIR.

Windows of the media in a folder, several times over; three ways in turn, medians over the rounds:

    ready     the compiled network on batches that lie on the device already: what can be reached
    arrays    `embed` on clips in memory: batching and fetching, and no decoding
    files     `embed` on the files, decoded by worker processes at the same time

and decoding alone, by the same workers. CPU time is of this process and its workers. Where decoding and
the encoder have the same cores, files can't be faster than all cores over the sum of both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

import diffmavil_jax
from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.listings.local import media_files
from diffmavil_jax.data.windows import Reader, Window
from diffmavil_jax.parallel.allocator import keep_freed_memory


def cpu_seconds() -> float:
    """CPU seconds of this process and of the workers that have ended."""
    return sum(os.times()[:4])


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall-clock and CPU time."""
    wall, cpu = time.monotonic(), cpu_seconds()
    function()
    return time.monotonic() - wall, cpu_seconds() - cpu


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--model', required=True, help='a run, an import or an export')
    parser.add_argument('--input', required=True, help='a folder of media with sound and pictures')
    parser.add_argument('--files', type=int, default=100, help='of the folder, at most')
    parser.add_argument('--repeat', type=int, default=1, help='how often each file is read in a round')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch_size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    options = parser.parse_args()
    keep_freed_memory()

    model = diffmavil_jax.load(options.model)
    root = epath.Path(options.input)
    files = [str(root / name) for name in media_files(root)][: options.files] * options.repeat
    reader = Reader(model.clip, MODALITIES, 'both', options.workers)

    def read() -> list[Window]:
        items = reader.windows(files, ahead=3 * options.batch_size)
        return [item for item in items if isinstance(item, Window)]

    windows = read()
    count, size = len(windows), options.batch_size
    arrays = {name: np.stack([getattr(w, name) for w in windows]) for name in ('waveform', 'frames')}
    samples = np.array([window.samples for window in windows], np.int32)
    batches = [
        jax.device_put({name: array[first : first + size] for name, array in arrays.items()})
        | {'samples': jax.device_put(samples[first : first + size])}
        for first in range(0, count - size + 1, size)
    ]
    settings = {'modality': 'both', 'batch_size': size, 'workers': options.workers}
    # Each way, with the number of windows that it computes.
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        'ready': (
            len(batches) * size,
            lambda: jax.block_until_ready([model.features(batch) for batch in batches]),
        ),
        'arrays': (count, lambda: model.embed(arrays, **settings)),
        'files': (count, lambda: model.embed(files, **settings)),
        'decoding alone': (count, read),
    }
    for _, run in ways.values():
        run()  # compiles, and reads the files into the cache of the disk
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (number, run) in ways.items():
            times[name].append(tuple(1e3 * seconds / number for seconds in timed(run)))
    print(f'{count} windows of {len(files)} files, batches of {size}, {options.workers} workers')
    print('| | windows/s | of ready, each round | CPU ms a window |\n|---|---|---|---|')
    for name, rows in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        shares = ', '.join(
            f'{ready[0] / row[0]:.0%}' for ready, row in zip(times['ready'], rows, strict=True)
        )
        print(f'| {name} | {1e3 / wall:.1f} | {shares} | {cpu:.1f} |')


if __name__ == '__main__':
    main()
