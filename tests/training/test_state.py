"""The state in checkpoints: items have the same names in all versions."""

from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved import params as params_module
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.training.checkpoint import CheckpointStore
from diffmavil_jax.training.state import TrainState


@flax.struct.dataclass
class StateOfVersion010:
    params: Any
    opt_state: Any
    samples_seen: Any
    average: Any = None
    frozen: Any = None


def arrays(seed):
    return {'kernel': jnp.full((3,), float(seed)), 'bias': jnp.float32(seed)}


def save(directory, state):
    store = CheckpointStore(directory, keep_latest=2, keep_best=0, best_metric=None)
    store.save(8, state, {}, block=True)
    return store


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@pytest.mark.parametrize('with_ema', [True, False])
def test_a_checkpoint_of_version_0_1_0_is_restored(tmp_path, with_ema):
    values = (arrays(1), arrays(2), jnp.int32(8), arrays(3) if with_ema else None, arrays(4))
    store = save(tmp_path, StateOfVersion010(*values))
    ours = TrainState(*values)
    restored, _ = store.restore(abstract(ours))
    store.close()
    assert isinstance(restored, TrainState)
    chex.assert_trees_all_equal(restored, ours)
    assert restored.evaluated is (restored.ema if with_ema else restored.params)


def test_the_moving_average_is_the_item_average(tmp_path):
    save(tmp_path / 'checkpoints', TrainState(arrays(1), {}, jnp.int32(8), ema=arrays(3))).close()
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path / 'checkpoints' / '8' / 'state')
    assert set(saved) == {'params', 'opt_state', 'samples_seen', 'average', 'frozen'}
    np.testing.assert_array_equal(saved['average']['kernel'], 3.0)
    assert load_params(tmp_path)[0]['bias'] == 3.0


def test_parameters_of_an_older_checkpoint_are_not_taken_in_silence(tmp_path, caplog):
    store = save(tmp_path / 'checkpoints', TrainState(arrays(1), {}, jnp.int32(8)))
    store.save(16, TrainState(arrays(2), {}, jnp.int32(16)), {}, block=True)
    store.close()
    for file in (tmp_path / 'checkpoints' / '16' / 'state').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    params, samples = load_params(tmp_path)
    assert (params['bias'], samples) == (1.0, 8)
    assert 'the checkpoint at clip 8 is used, since newer ones can not be read: 16 (' in caplog.text


def test_parameters_in_a_bucket_that_is_away_are_not_those_of_an_older_checkpoint(bucket, monkeypatch):
    save('gs://bucket/run/checkpoints', TrainState(arrays(1), {}, jnp.int32(8))).close()

    def read(path):
        raise ConnectionError('reset by peer')

    monkeypatch.setattr(params_module, '_read', read)
    with pytest.raises(ConfigError, match='newest checkpoint can not be reached .ConnectionError: reset by'):
        load_params('gs://bucket/run')
