"""One of two processes that save and read checkpoints while the disk of the second one fails.

python -m tests.parallel.pair NUMBER PORT DIR: writes what it saw to DIR/NUMBER.json, for test_agreement.py.
"""

import json
import pathlib
import resource
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.parallel import agreement, hosts
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.training import orbax_manager
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointStore

LARGEST_FILE = 4_096  # bytes, where storage refuses more


def main(number, port, directory):
    logging.set_verbosity(logging.ERROR)
    orbax_manager._WRITE_WITHIN_S = 3
    hosts.join(ParallelConfig(coordinator=f'localhost:{port}', processes=2, process=number))
    saw = {}
    said(saw, number)
    storage(saw, number, pathlib.Path(directory) / 'checkpoints')
    (pathlib.Path(directory) / f'{number}.json').write_text(json.dumps(saw))
    hosts.leave()


def said(saw, number):
    saw['gather'] = agreement.gather('numbers', {'number': number})
    saw['first'] = agreement.first('report', number == 0)
    saw['any'] = agreement.any_of('failure', number == 1), agreement.any_of('failure', False)
    try:
        with agreement.together('reading', ValueError, OSError):
            if number == 1:
                raise FileNotFoundError('its folder is gone')
    except OSError as error:
        saw['together'] = str(error)
    with agreement.together('reading', OSError):
        saw['after'] = 'went on'


def storage(saw, number, directory):
    """Three checkpoints: process 1 can't read the second, and then can't write the third."""
    mesh = make_mesh(ParallelConfig())
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    rows = np.random.default_rng(0).normal(size=(2, 50_000)).astype(np.float32)

    def state(scale):
        return {'w': jax.make_array_from_callback(rows.shape, sharding, lambda index: scale * rows[index])}

    def open_store():
        return CheckpointStore(directory, keep_latest=9, keep_best=1, best_metric='score')

    abstract = {'w': jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=sharding)}
    store = open_store()
    for samples in (8, 16):
        store.save(samples, state(samples), {'at': samples}, {'score': 1.0 / samples}, block=True)
    store.close()

    store = open_store()
    unreadable = ocp.PyTreeCheckpointHandler.restore

    def restore(self, path, *arguments, **named):
        if number == 1 and '/16/' in f'{path}':
            raise OSError('Input/output error')
        return unreadable(self, path, *arguments, **named)

    ocp.PyTreeCheckpointHandler.restore = restore
    restored, metadata = store.restore(abstract)
    saw['restored'] = (
        metadata['at'],
        float(restored['w'].addressable_shards[0].data[0, 0])
        / float(rows[restored['w'].addressable_shards[0].index][0, 0]),
    )
    ocp.PyTreeCheckpointHandler.restore = unreadable
    store.save(16, state(160), {'at': 160}, {'score': 0.5}, block=True)
    saw['aside'] = len(list(directory.glob('unreadable-16-*')))
    saw['best'] = store.best()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if number == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, limits[1]))
    try:
        store.save(24, state(24), {'at': 24}, {}, block=True)
        saw['refused'] = store.settle()
    except CheckpointError as error:
        saw['refused'] = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    saw['steps'] = store.steps()
    store.save(24, state(240), {'at': 240}, {}, block=True)
    saw['written'] = store.settle(), store.steps()
    store.close()
    saw['at last'] = open_store().restore(abstract)[1]['at']


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
