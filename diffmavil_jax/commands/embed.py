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
    from diffmavil_jax.data.clip import Refusal
    from diffmavil_jax.inference.embed import Progress


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('inputs', nargs='+', metavar='FILE_OR_FOLDER', help='media files, and folders of them')
    add(
        '--model',
        default='demo',
        metavar='DIR',
        help='a pretraining run, an import or an export; demo: the small one of this package (default: demo)',
    )
    add(
        '--output',
        default='features.npz',
        metavar='FILE',
        help='a file x.npz or x.parquet, which must not be there yet (default: %(default)s)',
    )
    add(
        '--modality',
        metavar='NAME',
        default='auto',
        help='audio, video or both: files without it are refused; auto: what each file has (default: auto)',
    )
    add(
        '--pool',
        metavar='NAME',
        default='mean',
        help='mean of the tokens, or tokens for all of them (default: mean)',
    )
    add(
        '--batch_size',
        type=int,
        default=32,
        metavar='N',
        help='windows that are computed at once (default: 32)',
    )
    add('--workers', type=int, metavar='N', help='processes that decode (default: one for each core)')
    add('--overwrite', action='store_true', help='replace the file of --output if it is there')


def _run(flags: argparse.Namespace) -> int:
    from diffmavil_jax.data.clip import printable
    from diffmavil_jax.inference.embed import load
    from diffmavil_jax.inference.features import check_output
    from diffmavil_jax.storage.outputs import check_files

    hide_warnings()
    target = check_output(flags.output)
    files, refused = _files(flags.inputs)
    check_files([target], inputs=files, overwrite=flags.overwrite, flag=f'--output={flags.output}')
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
        embeddings.save(flags.output, overwrite=flags.overwrite)
    refused += embeddings.refused
    for refusal in refused:
        print(f'refused {printable(refusal.path)}: {refusal.reason}', file=sys.stderr)
    if not len(embeddings):
        return fail(f'nothing could be used of {len(files):,} files, and nothing was written', FAILED)
    print(f'{flags.output}: {len(embeddings):,} windows of {len(files):,} files')
    return FAILED if refused else 0


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


def _files(inputs: Sequence[str]) -> tuple[list[str], list[Refusal]]:
    """The files, and the media files in the folders and below; and the folders that can't be read."""
    from etils import epath

    from diffmavil_jax.data.clip import DataError, Refusal
    from diffmavil_jax.data.listings.local import is_media
    from diffmavil_jax.data.listings.paths import readable_files

    files: list[str] = []
    refused: list[Refusal] = []
    for name in inputs:
        if not os.path.isdir(name):
            files.append(name)
            continue
        found, unreadable = readable_files(epath.Path(name))
        below = [os.path.join(name, file) for file in found if is_media(file)]
        if not below and not unreadable:
            raise DataError(f'{name}: no media in it or below.')
        files += below
        refused += [Refusal(folder, f"can't be read: {reason}") for folder, reason in unreadable]
    return files, refused


COMMAND = Command(
    'Writes features of sounds and films, from a pretrained network.',
    _add_flags,
    _run,
    when_stopped='stopped; nothing was written',
)
