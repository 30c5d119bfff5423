"""What pretraining gives on labelled sounds: python -m experiments.downstream --init=RUN --data=DIR.

DIR holds what `diffmavil prepare` writes of ESC-10 (`esc10`) and of the spoken digits (`spoken_digit`).
Each comparison trains RUN's network, with RUN's parameters and with new ones, on the same clips in the same
order for each seed. Each training is a run of main.py below --out; a finished one is not run again.
Flags that are not listed go to every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.intervals import spell_difference

ROOT = pathlib.Path(__file__).parents[1]


def _recipe(samples: int, learning_rate: float, batch: int) -> dict[str, Any]:
    """The recipe for the demo's small network: mixed clips and hidden tokens slow it more than they help."""
    return {
        'train.samples': samples,
        'optimizer.warmup_samples': samples // 10,
        'optimizer.learning_rate': learning_rate,
        'batch.size': batch,
        'batch.max_size': batch,
        'finetune.mixup_rate': 0.0,
        'finetune.time_mask': 0.0,
        'finetune.frequency_mask': 0.0,
    }


# Rates were chosen on validation clips: of folds 1 to 3, and of the digits' training clips.
ESC10 = {
    'finetune.folds': 'fold1,fold2,fold3,fold4',
    'finetune.spec_augment_time': 48,
    'finetune.spec_augment_frequency': 8,
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two trainings that differ in the origin of their parameters."""

    variant: str  # of configs/finetune.py, and the name of the prepared set
    fields: Mapping[str, Any]  # of the config
    meaning: str


COMPARISONS = {
    'esc10': Comparison('esc10', ESC10 | _recipe(3_000, 2e-3, 16), 'ESC-10, folds 1 to 4, fine-tuned'),
    'esc10_probe': Comparison(
        'esc10',
        ESC10
        | {'finetune.probe': 'linear', 'augmentation.roll': False, 'augmentation.gain': False}
        | {'finetune.spec_augment_time': 0, 'finetune.spec_augment_frequency': 0}
        | _recipe(6_000, 1e-2, 8),
        'ESC-10, folds 1 to 4, frozen, linear probe',
    ),
    'digits': Comparison('spoken_digit', _recipe(16_000, 4e-3, 32), 'spoken digits, fine-tuned on all'),
    'digits_10': Comparison(
        'spoken_digit',
        {'finetune.clips_per_class': 10} | _recipe(4_000, 4e-3, 32),
        'spoken digits, fine-tuned on 10 a class',
    ),
}


def main() -> None:
    """Trains the missing cells and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--init', required=True, type=pathlib.Path, help='a pretraining run')
    parser.add_argument('--data', required=True, type=pathlib.Path, help='the folder of the prepared sets')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/downstream'))
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--comparisons', nargs='+', choices=COMPARISONS, default=list(COMPARISONS))
    options, extra = parser.parse_known_args()
    print("| one pretraining, top-1 | pretrained | from scratch | difference, Student's 95 % interval | n |")
    print('|---|---|---|---|---|')
    for name in options.comparisons:
        comparison = COMPARISONS[name]
        pretrained, scratch = (
            np.array([_accuracies(options, name, seed, origin, extra) for seed in range(options.seeds)])
            for origin in ((), ('--config.finetune.scratch',))
        )
        seeds, folds = pretrained.shape
        cells = (
            spell(pretrained),
            spell(scratch),
            spell_difference((pretrained - scratch).ravel()),
            f'{seeds} fine-tunings' + (f' x {folds} folds' if folds > 1 else ''),
        )
        print(f'| {comparison.meaning} | {" | ".join(cells)} |', flush=True)


def spell(scores: np.ndarray) -> str:
    """The mean, and each seed's over its folds."""
    return f'{scores.mean():.1f} % ({", ".join(f"{score:.1f}" for score in scores.mean(axis=1))})'


def _accuracies(
    options: argparse.Namespace, name: str, seed: int, origin: tuple[str, ...], extra: list[str]
) -> list[float]:
    """Test accuracy of one run in per cent; of each fold if it has folds."""
    comparison = COMPARISONS[name]
    workdir = (options.out / f'{name}_{"scratch" if origin else "pretrained"}_{seed}').absolute()
    command = [
        sys.executable,
        'main.py',
        f'--config=configs/finetune.py:{comparison.variant}',
        f'--config.init={options.init.absolute()}',
        f'--config.data.path={(options.data / comparison.variant).absolute()}',
        f'--config.seed={seed}',
        f'--workdir={workdir}',
        *(f'--config.{field}={value}' for field, value in comparison.fields.items()),
        *origin,
        *extra,
    ]
    # A finished run says so; a run with other flags is refused.
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    top1 = json.loads((workdir / 'report' / 'summary.json').read_text())['test']['top1']
    return [100 * score for score in top1.get('folds', [top1.get('value')])]


if __name__ == '__main__':
    main()
