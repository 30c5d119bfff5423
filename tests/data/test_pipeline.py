"""Batches, whose order does not depend on resumes, hosts, threads or worker processes."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import ClipSpec, DataError, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.mixture import Mixture
from diffmavil_jax.data.pipeline import Loader, stack
from diffmavil_jax.data.take import Takes
from diffmavil_jax.data.world import GeneratedWorld

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


def test_reading_ends_when_the_batches_are_dropped():
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == 'batches']

    before = len(threads())
    closed, dropped, unread = (
        Loader(Numbers(), seed=0, threads=1, prefetch_batches=1, largest_batch=2).batches(0, [2] * 50)
        for _ in range(3)
    )
    assert next(closed) and next(dropped) and len(threads()) == before + 3
    closed.close()
    assert list(closed) == []
    del dropped, unread
    gc.collect()
    assert len(threads()) == before


class TestWorkers:
    def workers(self):
        alive = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
        return [child for child in alive if 'spawn_main' in ' '.join(child.cmdline())]

    def test_read_the_clips_that_this_process_would_read_and_tell_what_they_refuse(self):
        def load(**options):
            mixture = Mixture([WithBadOne('one'), WithBadOne('two')], weights=(3, 2))
            loaded = batches([4, 8, 20, 24], 13, source=mixture, **options)
            return items(loaded), [ids for _, ids in loaded], mixture.refused()

        expected = load()
        assert [position for position, _ in expected[0]] == list(range(13, 69))
        assert expected[2] == [Refusal('one/clip 3', 'silent'), Refusal('two/clip 3', 'silent')]
        assert load(workers=4) == expected
        assert self.workers() == []

    def test_one_that_is_killed_is_an_error_and_not_a_hang(self, order):
        loader = Loader(Numbers(), seed=7, threads=1, prefetch_batches=1, largest_batch=4, workers=1)
        batches = loader.batches(0, itertools.repeat(4))
        assert items([next(batches)]) == order[:4]
        (worker,) = self.workers()
        for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; a worker ignores them
            worker.send_signal(number)
        time.sleep(0.2)
        for _ in range(8):
            next(batches)
        worker.kill()
        with pytest.raises(DataError, match=r'worker process .* ended by SIGKILL.*config\.data\.workers'):
            list(batches)
        assert self.workers() == []

    def test_end_with_the_process_that_trains(self):
        code = """
            import time
            from diffmavil_jax.data.clip import ClipSpec
            from diffmavil_jax.data.pipeline import Loader
            from diffmavil_jax.data.world import GeneratedWorld

            if __name__ == '__main__':
                world = GeneratedWorld(ClipSpec(16_000, 0.5, 2, 16), seed=0, length=100)
                loader = Loader(world, seed=0, threads=1, prefetch_batches=1, largest_batch=2, workers=1)
                batches = loader.batches(0, [2] * 1000)
                next(batches)
                print('reading', flush=True)
                time.sleep(60)
        """
        main = subprocess.Popen(
            [sys.executable, '-c', textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        assert main.stdout.readline() == 'reading\n'
        children = psutil.Process(main.pid).children()
        os.kill(main.pid, signal.SIGKILL)
        main.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []


class WithBadOne(Numbers):
    """Clip 3 is refused, and the next one takes its place."""

    modalities = MODALITIES
    label_names = tuple('abcdefghij')
    multi_label = False

    def __init__(self, name):
        self.name = name
        self.usable = Substitutes(name, LENGTH, Ledger(name, LENGTH, 1.0))

    def __getitem__(self, index):
        _, clip, passed = self.usable.find(index, self.read)
        return clip | {'refused': passed} if passed else clip

    def read(self, i):
        if i == 3:
            raise UnusableError(Refusal('clip 3', 'silent'))
        return super().__getitem__(i)

    def refused(self):
        return self.usable.refused()

    def record(self, refused):
        self.usable.record(refused)


def test_stack_leaves_out_what_no_clip_has_and_refuses_what_only_some_have():
    sound = {name: value for name, value in Numbers()[1].items() if name != 'frames'}
    assert set(stack([sound, sound])) == {'waveform'}
    with pytest.raises(DataError, match='with and without frames in one batch: clip 1 has no frames'):
        stack([Numbers()[2], sound])
    with pytest.raises(DataError, match='with and without frames in one batch: clip 2 has frames'):
        stack([sound, Numbers()[2]])


class TestTakes:
    """Random takes of a world: one of each position, whoever reads it."""

    SPEC = ClipSpec(16_000, 0.5, 4, 16, video_seconds=0.25)
    DRAWN = Takes(7, video=True, min_area=0.5, max_aspect=4 / 3, flip=0.5)

    def load(self, sizes, first=0, **options):
        world = GeneratedWorld(self.SPEC, seed=0, length=6)
        return [batch for batch, _ in batches(sizes, first, source=world, takes=self.DRAWN, **options)]

    @pytest.fixture(scope='class')
    def whole(self):
        (batch,) = self.load([24])
        return batch

    def test_a_resumed_run_sees_the_batches_of_one_that_went_on(self, whole):
        for batch in (*self.load([8, 4], 12), *self.load([1, 2, 6], 3)):
            for name, rows in batch.items():
                np.testing.assert_array_equal(rows, whole[name][batch['position']])

    def test_so_do_two_hosts_and_worker_processes(self, whole):
        hosts = [self.load([16], 8, host=host, hosts=2)[0] for host in range(2)]
        for batch in (*hosts, *self.load([12], workers=2)):
            for name, rows in batch.items():
                np.testing.assert_array_equal(rows, whole[name][batch['position']])

    def test_epochs_differ_in_pictures_and_evaluation_in_nothing(self, whole):
        world = GeneratedWorld(self.SPEC, seed=0, length=6)
        sounds = [rows.tobytes() for rows in whole['waveform']]
        assert (
            sorted(sounds[:6])
            == sorted(sounds[6:12])
            == sorted(world[i]['waveform'].tobytes() for i in range(6))
        )
        assert len({rows.tobytes() for rows in whole['frames']}) == 24
        for i in range(6):
            np.testing.assert_array_equal(world[i]['frames'], world[i]['frames'])

    def test_without_takes_batches_are_the_clips_of_evaluation(self):
        world = GeneratedWorld(self.SPEC, seed=0, length=6)
        ((batch, _),) = batches([6], source=world)
        frames = {rows.tobytes() for rows in batch['frames']}
        assert frames == {world[i]['frames'].tobytes() for i in range(6)}
