"""`diffmavil embed`: features of media files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffmavil_jax.commands.command import FAILED, Command, fail, hide_warnings
from diffmavil_jax.commands.progress import ProgressLine

if TYPE_CHECKING:
    from diffmavil_jax.inference.embed import Progress


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
    from diffmavil_jax.inference.embed import load
    from diffmavil_jax.inference.features import check_output

    hide_warnings()
    check_output(flags.output)
    files = _files(flags.inputs)
    line = ProgressLine()
    embeddings = load(flags.model).embed(
        files,
        flags.modality,
        flags.pool,
        batch_size=flags.batch_size,
        workers=flags.workers,
        progress=lambda progress: _show(progress, line),
    )
    line.end()
    if len(embeddings):
        embeddings.save(flags.output)
    for refusal in embeddings.refused:
        print(f'refused {refusal.path}: {refusal.reason}', file=sys.stderr)
    if not len(embeddings):
        return fail(f'nothing could be used of {len(files):,} files, and nothing was written', FAILED)
    print(f'{flags.output}: {len(embeddings):,} windows of {len(files):,} files')
    return FAILED if embeddings.refused else 0


def _show(progress: Progress, line: ProgressLine) -> None:
    refused = f'  {progress.refused:,} refused' if progress.refused else ''
    line.show(
        progress.files,
        progress.total_files,
        lambda seconds: (
            f'{progress.files:,}/{progress.total_files:,} files  {progress.windows:,} windows{refused}  '
            f'{progress.windows / seconds:,.1f} windows/s'
        ),
    )


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


COMMAND = Command(
    'Writes features of sounds and films, from a pretrained network.',
    _add_flags,
    _run,
    when_stopped='stopped; nothing was written',
)
