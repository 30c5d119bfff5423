"""`diffmavil prepare`: makes a dataset of media files, to train on."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from diffmavil_jax.atomic import write_text
from diffmavil_jax.commands.command import WRONG, Command, fail

if TYPE_CHECKING:
    from diffmavil_jax.data.prepare.run import Prepared


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from diffmavil_jax.data.listings.registry import SOURCES
    from diffmavil_jax.data.prepare.settings import DOUBTFUL, Settings

    default = Settings()
    width = max(map(len, SOURCES))
    parser.epilog = 'sources:\n' + ''.join(
        f'  {name:{width}}  {source.about}\n' for name, source in SOURCES.items()
    )
    parser.epilog += (
        "\nBeam's own flags follow a --, as in: ... --runner=FlinkRunner -- --flink_master=HOST:8081"
    )
    add = parser.add_argument
    add('--source', required=True, choices=list(SOURCES), metavar='SOURCE', help='one of the sources below')
    add(
        '--input',
        required=True,
        metavar='DIR',
        help='the folder of its lists and media; of shards also a file, a glob or a-{000..099}.tar',
    )
    add('--output', required=True, metavar='DIR', help='the dataset becomes DIR/NAME/1.0.0')
    add('--name', help='name of the dataset (default: that of the source)')
    add('--csv', metavar='FILE,...', default='', help='lists, if they are not in --input')
    add('--labels', metavar='FILE', help="AudioSet's class_labels_indices.csv, or one class a line")
    add(
        '--label_column',
        metavar='NAME',
        default='',
        help='of shards: the column, extension or JSON field of the labels (default: the usual names)',
    )
    add(
        '--media_column',
        metavar='NAME,...',
        default='',
        help='of Parquet: the columns of the media (default: those of sound or video)',
    )
    add(
        '--modalities',
        metavar='LIST',
        default='',
        help='audio,video, audio or video: what a clip must have, and what is kept of it',
    )
    add(
        '--seconds', help='length of a clip, or all for the whole row (default: 10; all for sources of sound)'
    )
    add('--frames', type=int, help='frames of a clip (default: 2 a second, 8 at least)')
    add(
        '--frame_size',
        type=int,
        default=default.frame_size,
        help='width and height of the frames (default: %(default)s)',
    )
    add('--jpeg_quality', type=int, default=default.jpeg_quality, help='from 1 to 100 (default: %(default)s)')
    add('--keep', metavar='LIST', default='', help=f'do not refuse: {" or ".join(DOUBTFUL)}, or both')
    add(
        '--eval_fraction',
        type=float,
        default=0.1,
        help='share held out if no list names splits (default: %(default)s)',
    )
    add('--folder_labels', action='store_true', help='for folder: the first sub-folder is the class')
    add(
        '--shard_clips',
        type=int,
        default=default.shard_clips,
        help='most clips of a shard, roughly (default: %(default)s)',
    )
    add(
        '--runner',
        default='DirectRunner',
        help='runner of Apache Beam (default: %(default)s, on this machine)',
    )
    add('--workers', type=int, help='processes of the DirectRunner (default: one for each core)')
    add('--overwrite', action='store_true', help='remove another dataset that is in the way')
    add('beam_flags', nargs='*', metavar='-- BEAM_FLAGS', help='flags for the runner')


def _run(flags: argparse.Namespace) -> int:
    from etils import epath

    from diffmavil_jax.data.listings.registry import SOURCES
    from diffmavil_jax.data.listings.row import Request
    from diffmavil_jax.data.prepare.settings import Settings, usual_frames

    logging.disable(logging.WARNING)  # Beam warns of packages of Google's that it does not find
    try:
        from diffmavil_jax.data.prepare.builder import Runner
        from diffmavil_jax.data.prepare.run import prepare
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] != 'apache_beam':
            raise
        return fail("prepare needs Apache Beam: pip install -e '.[build]'", WRONG)
    finally:
        logging.disable(logging.NOTSET)

    source = SOURCES[flags.source]
    seconds = _seconds(flags.seconds) if flags.seconds else source.seconds
    request = Request(
        input=epath.Path(_absolute(flags.input)),
        labels=epath.Path(flags.labels) if flags.labels else None,
        tables=tuple(map(epath.Path, _listed(flags.csv))),
        eval_fraction=flags.eval_fraction,
        folder_labels=flags.folder_labels,
        label_column=flags.label_column,
        media_columns=_listed(flags.media_column),
    )
    prepared = prepare(
        flags.source,
        request,
        Settings(
            modalities=_listed(flags.modalities) or source.default_modalities(request),
            seconds=seconds,
            frames=usual_frames(seconds) if flags.frames is None else flags.frames,
            frame_size=flags.frame_size,
            jpeg_quality=flags.jpeg_quality,
            keep=_listed(flags.keep),
            shard_clips=flags.shard_clips,
        ),
        output=epath.Path(_absolute(flags.output)),
        name=flags.name or flags.source,
        runner=Runner(flags.runner, flags.workers or os.cpu_count() or 1, flags.beam_flags),
        overwrite=flags.overwrite,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    _print_report(prepared)
    return 0


def _print_report(prepared: Prepared) -> None:
    """Writes the page beside the dataset, and prints what was written and refused."""
    from diffmavil_jax.report.prepare_page import render_prepared

    page = prepared.folder / 'prepare_report.html'
    write_text(page, render_prepared(prepared.report))
    report = prepared.report
    was_there = 'was there already, ' if prepared.was_there else ''
    clips = f'{report["written"]:,} of {report["listed"]:,} clips'
    print(f'{prepared.folder}: {was_there}{clips}. Report: {page}')
    for reason, count in report['refused'].items():
        print(f'  refused {count:,}: {reason}')
    for warning in report['warnings']:
        print(f'  warning: {warning}')


def _absolute(path: str) -> str:
    """An absolute path: workers may run in another folder."""
    return path if '://' in path else os.path.abspath(os.path.expanduser(path))


def _seconds(text: str) -> float | None:
    from diffmavil_jax.data.clip import DataError

    if text == 'all':
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f'--seconds={text}: must be from 0.2 to 3600, or all.') from None


COMMAND = Command(
    'Makes a dataset of media files, to train on.',
    _add_flags,
    _run,
    when_stopped='stopped; the same command goes on where it was',
)


def _listed(text: str) -> tuple[str, ...]:
    """The parts of a flag that is separated by commas."""
    return tuple(part.strip() for part in text.split(',') if part.strip())
