"""The memory of a process and its decoding workers over many clips: python -m experiments.throughput memory.

The clips are those of the files in a folder, over and over, half of them decoded in this process and
half in workers. After the first tenth, memory should neither grow nor shrink.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import pathlib

import psutil

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.sandbox import DecodePool

MEDIA = pathlib.Path(__file__).parent.parent / 'tests' / 'data' / 'media'
ROWS = 10


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path, default=MEDIA)
    parser.add_argument('--clips', type=int, default=20_000)
    parser.add_argument('--workers', type=int, default=2)
    options = parser.parse_args()
    spec = ClipSpec(sample_rate=16_000, seconds=0.5, frames=4, frame_size=64)
    places = []
    for path in sorted(options.folder.iterdir()):
        try:
            info = media.probe(path)
        except media.MediaError:
            continue
        places += [(path, i * spec.seconds) for i in range(int(info.duration_s / spec.seconds))]

    def decode(i: int) -> None:
        path, start_s = places[i % len(places)]
        with contextlib.suppress(media.MediaError):  # a silent one: errors may leak as well
            (media if i % 2 else pool).decode(path, start_s, spec)

    print('| clips | this process, MB | workers, MB |\n|---|---|---|')
    with (
        DecodePool(options.workers) as pool,
        concurrent.futures.ThreadPoolExecutor(options.workers) as threads,
    ):
        for row in range(ROWS + 1):
            first, last = (max(0, row + k) * options.clips // ROWS for k in (-1, 0))
            list(threads.map(decode, range(first, last)))
            own = psutil.Process()
            used = [process.memory_full_info().uss / 2**20 for process in (own, *own.children())]
            print(f'| {last:,} | {used[0]:.1f} | {", ".join(f"{mb:.1f}" for mb in used[1:])} |', flush=True)


if __name__ == '__main__':
    main()
