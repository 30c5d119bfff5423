"""How fast labels are read, and how often a clip is decoded: python -m experiments.throughput labels.

Writes a prepared dataset of generated clips of 10 s with 8 JPEG pictures of 224 pixels, and lists its only
split many times over. Prints as Markdown:

- the labels a second that fine-tuning reads before its first step, from the file of labels that `prepare`
  writes beside the shards, and from the records of older datasets, which have no such file;
- the pictures that are decoded for a training clip with its target.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from unittest import mock

import numpy as np
from etils import epath

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data import labels, wrappers
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared import source as prepared_source
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.label_file import write_labels
from diffmavil_jax.data.prepared.source import PreparedSource
from experiments.streaming import SPEC, write_dataset

CLASSES = 527
RECORDS = 2_000  # that are read
TRAINING_CLIPS = 50


def main() -> None:
    """Writes the dataset and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--clips', type=int, default=1_000, help='clips in the shards')
    parser.add_argument('--times', type=int, default=300, help='how often the split is listed')
    parser.add_argument('--repeats', type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = write_dataset(directory, '', options.clips, SPEC.frame_size)
        print('| labels from | clips | labels a second, each repeat |\n|---|---|---|')
        show('the records', path, max(1, RECORDS // options.clips), options.repeats)
        rng = np.random.default_rng(0)
        sets = [sorted(rng.choice(CLASSES, rng.integers(1, 5), replace=False)) for _ in range(options.clips)]
        write_labels(epath.Path(path), 'train', sets)
        show('the file beside the shards', path, options.times, options.repeats)
        print('\n| a training clip with its target | pictures decoded |\n|---|---|')
        for modalities in (MODALITIES, ('audio',), ('video',)):
            print(f'| {" and ".join(modalities)} | {decoded(path, modalities):g} |')


def opened(path: str, times: int, modalities: tuple[str, ...] = MODALITIES) -> PreparedSource:
    """The clips of the dataset, as often as is wanted."""
    source = PreparedSource(open_prepared(path), ['train'] * times, SPEC, Ledger(path, 1, 1.0), modalities)
    source.label_names = tuple(map(str, range(CLASSES)))
    return source


def show(what: str, path: str, times: int, repeats: int) -> None:
    """Prints labels a second, for a dataset that is opened anew each time."""
    speeds = []
    for _ in range(repeats):
        source = opened(path, times)
        began = time.perf_counter()
        found = labels.label_sets(source)
        speeds.append(len(found) / (time.perf_counter() - began))
    print(f'| {what} | {len(found):,} | {", ".join(f"{speed:,.0f}" for speed in speeds)} |', flush=True)


def decoded(path: str, modalities: tuple[str, ...]) -> float:
    """How many pictures are decoded for a training clip."""
    source = wrappers.Targets(opened(path, 1, modalities), modalities)
    decode = prepared_source.decode_picture
    with mock.patch.object(prepared_source, 'decode_picture', side_effect=decode) as counted:
        for i in range(TRAINING_CLIPS):
            source[i % len(source)]
    return counted.call_count / TRAINING_CLIPS


if __name__ == '__main__':
    main()
