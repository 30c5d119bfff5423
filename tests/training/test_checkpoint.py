"""Checkpoints: bit-equal round trips, what is kept, and what happens to broken ones."""

import contextlib
import pathlib
import resource
import shutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffmavil_jax.saved import params
from diffmavil_jax.storage.paths import open_path
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from tests.bucket import FolderOfBuckets


@struct.dataclass
class State:
    params: Any
    opt_state: Any
    samples: jax.Array


def mesh_of(*shape: int) -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(shape), ('data', 'fsdp'))


def shardings(state: State, mesh: Mesh) -> State:
    """The first axis over fsdp wherever it divides, else replicated."""

    def rule(leaf: jax.Array) -> NamedSharding:
        divides = leaf.ndim and leaf.shape[0] % mesh.shape['fsdp'] == 0
        return NamedSharding(mesh, PartitionSpec('fsdp') if divides else PartitionSpec())

    return jax.tree.map(rule, state)


def make_state(seed: int = 0, mesh: Mesh | None = None, width: int = 8) -> State:
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        'encoder': {'kernel': jax.random.normal(keys[0], (width, 16)), 'bias': jnp.zeros(16, jnp.bfloat16)},
        'scale': jax.random.normal(keys[1], ()),
    }
    optimizer = optax.adamw(1e-3)
    gradients = jax.tree.map(lambda p: jnp.cos(p.astype(jnp.float32)).astype(p.dtype), params)
    _, opt_state = optimizer.update(gradients, optimizer.init(params), params)
    state = State(params, opt_state, jnp.int32(seed))
    return jax.device_put(state, shardings(state, mesh or mesh_of(2, 4)))


def abstract(state: State, mesh: Mesh | None = None) -> State:
    placed = shardings(state, mesh or mesh_of(2, 4))
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, placed)


def open_store(directory: pathlib.Path, **changes: Any) -> CheckpointStore:
    options: dict[str, Any] = {'keep_latest': 2, 'keep_best': 1, 'best_metric': 'r10'}
    return CheckpointStore(directory, **(options | changes))


def save_at(directory: pathlib.Path, *samples: int) -> None:
    store = open_store(directory, keep_latest=10)
    for count in samples:
        store.save(count, make_state(count), {'count': count}, None, block=True)
    store.close()


def test_a_save_asks_for_no_notice_of_preemption(tmp_path, monkeypatch):
    """JAX takes the numbers of all that ask for those of one sequence of steps, which is the loop's."""
    asked = []
    monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', asked.append)
    save_at(tmp_path, 8, 16)
    assert not asked


def break_files(checkpoint: pathlib.Path) -> None:
    """Truncates each of its files to half, as a full disk or a crash of the machine may."""
    for file in [f for f in checkpoint.rglob('*') if f.is_file()]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_empty_directory_restores_nothing(tmp_path):
    store = open_store(tmp_path / 'new' / 'checkpoints')
    assert store.latest() is None
    assert store.best() is None
    assert store.restore(abstract(make_state())) is None


@pytest.mark.parametrize('mesh_shape', [(2, 4), (8, 1), (1, 8)])
def test_round_trip_is_bit_equal_on_any_mesh(tmp_path, mesh_shape):
    state = make_state(seed=3)
    metadata = {'seed': 3, 'config': {'name': 'a', 'std': [0.1, None]}}
    store = open_store(tmp_path)
    assert store.save(512, state, metadata, {'r10': 0.5}, block=True)
    store.close()

    store = open_store(tmp_path)
    mesh = mesh_of(*mesh_shape)
    restored, restored_metadata = store.restore(abstract(state, mesh))
    assert store.latest() == 512
    assert restored_metadata == metadata
    chex.assert_trees_all_equal_structs(restored, state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        assert new.dtype == old.dtype
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    assert jax.tree.map(lambda x: x.sharding, restored) == shardings(state, mesh)


def test_an_async_save_survives_donation(tmp_path):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {'w': jnp.zeros((64, 64, 64)), 'n': jnp.int32(0)}
    target = jax.eval_shape(lambda: state)
    placed = jax.tree.map(lambda x: x.sharding, state)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), target, placed)
    store = open_store(tmp_path)
    store.save(1, state, {}, None, block=False)
    for _ in range(3):
        state = step(state)
    jax.block_until_ready(state)
    restored, _ = store.restore(target)
    assert not np.asarray(restored['w']).any()


def test_saving_a_sample_count_twice_is_a_no_op(tmp_path):
    store = open_store(tmp_path)
    assert store.save(10, make_state(1), {'first': True}, None, block=False)
    assert not store.save(10, make_state(2), {'first': False}, None, block=True)
    restored, metadata = store.restore(abstract(make_state()))
    assert metadata == {'first': True}
    chex.assert_trees_all_equal(restored, make_state(1))


def test_going_back_in_samples_is_an_error(tmp_path):
    store = open_store(tmp_path)
    store.save(10, make_state(), {}, None, block=True)
    with pytest.raises(ValueError, match='at 5 samples: there is a later one, at 10'):
        store.save(5, make_state(), {}, None, block=True)


def test_latest_and_best_are_kept_across_restarts(tmp_path):
    values = {10: 0.3, 20: 0.9, 30: 0.2, 40: float('nan'), 50: None, 60: 0.4}
    for samples, value in values.items():  # a new process each time
        store = open_store(tmp_path)
        metrics = None if value is None else {'r10': value, 'other': 1.0}
        store.save(samples, make_state(samples), {}, metrics, block=True)
        store.close()
    store = open_store(tmp_path)
    assert store.steps() == [20, 50, 60]
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [20, 50, 60]
    assert store.best() == 20


def test_without_a_metric_only_the_latest_are_kept(tmp_path):
    store = open_store(tmp_path, best_metric=None, keep_best=3)
    for samples in (1, 2, 3, 4):
        store.save(samples, make_state(samples), {}, {'r10': 1.0 / samples}, block=True)
    assert store.steps() == [3, 4]
    assert store.best() is None


def test_a_truncated_newest_checkpoint_is_named_and_stepped_over(tmp_path, caplog):
    save_at(tmp_path, 100, 200)
    break_files(tmp_path / '200')
    store = open_store(tmp_path)
    restored, metadata = store.restore(abstract(make_state()))
    assert metadata == {'count': 100}
    assert store.latest() == 100
    chex.assert_trees_all_equal(restored, make_state(100))
    assert any('200 cannot be read' in r.getMessage() and r.levelname == 'WARNING' for r in caplog.records)

    # The run comes to 200 samples again: that must be written, and what is broken kept aside.
    assert store.save(200, make_state(7), {'count': 7}, None, block=True)
    assert [p.name for p in tmp_path.glob('unreadable-200-*')]
    store.close()
    restored, metadata = open_store(tmp_path).restore(abstract(make_state()))
    assert metadata == {'count': 7}
    chex.assert_trees_all_equal(restored, make_state(7))


@pytest.mark.parametrize('damage', ['truncated', 'deleted'])
def test_lost_array_data_is_noticed(tmp_path, damage):
    # Large, or it would lie inside Orbax's index, which checksums guard. One array in one piece:
    # where one of several reads fails, Orbax drops the others noisily.
    state = {'w': jax.random.normal(jax.random.key(0), (1 << 14,))}
    store = open_store(tmp_path)
    for samples in (100, 200):
        store.save(samples, state, {'count': samples}, None, block=True)
    store.close()
    files = [f for f in (tmp_path / '200').rglob('*') if f.is_file()]
    largest = max(files, key=lambda f: f.stat().st_size)
    assert largest.stat().st_size > 1 << 15
    if damage == 'truncated':
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    else:
        largest.unlink()
    target = jax.ShapeDtypeStruct((1 << 14,), jnp.float32, sharding=state['w'].sharding)
    restored, metadata = open_store(tmp_path).restore({'w': target})
    assert metadata == {'count': 100}
    chex.assert_trees_all_equal(restored, state)


def test_if_all_are_broken_the_error_names_them(tmp_path):
    save_at(tmp_path, 100, 200)
    for samples in ('100', '200'):
        break_files(tmp_path / samples)
    store = open_store(tmp_path)
    with pytest.raises(CheckpointError, match=r'None of the 2 checkpoints.*/200 .*/100 '):
        store.restore(abstract(make_state()))
    assert store.steps() == [100, 200]


def test_another_shape_is_an_error_not_a_fall_back(tmp_path):
    save_at(tmp_path, 100, 200)
    expected = (
        r'200 is of another model: params/encoder/kernel is float32\[8, 16\] in it, where float32\[4, 16\]'
    )
    with pytest.raises(CheckpointMismatchError, match=expected):
        open_store(tmp_path).restore(abstract(make_state(width=4)))


def test_another_tree_or_dtype_is_an_error(tmp_path):
    save_at(tmp_path, 100)
    state = make_state()
    store = open_store(tmp_path)
    with pytest.raises(CheckpointMismatchError, match=r'params/head is nothing in it, where float32\[3\]'):
        store.restore(abstract(state.replace(params=state.params | {'head': jnp.zeros(3)})))
    without = {'encoder': state.params['encoder']}
    with pytest.raises(CheckpointMismatchError, match=r'params/scale is float32\[\] in it, where nothing'):
        store.restore(abstract(state.replace(params=without)))
    with pytest.raises(CheckpointMismatchError, match=r'samples is int32\[\] in it, where float32\[\]'):
        store.restore(abstract(state.replace(samples=jnp.float32(0))))


def test_what_a_killed_save_leaves_is_ignored(tmp_path):
    save_at(tmp_path, 100)
    leftover = tmp_path / '200.orbax-checkpoint-tmp'
    (leftover / 'state').mkdir(parents=True)
    (leftover / 'state' / 'manifest.ocdbt').write_bytes(b'half')
    store = open_store(tmp_path)
    assert store.steps() == [100]
    _, metadata = store.restore(abstract(make_state()))
    assert metadata == {'count': 100}
    assert store.save(200, make_state(200), {'count': 200}, None, block=True)
    assert not leftover.exists()
    assert store.steps() == [100, 200]


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match='keep_latest = 0'):
        open_store(tmp_path, keep_latest=0)


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Storage that refuses more: Python ignores the signal, and a write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('block', [False, True])
def test_what_storage_refuses_is_noted_and_the_next_checkpoint_is_written(tmp_path, block):
    store = open_store(tmp_path)
    store.save(1, make_state(1), {}, block=True)
    assert store.failure() == ''
    with files_of_at_most(100):
        store.save(2, make_state(2), {}, block=block)
        store.settle()
    assert store.failure()
    assert store.steps() == [1]
    store.save(3, make_state(3), {}, block=True)
    assert store.failure() == ''
    restored, _ = store.restore(abstract(make_state()))
    chex.assert_trees_all_equal(restored, make_state(3))
    store.close()
    assert not list(tmp_path.glob('*tmp'))  # half a checkpoint would take what room is left


def test_a_save_that_never_stops_failing_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.save(1, make_state(1), {}, block=True)
    failures = iter(range(1_000))

    def wait():
        raise OSError(f'failure {next(failures)}')

    monkeypatch.setattr(store._manager, 'wait_until_finished', wait)
    assert store.settle() == 'failure 0'
    assert next(failures) < 20


def test_what_can_not_be_set_aside_is_a_failure_of_storage_and_no_end_of_the_run(tmp_path, monkeypatch):
    save_at(tmp_path, 100, 200)
    break_files(tmp_path / '200')
    store = open_store(tmp_path)
    store.restore(abstract(make_state()))
    with monkeypatch.context() as patch:
        patch.setattr(type(store._path(200)), 'rename', refused)
        assert store.save(200, make_state(7), {'count': 7}, None, block=True)
        assert 'Read-only' in store.failure()
    assert store.save(200, make_state(7), {'count': 7}, None, block=True)
    assert store.failure() == ''
    store.close()
    assert open_store(tmp_path).restore(abstract(make_state()))[1] == {'count': 7}


def refused(*arguments):
    raise OSError(30, 'Read-only file system')


def test_a_bucket_keeps_and_restores_what_a_directory_does(bucket):
    """Cloud Storage has no renaming: a checkpoint is there when its last object is."""
    states = {samples: make_state(samples) for samples in (1, 2, 3)}
    with contextlib.closing(open_store('gs://bucket/run/checkpoints', keep_latest=2)) as store:
        for samples, state in states.items():
            assert store.save(samples, state, {'at': samples}, block=True)
        assert store.settle() == '' and store.steps() == [2, 3]
    unfinished = bucket / 'run' / 'checkpoints' / '4'
    shutil.copytree(bucket / 'run' / 'checkpoints' / '3', unfinished)
    (unfinished / 'commit_success.txt').unlink()  # what a kill leaves
    assert params._checkpoints(open_path('gs://bucket/run')) == [3, 2]
    with contextlib.closing(open_store('gs://bucket/run/checkpoints', keep_latest=2)) as store:
        assert store.latest() == 3
        restored, metadata = store.restore(abstract(states[3]))
        assert metadata == {'at': 3}
        chex.assert_trees_all_equal(restored, states[3])
        assert store.save(4, states[1], {}, block=True)
        assert store.settle() == '' and store.latest() == 4


def test_an_unreadable_checkpoint_in_a_bucket_is_stepped_over_and_set_aside(bucket):
    folder, states = bucket / 'checkpoints', {samples: make_state(samples) for samples in (1, 2)}
    with contextlib.closing(open_store('gs://bucket/checkpoints')) as store:
        for samples, state in states.items():
            store.save(samples, state, {}, block=True)
        shutil.rmtree(folder / '2' / 'state' / 'd')
        restored, _ = store.restore(abstract(states[1]))
        chex.assert_trees_all_equal(restored, states[1])
        assert store.save(2, states[2], {}, block=True)
        assert store.steps() == [1, 2]
    assert any(path.name.startswith('unreadable-2-') for path in folder.iterdir())


class Away:
    """A bucket that refuses what is written and listed, with an error of its client's, once told to."""

    def __init__(self, monkeypatch, module):
        self.error, self.is_away = type('HttpError', (Exception,), {'__module__': module}), False
        for name in ('open', 'ls', 'info'):
            monkeypatch.setattr(FolderOfBuckets, name, self.refusing(getattr(FolderOfBuckets, name)))

    def refusing(self, method):
        def refuse(*args, **named):
            if self.is_away:
                raise self.error('503')
            return method(*args, **named)

        return refuse


@pytest.mark.parametrize('client', ['gcsfs.retry', 'aiohttp.client_exceptions', 'google.auth.exceptions'])
def test_what_a_bucket_refuses_is_noted_and_the_next_checkpoint_is_written(bucket, monkeypatch, client):
    state, away = make_state(), Away(monkeypatch, client)
    with contextlib.closing(open_store('gs://bucket/checkpoints')) as store:
        store.save(1, state, {}, block=True)
        away.is_away = True
        store.save(2, state, {}, block=True)
        assert '503' in store.failure() and '503' in store.settle()
        away.is_away = False
        store.save(3, state, {}, block=True)
        assert store.failure() == '' and store.steps() == [1, 3]


def test_while_a_bucket_is_away_no_checkpoint_is_taken_for_a_broken_one(bucket, monkeypatch):
    state, away = make_state(), Away(monkeypatch, 'gcsfs.retry')
    with contextlib.closing(open_store('gs://bucket/checkpoints')) as store:
        for samples in (1, 2):
            store.save(samples, state, {'at': samples}, block=True)
        away.is_away = True
        with pytest.raises(CheckpointError, match='checkpoints/2 can not be reached .503.; the same command'):
            store.restore(abstract(state))
        away.is_away = False
        assert store.restore(abstract(state))[1] == {'at': 2}
