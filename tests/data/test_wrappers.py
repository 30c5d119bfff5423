"""Targets, choices by class, and draws that favour rare classes."""

import collections

import numpy as np
import pytest

from diffmavil_jax.data import labels, wrappers
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.mixture import endless
from diffmavil_jax.data.pipeline import Loader


class Labelled:
    """Clip i holds the number i."""

    name, modalities = 'a source', ('audio', 'video')

    def __init__(self, sets, names='abcde', multi_label=False):
        self.sets, self.label_names, self.multi_label = sets, tuple(names), multi_label

    def __len__(self):
        return len(self.sets)

    def __getitem__(self, index):
        arrays = {'waveform': np.array([index], np.int16), 'frames': np.zeros((1, 1, 1, 3), np.uint8)}
        return arrays | {'label': -1, 'id': str(index)}

    def labels(self, index):
        return np.array(self.sets[index], np.int64)


def test_targets_have_all_classes_and_the_arrays_that_are_wanted():
    source = wrappers.Targets(Labelled([[0], [1, 4], []], multi_label=True), ('audio',))
    assert [source[i]['target'].tolist() for i in range(3)] == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0] * 5]
    assert 'frames' not in source[0] and source[0]['target'].dtype == np.float32


def test_a_loader_batches_targets():
    source = wrappers.Targets(Labelled([[i % 5] for i in range(40)]), ('audio',))
    loader = Loader(source, seed=0, threads=1, prefetch_batches=1, largest_batch=8)
    batch, ids = next(loader.batches(0, [8]))
    assert 'frames' not in batch and batch['target'].shape == (8, 5)
    assert [int(i) % 5 for i in ids] == batch['target'].argmax(axis=1).tolist()


def test_split_by_class_holds_out_a_share_of_each_class():
    sets = [np.array([k]) for k in [0] * 50 + [1] * 10 + [2] * 3]
    kept, held_out = labels.split_by_class(sets, 0.2, seed=3)
    assert sorted(kept + held_out) == list(range(63))
    assert collections.Counter(int(sets[i][0]) for i in held_out) == {0: 10, 1: 2, 2: 1}
    assert (kept, held_out) == labels.split_by_class(sets, 0.2, seed=3)
    assert held_out != labels.split_by_class(sets, 0.2, seed=4)[1]
    assert labels.split_by_class(sets, 0.0, seed=3) == (list(range(63)), [])


def test_few_of_each_class_counts_a_clip_for_its_rarest_class():
    sets = [np.array([0])] * 20 + [np.array([0, 1])] * 4
    chosen = labels.few_of_each_class(sets, 3, seed=0)
    assert sum(i < 20 for i in chosen) == 3 == sum(i >= 20 for i in chosen)


def test_balanced_draws_follow_the_samplers_weights():
    sets = [[0]] * 90 + [[1]] * 9 + [[2]]
    source = wrappers.Balanced(Labelled(sets), [np.array(s) for s in sets])
    drawn = [source.draw(7, position) for position in range(6_000)]
    shares = np.bincount([sets[i][0] for i in drawn], minlength=3) / len(drawn)
    weights = np.array([90 / 90.01, 9 / 9.01, 1 / 1.01])
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)


def test_a_balanced_order_is_a_function_of_seed_and_position():
    sets = [[i % 3] for i in range(30)]
    source = wrappers.Balanced(Labelled(sets), [np.array(s) for s in sets])
    first = [endless(source, 5)[k]['id'] for k in range(20)]
    assert first == [str(source.draw(5, k)) for k in range(20)]
    assert first != [endless(source, 6)[k]['id'] for k in range(20)]


@pytest.mark.parametrize(
    ('sets', 'least', 'error'),
    [
        ([[0], [1], []], 1, '1 of the 3 training clips of a source have no label'),
        ([[0], [0]], 1, 'training clips of 1 classes'),
        ([[0]] * 3 + [[1]] * 3 + [[2]], 2, r"3 of 5 classes .* fewer than 2 clips to train on: 'c' \(1\)"),
    ],
)
def test_labels_that_are_missing_are_named(sets, least, error):
    with pytest.raises(DataError, match=error):
        labels.check_labels(Labelled(sets), [np.array(s, np.int64) for s in sets], least)


def test_a_clip_of_several_classes_may_have_none():
    sets = [np.array([0, 1]), np.array([], np.int64)]
    labels.check_labels(Labelled(sets, multi_label=True), sets, 2)
