"""How several processes find each other, what each of them reads, and what they agree on."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.parallel.mesh import batch_sharding


def join(config: ParallelConfig) -> None:
    """Connects this process with the others. Call it before anything asks JAX for its devices.

    JAX finds the others itself on a Cloud TPU pod, under Slurm and under Open MPI. Elsewhere, if the
    config names no coordinator, the process is alone.

    Raises:
        ConfigError: the others can't be reached.
    """
    fake_devices = re.search(r'host_platform_device_count=(\d+)', os.environ.get('XLA_FLAGS', ''))
    if fake_devices:
        # CPU: fake devices wait for each other in threads of one pool. XLA makes as many threads as there
        # are cores, or as this variable says; with fewer threads than devices they wait for ever.
        os.environ.setdefault('NPROC', str(max(os.cpu_count() or 1, 2 * int(fake_devices[1]))))
    if (fake_devices or config.processes != 1) and not importlib.util.find_spec('libtpu'):
        # CPU: XLA runs collectives that do not depend on each other at the same time. Processes then
        # confuse them, which gives wrong sums, or an abort with "collective mismatch"; fake devices have
        # too few threads for two at a time, and wait for ever.
        flag = '--xla_cpu_enable_concurrency_optimized_scheduler=false'
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'
    if config.processes == 1:
        return
    named: dict[str, Any] = {}
    if config.coordinator:
        named = {
            'coordinator_address': config.coordinator,
            'num_processes': config.processes,
            'process_id': config.process,
        }
    try:
        jax.distributed.initialize(**named, heartbeat_timeout_seconds=config.heartbeat_s)
    except ValueError as error:
        if named or 'coordinator_address' not in str(error):
            raise
    except RuntimeError as error:
        where = config.coordinator or 'the coordinator that was found'
        raise ConfigError(
            f'config.parallel.coordinator: {where} was not reached by all processes ({error}). '
            f'config.parallel.processes=1 runs on this host alone.'
        ) from error


def leave() -> None:
    """Waits for the others at the end of a run; otherwise they would take the end of one for a failure."""
    if not is_alone():
        jax.distributed.shutdown()


def is_alone() -> bool:
    """Whether there is one process only."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def own_name(name: str) -> str:
    """The name of a file that each process has one of: with its number, if there are several."""
    if is_alone():
        return name
    stem, dot, suffix = name.partition('.')
    return f'{stem}-{jax.process_index()}{dot}{suffix}'


def wait_for_all(name: str) -> None:
    """Returns when all processes have called it with this name."""
    if not is_alone():
        multihost_utils.sync_global_devices(name)


def agree(value: bool) -> bool:
    """The value of the first process, for all."""
    if is_alone():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def share_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process's devices hold: (index of the part, number of parts).

    Processes whose devices hold the same clips have the same part: the tensor axis may span hosts.
    """
    shards = mesh.shape['data'] * mesh.shape['fsdp']
    here = batch_sharding(mesh).addressable_devices_indices_map((shards,))
    starts = sorted({index[0].start or 0 for index in here.values() if index is not None})
    assert starts == list(range(starts[0], starts[0] + len(starts))) and not starts[0] % len(starts)
    return starts[0] // len(starts), shards // len(starts)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes a global batch; each process hands in its own part."""
    sharding, (_, parts) = batch_sharding(mesh), share_of_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, x, (len(x) * parts, *x.shape[1:]))
        for name, x in batch.items()
    }


def fetch(tree: Any) -> Any:
    """Whole NumPy arrays on every process, whichever devices hold their parts."""
    return jax.tree.map(_fetch, jax.device_get(tree) if is_alone() else tree)


def _fetch(x: Any) -> np.ndarray:
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
