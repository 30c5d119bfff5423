"""`diffmavil prepare` against decoding alone: python -m experiments.throughput prepare.

The files of a folder are copied under other names until there are enough clips. Decoding alone reads
every clip once, in as many processes as `prepare` has. `prepare` is run on one and on two
times as many clips: the difference is what these clips cost it, without what it takes to start.
With --source=webdataset it reads the same files from tars, and decoding alone reads them unpacked.
Both are measured in turn, so that both have the same share of a busy machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import pathlib
import shutil
import statistics
import tarfile
import tempfile
import time

from etils import epath

from diffmavil_jax.data import media
from diffmavil_jax.data.listings.row import Request
from diffmavil_jax.data.prepare.builder import Runner
from diffmavil_jax.data.prepare.run import prepare
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.sandbox import DecodePool

_TAR_CLIPS = 64
MEDIA = pathlib.Path(__file__).parent.parent / 'tests' / 'data' / 'media'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path, default=MEDIA, help='of video files')
    parser.add_argument('--clips', type=int, default=120)
    parser.add_argument('--seconds', type=float, default=10.0, help='of a clip; shorter files are left out')
    parser.add_argument('--frame_size', type=int, default=224)
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--source', choices=('folder', 'webdataset'), default='folder')
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    settings = Settings(seconds=options.seconds, frame_size=options.frame_size, shard_clips=16)
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        once = _copies(options.folder, root / 'once', options.clips, settings)
        twice = _copies(options.folder, root / 'twice', 2 * options.clips, settings)
        inputs = root / 'once', root / 'twice'
        if options.source == 'webdataset':
            inputs = _packed(once, root / 'once_tars'), _packed(twice, root / 'twice_tars')
        print('| workers | decoding alone, ms a clip | prepare, ms a clip | speed of prepare / of decoding |')
        print('|---|---|---|---|')
        for workers in options.workers:
            pairs = []
            for repeat in range(options.repeats):
                output = root / f'{workers}-{repeat}'
                alone = _decode(once, settings, workers)
                fewer, more = (
                    _prepare(options.source, folder, output / folder.name, settings, workers)
                    for folder in inputs
                )
                cost = more - fewer
                pairs.append((alone / len(once), cost / (len(twice) - len(once))))
            alone, cost = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratios = ', '.join(f'{100 * a / p:.0f} %' for a, p in pairs)
            print(f'| {workers} | {alone:.1f} | {cost:.1f} | {ratios} |', flush=True)


def _copies(folder: pathlib.Path, target: pathlib.Path, clips: int, settings: Settings) -> list[pathlib.Path]:
    """Copies the usable files of a folder until there are as many files as clips."""
    assert settings.seconds is not None
    usable = []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            info = media.probe(path)
            media.decode(path, 0.0, settings.spec(settings.seconds))
        except media.MediaError:
            continue
        if info.has_audio and info.has_video and settings.seconds <= info.duration_s < 2 * settings.seconds:
            usable.append(path)
    if not usable:
        raise SystemExit(
            f'{folder} has no file with sound and pictures for one clip of {settings.seconds} s.'
        )
    target.mkdir()
    copies = []
    for i in range(clips):
        path = usable[i % len(usable)]
        copies.append(pathlib.Path(shutil.copy(path, target / f'{i:05}{path.suffix}')))
    return copies


def _packed(files: list[pathlib.Path], target: pathlib.Path) -> pathlib.Path:
    """Packs files into tars."""
    target.mkdir()
    for number, begin in enumerate(range(0, len(files), _TAR_CLIPS)):
        with tarfile.open(target / f'{number:05}.tar', 'w') as tar:
            for path in files[begin : begin + _TAR_CLIPS]:
                tar.add(path, path.name)
    return target


def _decode(files: list[pathlib.Path], settings: Settings, workers: int) -> float:
    assert settings.seconds is not None
    spec = settings.spec(settings.seconds)
    with DecodePool(workers) as pool, concurrent.futures.ThreadPoolExecutor(workers) as threads:
        list(threads.map(lambda file: pool.decode(file, 0.0, spec), files[: 2 * workers]))  # processes start
        began = time.perf_counter()
        list(threads.map(lambda file: pool.decode(file, 0.0, spec), files))
        return time.perf_counter() - began


def _prepare(
    source: str, folder: pathlib.Path, output: pathlib.Path, settings: Settings, workers: int
) -> float:
    began = time.perf_counter()
    prepare(
        source,
        Request(input=epath.Path(folder)),
        settings,
        output=epath.Path(output),
        name='copies',
        runner=Runner('DirectRunner', workers, []),
        say=lambda line: None,
    )
    return time.perf_counter() - began


if __name__ == '__main__':
    main()
