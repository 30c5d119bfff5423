"""One table for each choice: python -m experiments.ablations [--minutes=20] [--samples=3000] [--seeds=1].

Each cell pretrains the demo with one choice changed and measures it. Cells are trained seed by seed, so
that the time budget cuts seeds, not tables; a finished cell is kept below --out and not run again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np

from configs import diffmavil
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from experiments import cells
from experiments.intervals import spell_mean

Fields = dict[str, Any]

_CROSS: Fields = {'model.audio_decoder': 'cross'}
_FEW: Fields = {'masking.start_ratio': 0.9, 'masking.end_ratio': 0.8}
# Table -> row -> the fields that it changes of configs/diffmavil.py; {} is that config itself.
TABLES: dict[str, dict[str, Fields]] = {
    'mask ratio and its curriculum': {
        'linear, 0.75 to 0.5 (default)': {},
        'cosine, 0.75 to 0.5': {'masking.curriculum': 'cosine'},
        'fixed at 0.5': {'masking.curriculum': 'none', 'masking.end_ratio': 0.5},
        'fixed at 0.75': {'masking.curriculum': 'none', 'masking.end_ratio': 0.75},
        'linear, 0.9 to 0.8': _FEW,
        'linear, 0.5 to 0.75': {'masking.start_ratio': 0.5, 'masking.end_ratio': 0.75},
    },
    'visible tokens drawn, 0.9 to 0.8': {
        'uniformly': _FEW,
        'by contrast': _FEW | {'masking.contrast_power': 1.0},
        'by its square': _FEW | {'masking.contrast_power': 2.0},
    },
    'batch': {
        'batch x visible tokens constant, learning rate by square root (default)': {},
        'fixed': {'batch.rule': 'fixed'},
        'multiply-accumulates of a step constant': {'batch.rule': 'macs'},
        'visible tokens, one learning rate': {'batch.lr_scaling': 'none'},
        'visible tokens, learning rate linear': {'batch.lr_scaling': 'linear'},
    },
    'diffusion': {
        'x_0, rho 0.8, no conditioning (default)': {},
        'rho 0.6': {'diffusion.rho': 0.6},
        'rho 1': {'diffusion.rho': 1.0},
        'cosine schedule': {'diffusion.schedule': 'cosine'},
        'eps': {'diffusion.target': 'eps'},
        'v': {'diffusion.target': 'v'},
        'time step added': {'diffusion.conditioning': 'add'},
        'time step by adaLN': {'diffusion.conditioning': 'adaln'},
        'mask tokens': {'diffusion.enabled': False},
    },
    'decoders, sound / picture': {
        'self / cross (default)': {},
        'self / self': {'model.video_decoder': 'self'},
        'cross / cross': _CROSS,
        'cross_self / cross_self': {'model.audio_decoder': 'cross_self', 'model.video_decoder': 'cross_self'},
    },
    'share of the masked tokens decoded, cross / cross': {
        'all': _CROSS,
        '1/2': _CROSS | {'model.decoded_fraction': 0.5},
        '1/4': _CROSS | {'model.decoded_fraction': 0.25},
        '1/10': _CROSS | {'model.decoded_fraction': 0.1},
    },
    'views': {
        'two (default)': {},
        'one': {'loss.second_view': False},
    },
    'contrastive weights, inter / intra': {
        '1 / 0.5 (default)': {},
        '0.1 / 0.01 (the papers)': {'loss.inter_weight': 0.1, 'loss.intra_weight': 0.01},
        '1 / 0': {'loss.intra_weight': 0.0},
        '0 / 0.5': {'loss.inter_weight': 0.0},
        '0 / 0': {'loss.inter_weight': 0.0, 'loss.intra_weight': 0.0},
    },
}

# Column -> the numbers that it is the mean of, and a factor.
COLUMNS: dict[str, tuple[tuple[str, ...], float, int]] = {
    'R@10, %': (('retrieval/a2v/r10', 'retrieval/v2a/r10'), 100, 1),
    'probe, sound, %': (('probe/audio/top1',), 100, 1),
    'probe, fused, %': (('probe/fused/top1',), 100, 1),
    'error, sound, low': (('reconstruction/audio/low',), 1, 2),
    'high': (('reconstruction/audio/high',), 1, 2),
    'error, picture, low': (('reconstruction/video/low',), 1, 2),
    'high ': (('reconstruction/video/high',), 1, 2),
}


def main() -> None:
    """Trains the missing cells as far as the time allows; prints the tables and writes them below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--minutes', type=float, default=20.0, help='no cell begins that would end later')
    parser.add_argument('--samples', type=int, default=3_000, help='clips of each training')
    parser.add_argument('--seeds', type=int, default=1)
    parser.add_argument('--tables', nargs='+', choices=TABLES, default=list(TABLES), metavar='TABLE')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/ablations'))
    options = parser.parse_args()
    keep_freed_memory()  # as main.py does
    use_compilation_cache('~/.cache/diffmavil_jax')
    results: dict[str, list[cells.Numbers]] = {}
    chosen = {table: TABLES[table] for table in options.tables}
    began, longest = time.perf_counter(), 0.0
    for seed in range(options.seeds):
        for fields in {name_of(f): f for rows in chosen.values() for f in rows.values()}.values():
            started = time.perf_counter()
            folder = options.out / f'{options.samples}_{seed}' / name_of(fields)
            if started - began + longest > 60 * options.minutes and not cells.is_finished(folder):
                continue
            results.setdefault(name_of(fields), []).append(
                cells.pretrain(make_config(fields, options.samples, seed), folder)
            )
            longest = max(longest, time.perf_counter() - started)
            print(f'seed {seed}, {name_of(fields)}: done', flush=True)
    text = '\n\n'.join(table(title, rows, results) for title, rows in chosen.items())
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f'ablations_{options.samples}.md').write_text(text + '\n')
    (options.out / f'ablations_{options.samples}.json').write_text(json.dumps(results, indent=2) + '\n')


def make_config(fields: Fields, samples: int, seed: int) -> Config:
    """The demo with some fields changed."""
    values = diffmavil.get_config('demo_plain')
    values.seed = seed
    values.update_from_flattened_dict(fields)
    return cells.with_samples(from_dict(values.to_dict()), samples)


def name_of(fields: Fields) -> str:
    """The name of a cell's folder."""
    return ','.join(f'{field}={value}' for field, value in fields.items()) or 'default'


def table(title: str, rows: dict[str, Fields], results: dict[str, list[cells.Numbers]]) -> str:
    """A table as Markdown; cells that there was no time for have a dash. ± is half of Student's interval."""
    lines = [
        [title, "n seeds (± half of Student's 95 % interval)", 'GMAC of a run', *COLUMNS],
        ['---'] * (3 + len(COLUMNS)),
    ]
    for row, fields in rows.items():
        numbers = results.get(name_of(fields), [])
        shown = [
            spell_mean(factor * np.array([np.mean([n[name] for name in names]) for n in numbers]), digits)
            if numbers
            else '-'
            for names, factor, digits in COLUMNS.values()
        ]
        macs = f'{numbers[0]["macs"] / 1e9:,.0f}' if numbers else '-'
        lines.append([row, str(len(numbers)), macs, *shown])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


if __name__ == '__main__':
    main()
