"""Choices of clips by their class, and labels that are missing."""

import collections

import numpy as np
import pytest

from diffmavil_jax.data import labels
from diffmavil_jax.data.clip import DataError
from tests.data.labelled import Labelled


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
