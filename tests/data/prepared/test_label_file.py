"""Labels of clips in a few arrays, and the same labels out of records."""

import numpy as np
import pytest

from diffmavil_jax.data.prepared.format import example_features, labels_of
from diffmavil_jax.data.prepared.label_file import Labels

SETS = [(3,), (), (0, 1, 526), (7,), (300,)]


def lists(labels):
    return [labels[i].tolist() for i in range(len(labels))]


def test_labels_have_any_number_of_classes():
    labels = Labels.of(SETS)
    assert lists(labels) == [list(group) for group in SETS]
    assert lists(labels.between(1, 4)) == [list(group) for group in SETS[1:4]]
    assert len(labels.between(2, 2)) == 0
    assert lists(Labels.joined([labels.between(3, 5), labels])) == [list(g) for g in SETS[3:] + SETS]
    assert len(Labels.of([])) == 0


@pytest.mark.parametrize(('counts', 'indices'), [([1, 1], [0]), ([1], [0, 1]), ([-1, 2], [0])])
def test_counts_that_do_not_fit_are_refused(counts, indices):
    with pytest.raises(ValueError, match='do not fit'):
        Labels(np.array(counts), np.array(indices))


@pytest.mark.parametrize('group', [*SETS, (2**40,)])
def test_labels_are_read_out_of_a_record(example, group):
    record = example_features().serialize_example(example(labels=list(group), id='\n\x06labels\x12'))
    assert labels_of(record) == group


def field(tag, content):
    assert len(content) < 128
    return tag + bytes([len(content)]) + content


@pytest.mark.parametrize('labels_first', [True, False])
def test_entries_may_stand_in_any_order(labels_first):
    def entry(key, feature):
        return field(b'\n', field(b'\n', key) + field(b'\x12', feature))

    labels = entry(b'labels', field(b'\x1a', field(b'\n', b'\x05\xac\x02')))
    other = entry(b'id', field(b'\n', field(b'\n', b'\n\x06labels\x12\x03\x1a\x01\n')))
    record = field(b'\n', labels + other if labels_first else other + labels)
    assert labels_of(record) == (5, 300)


@pytest.mark.parametrize('record', [b'', b'abc', b'\n\x06labels\x12', b'\n\x06labels\x12\x05\x1a\x09'])
def test_a_broken_record_has_none(record):
    with pytest.raises(ValueError, match='labels'):
        labels_of(record)
