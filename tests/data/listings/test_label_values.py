"""Classes of the labels that shards hold."""

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.label_values import label_rows


def values(*labels):
    return [(f'row {i}', label) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ('labels', 'names', 'classes', 'found'),
    [
        ((2, 0, None), None, ('0', '1', '2'), [(2,), (0,), ()]),
        ((2.0, float('nan'), -1), None, ('0', '1', '2'), [(2,), (), ()]),
        (('b', ' a ', ''), None, ('a', 'b'), [(1,), (0,), ()]),
        ((['b', 'a'], [], None), None, ('a', 'b'), [(0, 1), (), ()]),
        ((1, 0), ['x', 'a'], ('x', 'a'), [(1,), (0,)]),
        ((None,), None, (), [()]),
    ],
)
def test_classes(labels, names, classes, found):
    assert label_rows(values(*labels), names, None) == (classes, found)


def test_a_list_gives_the_order(tmp_path):
    path = epath.Path(tmp_path / 'names')
    path.write_text('b\na\nc\n')
    assert label_rows(values('a', 'b'), None, path) == (('b', 'a', 'c'), [(1,), (0,)])
    assert label_rows(values(1, 2), None, path) == (('b', 'a', 'c'), [(1,), (2,)])
    assert label_rows(values(1, 0), ['c', 'b'], path) == (('b', 'a', 'c'), [(0,), (2,)])
    with pytest.raises(DataError, match="row 0: label 'd' is not one of the 3 in"):
        label_rows(values('d'), None, path)


@pytest.mark.parametrize('wrong', [True, 1.5, -2, 10**9, {'a': 1}, 'a\nb'])
def test_what_is_no_label(wrong):
    with pytest.raises(DataError, match='row 0: label = '):
        label_rows(values(wrong), None, None)
