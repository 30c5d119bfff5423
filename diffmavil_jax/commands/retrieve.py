"""`diffmavil retrieve`: which sound belongs to which picture, in a prepared dataset."""

from __future__ import annotations

import argparse

from diffmavil_jax.commands.command import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--run', required=True, metavar='DIR', help='the workdir of a pretraining run')
    add('--data', required=True, metavar='DIR', help='a dataset written by `diffmavil prepare`')
    add('--split', default='test', help='the split whose clips are used (default: %(default)s)')
    add(
        '--clips_per_class',
        type=int,
        default=5,
        metavar='N',
        help='clips of each class, or 0 for all (default: 5)',
    )
    add('--seed', type=int, default=0, metavar='N', help='seed of the choice of clips (default: 0)')


def _run(flags: argparse.Namespace) -> int:
    from diffmavil_jax.inference.retrieve import retrieve

    result = retrieve(
        flags.run, flags.data, flags.split, clips_per_class=flags.clips_per_class, seed=flags.seed
    )
    for name, title in (('a2v', 'sound to picture'), ('v2a', 'picture to sound'), ('chance', 'chance')):
        scores = result[name]
        recalls = '  '.join(f'R@{k} {100 * scores[f"recall_at_{k}"]:5.1f} %' for k in (1, 5, 10))
        print(f'{title:17} {recalls}  median rank {scores["median_rank"]:g} of {scores["num_candidates"]:g}')
    for remark in result['remarks']:
        print(remark)
    return 0


COMMAND = Command('Finds the sound of each picture, and the picture of each sound.', _add_flags, _run)
