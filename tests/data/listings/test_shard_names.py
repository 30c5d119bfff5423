"""Which shards are meant, and which splits their names tell."""

import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.shard_names import expand_braces, find_shards, split_of


@pytest.fixture
def folder(tmp_path):
    for name in ('train/a-00.tar', 'train/a-01.tar', 'test/a-00.tar', '.x.tar', 'readme.txt', 'b[1].tar'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('given', 'root', 'found'),
    [
        ('', '', ['b[1].tar', 'test/a-00.tar', 'train/a-00.tar', 'train/a-01.tar']),
        ('/train/a-01.tar', '/train', ['a-01.tar']),
        ('/b[1].tar', '', ['b[1].tar']),
        ('/train/*.tar', '/train', ['a-00.tar', 'a-01.tar']),
        ('/t*/a-00.tar', '', ['test/a-00.tar', 'train/a-00.tar']),
        ('/{train,test}/a-{00..01}.tar', '', [f'{s}/a-0{i}.tar' for s in ('test', 'train') for i in (0, 1)]),
        ('/train/a-{00..01}.tar', '/train', ['a-00.tar', 'a-01.tar']),
    ],
)
def test_shards_are_found(folder, given, root, found):
    assert find_shards(f'{folder}{given}', ['.tar']) == (f'{folder}{root}', found)


@pytest.mark.parametrize('given', ['/none', '/none*.tar', '/none.tar'])
def test_none_is_found(folder, given):
    with pytest.raises(DataError, match='no file has such a name. It must be a folder, a file, a glob'):
        find_shards(f'{folder}{given}', ['.tar'])


def test_an_unknown_url():
    with pytest.raises(DataError, match="ftpx://a can't be read"):
        find_shards('ftpx://a', ['.tar'])


def test_braces():
    assert list(expand_braces('a{8..10}b{x,y}')) == ['a8bx', 'a8by', 'a9bx', 'a9by', 'a10bx', 'a10by']
    assert list(expand_braces('{0008..0009}')) == ['0008', '0009']
    for wrong in ('{9..1}', '{0..99999999}', '{0..9999}{0..9999}'):
        with pytest.raises(DataError, match='must be'):
            list(expand_braces(wrong))


@pytest.mark.parametrize(
    ('shard', 'split'),
    [
        ('data/train-00000-of-00010.parquet', 'train'),
        ('fold1-00000-of-00001.parquet', 'fold1'),
        ('test_clean-0.tar', 'test_clean'),
        ('data/test-000.tar', 'test'),
        ('20k/train/000.tar', 'train'),
        ('bal_train09.tar', 'balanced_train'),
        ('data/unbal_train/070.parquet', 'unbalanced_train'),
        ('data/eval00.tar', 'eval'),
        ('shard-000000.tar', None),
        ('trainer/00000.tar', None),
    ],
)
def test_splits_are_told_by_names(shard, split):
    assert split_of(shard) == split
