"""`diffmavil embed`: features of media files."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from diffmavil_jax.commands.command import Command, fail

if TYPE_CHECKING:
    from diffmavil_jax.inference.embed import Progress
    from diffmavil_jax.training.progress import ProgressPrinter

# Between progress lines, on a terminal and elsewhere.
_QUICK_S, _SLOW_S = 0.2, 10.0


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('inputs', nargs='+', metavar='FILE_OR_FOLDER', help='media; of a folder all that is below it')
    add('--model', required=True, metavar='DIR', help='a pretraining run, an import or an export')
    add('--output', required=True, metavar='FILE', help='x.npz or x.parquet; replaced if it is there')
    add(
        '--modality',
        metavar='NAME',
        default='auto',
        help='auto: what a file has; audio, video, both: a file without it is refused (default: auto)',
    )
    add('--pool', metavar='NAME', default='mean', help='mean, or tokens: all of them (default: mean)')
    add('--batch_size', type=int, default=32, metavar='N', help='windows computed at a time (default: 32)')
    add('--workers', type=int, metavar='N', help='processes that decode (default: as many as cores)')


def _run(flags: argparse.Namespace) -> int:
    from absl import logging

    from diffmavil_jax.config.tree import ConfigError
    from diffmavil_jax.data.clip import DataError
    from diffmavil_jax.inference.embed import load
    from diffmavil_jax.inference.features import check_output
    from diffmavil_jax.training.progress import ProgressPrinter

    logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not need
    try:
        check_output(flags.output)
        files = _files(flags.inputs)
        printer = ProgressPrinter(sys.stderr)
        embeddings = load(flags.model).embed(
            files,
            flags.modality,
            flags.pool,
            batch_size=flags.batch_size,
            workers=flags.workers,
            progress=_show(printer),
        )
        printer.end()
        if len(embeddings):
            embeddings.save(flags.output)
    except (ConfigError, DataError) as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        # The interpreter's own end crashes now and then where a computation was interrupted.
        atexit.register(os._exit, 130)
        return fail('stopped; nothing was written', 130)
    for refusal in embeddings.refused:
        print(f'refused {refusal.path}: {refusal.reason}', file=sys.stderr)
    if not len(embeddings):
        return fail(f'nothing could be used of {len(files):,} files, and nothing was written', 1)
    print(f'{flags.output}: {len(embeddings):,} windows of {len(files):,} files')
    return 1 if embeddings.refused else 0


def _files(inputs: Sequence[str]) -> list[str]:
    """The files themselves, and the media below folders."""
    from etils import epath

    from diffmavil_jax.data.clip import DataError
    from diffmavil_jax.data.listings.local import media_files

    files: list[str] = []
    for name in inputs:
        if os.path.isdir(name):
            below = media_files(epath.Path(name))
            if not below:
                raise DataError(f'{name}: no media in it or below.')
            files += [os.path.join(name, file) for file in below]
        else:
            files.append(name)
    return files


def _show(printer: ProgressPrinter) -> Callable[[Progress], None]:
    """Shows progress now and then, and the end."""
    started = time.monotonic()
    every_s = _QUICK_S if sys.stderr.isatty() else _SLOW_S
    shown = started

    def show(progress: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < every_s and progress.files < progress.total_files:
            return
        shown = now
        refused = f'  {progress.refused:,} refused' if progress.refused else ''
        printer.write(
            f'{100 * progress.files // progress.total_files:4d} %  '
            f'{progress.files:,}/{progress.total_files:,} files  {progress.windows:,} windows{refused}  '
            f'{progress.windows / (now - started):,.1f} windows/s'
        )

    return show


COMMAND = Command('Writes features of sounds and films, from a pretrained network.', _add_flags, _run)
