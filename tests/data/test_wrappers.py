"""Targets, draws that favour rare classes, and blanks for what a clip lacks."""

import numpy as np

from diffmavil_jax.data import wrappers
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.mixture import endless
from diffmavil_jax.data.pipeline import Loader
from tests.data.labelled import Labelled


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


class Sounds:
    name, modalities, label_names, multi_label = 'sounds', ('audio',), ('a',), False

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {'waveform': np.full(16_000, index, np.int16), 'label': 0, 'id': str(index)}


def test_black_stands_in_for_pictures():
    clip = wrappers.Completed(Sounds(), ClipSpec(16_000, 1.0, 4, 8))[2]
    assert clip['present'].tolist() == [1, 0]
    assert clip['frames'].shape == (4, 8, 8, 3) and not clip['frames'].any()
    assert (clip['waveform'] == 2).all()
