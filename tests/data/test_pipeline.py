import itertools
import threading

import numpy as np
import pytest

from diffmavil_jax.data.pipeline import Loader, stack

LENGTH = 10


class Numbers:
    """Clip i holds the number i everywhere."""

    label_names = ()

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if not 0 <= index < LENGTH:
            raise IndexError(index)
        return {
            'waveform': np.full(3, index, np.int16),
            'frames': np.full((1, 2, 2, 3), index, np.uint8),
            'label': index,
            'id': f'clip {index}',
        }


def batches(sizes, first_sample=0, source=None, **settings):
    options = {'seed': 7, 'threads': 2, 'prefetch_batches': 2, 'largest_batch': max(sizes), **settings}
    return list(Loader(source or Numbers(), **options).batches(first_sample, sizes))


def items(loaded):
    """(position, number) of each clip, in order."""
    pairs = [zip(batch['position'], batch['waveform'][:, 0], strict=True) for batch, _ in loaded]
    return [(int(position), int(number)) for position, number in itertools.chain(*pairs)]


@pytest.fixture(scope='module')
def order():
    """The first 40 clips of the run."""
    return items(batches([4] * 10))


@pytest.mark.parametrize('sizes', [[40], [1, 2, 3, 4, 30], [16, 8, 8, 4, 4], [5] * 8])
def test_a_batch_holds_the_clips_from_those_seen_whatever_the_sizes_before(order, sizes):
    loaded = batches(sizes)
    assert [len(batch['position']) for batch, _ in loaded] == sizes
    seen = 0
    for (batch, _), size in zip(loaded, sizes, strict=True):
        assert items([(batch, None)]) == order[seen : seen + size]
        seen += size


@pytest.mark.parametrize('first_sample', [1, 9, 10, 13, 32])
def test_starts_at_any_clip(order, first_sample):
    assert items(batches([4, 4], first_sample)) == order[first_sample : first_sample + 8]


def test_positions_are_the_samples_seen_before_each_clip(order):
    assert [position for position, _ in order] == list(range(40))
    batch, _ = batches([4], 5)[0]
    assert batch['position'].dtype == np.int32
    assert batch['position'].tolist() == [5, 6, 7, 8]


def test_batches_are_stacked_with_the_ids_of_their_clips():
    batch, ids = batches([4])[0]
    assert batch['waveform'].shape == (4, 3) and batch['waveform'].dtype == np.int16
    assert batch['frames'].shape == (4, 1, 2, 2, 3) and batch['frames'].dtype == np.uint8
    assert ids == [f'clip {number}' for number in batch['waveform'][:, 0]]
    assert (batch['frames'][:, 0, 0, 0, 0] == batch['waveform'][:, 0]).all()


def test_two_hosts_share_the_clips_of_one(order):
    hosts = [batches([8, 4, 4], 6, host=host, hosts=2) for host in range(2)]
    seen = 6
    for k, size in enumerate([8, 4, 4]):
        parts = [items([host[k]]) for host in hosts]
        assert [len(part) for part in parts] == [size // 2, size // 2]
        assert sorted(parts[0] + parts[1]) == order[seen : seen + size]
        seen += size


def test_the_number_of_threads_changes_nothing(order):
    assert items(batches([4] * 10, threads=1)) == order
    assert items(batches([4] * 10, threads=4)) == order


def test_each_epoch_is_a_permutation_of_its_own(order):
    numbers = [number for _, number in order]
    epochs = [numbers[start : start + LENGTH] for start in range(0, 40, LENGTH)]
    assert all(sorted(epoch) == list(range(LENGTH)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(LENGTH))}) == 5


def test_the_seed_decides_the_order(order):
    assert items(batches([4] * 10, seed=8)) != order
    assert items(batches([4] * 10, seed=7)) == order


def test_an_exception_in_the_source_reaches_the_consumer():
    class Broken(Numbers):
        def __getitem__(self, index):
            if index == 3:
                raise OSError('clip 3 is gone')
            return super().__getitem__(index)

    with pytest.raises(OSError, match='clip 3 is gone'):
        batches([LENGTH], source=Broken())


def test_batches_are_made_ahead_of_the_consumer():
    read = []
    enough = threading.Event()

    class Watched(Numbers):
        def __getitem__(self, index):
            read.append(index)
            if len(read) >= 6:
                enough.set()
            return super().__getitem__(index)

    loader = Loader(Watched(), seed=0, threads=1, prefetch_batches=3, largest_batch=2)
    iterator = loader.batches(0, [2] * 50)
    assert enough.wait(timeout=30), 'three batches of two clips are read before anyone asks'
    assert len(next(iterator)[1]) == 2


def test_stack_leaves_labels_and_ids_out():
    assert set(stack([Numbers()[1], Numbers()[2]])) == {'waveform', 'frames'}
