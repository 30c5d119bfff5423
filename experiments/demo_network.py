r"""Makes the network of `load('demo')` from a run: python -m experiments.demo_network --run=RUN.

The run is

    python main.py --config=configs/diffmavil.py:demo_long --config.train.samples=30000 \
        --config.evaluation.every_samples=30000 --workdir=RUN

on generated clips alone, which nobody has rights in. With --esc10=DIR, which has the ten classes of ESC-50
(Piczak 2015) as `esc10.csv` and `audio/`, the card gets what a linear classifier finds of real sounds, which
the network has never heard: cross-validated accuracy on the folds of its author, as many as are there, beside
the mean and the standard deviation of each mel band.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffmavil_jax.atomic import write_json
from diffmavil_jax.data.windows import Reader, Window
from diffmavil_jax.inference.embed import Model, load
from diffmavil_jax.interop.exporting import export
from diffmavil_jax.models.frontend import spectrogram
from diffmavil_jax.saved.demo import DEMO_FOLDER

_LIMITS = (
    'Trained on generated clips alone: struck, bouncing objects.',
    'It tells pitch, colour, size and material of such objects, and finds the picture of their sound.',
    'It has seen and heard nothing real: no animals, people, speech or music. On the sounds of ESC-10 a '
    'linear classifier does better with the mean and deviation of each mel band (scores.esc10). Take it to '
    'try the commands, for tests and as a small example, not for features of real films.',
    'It does not tell when things hit, nor the shape that is seen.',
)


def main() -> None:
    """Writes the package's network and its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--run', required=True, help='the run to export')
    parser.add_argument('--esc10', help='real sounds to measure it on')
    options = parser.parse_args()
    draft = DEMO_FOLDER.with_name('demo_draft')
    card = export(options.run, draft, 'safetensors', licence='Apache-2.0', overwrite=False, dtype='bfloat16')
    card['training_data'] = {'source': 'generated, which needs no licence', 'difficulty': 'easy'}
    card['remarks'] = [*_LIMITS, *card['remarks'], 'Parameters are rounded to bfloat16.']
    if options.esc10:
        card['scores']['esc10'] = esc10_accuracy(load(draft), pathlib.Path(options.esc10))
    write_json(draft / 'card.json', card)
    for path in draft.iterdir():
        path.replace(DEMO_FOLDER / path.name)
        print(f'{path.name}: {(DEMO_FOLDER / path.name).stat().st_size:,} bytes')
    draft.rmdir()
    print(json.dumps(card['scores'].get('esc10')))


def esc10_accuracy(model: Model, root: pathlib.Path) -> dict[str, float]:
    """Cross-validated accuracy of a linear classifier on features of sounds, and on their mel bands."""
    with (root / 'esc10.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    paths = [str(root / 'audio' / row['filename']) for row in rows]
    labels, folds = (np.array([int(row[name]) for row in rows]) for name in ('target_esc10', 'fold'))
    config = model.config

    def network(waveform: np.ndarray) -> np.ndarray:
        return np.asarray(model.features({'waveform': waveform[None]})['audio'][0])

    def bands(waveform: np.ndarray) -> np.ndarray:
        frames = np.asarray(spectrogram(waveform[None], config.audio, config.data.sample_rate))[0]
        return np.concatenate([frames.mean(0).ravel(), frames.std(0).ravel()])

    windows = [window for window in _windows(model, paths) if window.waveform is not None]
    return {
        'clips': float(len(rows)),
        'folds': float(len(np.unique(folds))),
        'chance': 0.1,
        'top1': cross_validated(_means(windows, paths, network), labels, folds),
        'top1_of_mel_bands': cross_validated(_means(windows, paths, bands), labels, folds),
    }


def cross_validated(
    x: Float[np.ndarray, 'n d'], labels: Int64[np.ndarray, ' n'], folds: Int64[np.ndarray, ' n']
) -> float:
    """Accuracy on each fold of a classifier that was fitted on the others, over all clips."""
    right = 0
    for fold in np.unique(folds):
        held_out = folds == fold
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2_000))
        classifier.fit(x[~held_out], labels[~held_out])
        right += int((classifier.predict(x[held_out]) == labels[held_out]).sum())
    return right / len(labels)


def _windows(model: Model, paths: list[str]) -> list[Window]:
    reader = Reader(model.clip, ('audio',), 'audio', workers=1)
    return [item for item in reader.windows(paths, ahead=32) if isinstance(item, Window)]


def _means(
    windows: list[Window], paths: list[str], feature: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, 'n d']:
    """The mean of a feature over the windows of each file."""
    of_file: dict[str, list[np.ndarray]] = {path: [] for path in paths}
    for window in windows:
        of_file[window.id.rpartition('@')[0]].append(feature(window.waveform))
    return np.stack([np.mean(features, axis=0) for features in of_file.values()])


if __name__ == '__main__':
    main()
