"""`diffmavil reconstruct`: media files of which most is hidden, filled in by a network."""

from __future__ import annotations

import argparse
import sys

from diffmavil_jax.commands.command import FAILED, Command, hide_warnings, say


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('files', nargs='+', metavar='FILE', help='media')
    add('--run', required=True, metavar='DIR', help='the workdir of a pretraining run')
    add(
        '--output',
        required=True,
        metavar='DIR',
        help='the directory to write to, which must have no file of the same name yet',
    )
    add(
        '--mask_ratio',
        type=float,
        metavar='R',
        help="share that is hidden (default: that of the run's evaluation; with --drop, none)",
    )
    add('--drop', default='', metavar='NAME', help='audio or video, which is then made from the other alone')
    add(
        '--steps',
        type=int,
        metavar='N',
        help='steps of the sampler (default: 1, or 25 if the network predicts noise)',
    )
    add('--sampler', default='ddim', metavar='NAME', help='ddim or ancestral (default: %(default)s)')
    add(
        '--eta',
        type=float,
        default=0.0,
        metavar='X',
        help='noise that ddim adds, from 0 to 1 (default: %(default)s)',
    )
    add('--seed', type=int, default=0, metavar='N', help='seed of masks and noise (default: %(default)s)')
    add(
        '--start_s', type=float, default=0.0, metavar='S', help='second at which the clip begins (default: 0)'
    )
    add('--video', default='gif', metavar='FORMAT', help='gif or mp4 (default: %(default)s)')
    add('--overwrite', action='store_true', help='replace files of --output, but never an input')


def _run(flags: argparse.Namespace) -> int:
    from diffmavil_jax.data.clip import Refusal, printable
    from diffmavil_jax.inference.reconstruct import Options
    from diffmavil_jax.inference.reconstruction_files import reconstruct

    hide_warnings()
    options = Options(flags.mask_ratio, flags.drop, flags.steps, flags.sampler, flags.eta, flags.seed)
    refused = 0
    for result in reconstruct(
        flags.files,
        flags.run,
        flags.output,
        options,
        start_s=flags.start_s,
        video=flags.video,
        overwrite=flags.overwrite,
    ):
        if isinstance(result, Refusal):
            refused += 1
            print(f'refused {printable(result.path)}: {result.reason}', file=sys.stderr)
        else:
            say(f'{printable(result.path)}: {" ".join(printable(str(file)) for file in result.files)}')
    return FAILED if refused else 0


COMMAND = Command('Fills in the hidden part of clips: pictures, films and sounds.', _add_flags, _run)
