"""How several processes are connected, and what each of them reads and writes."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Any

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.parallel.mesh import batch_sharding
from diffmavil_jax.parallel.rendezvous import Patience, meet


def join(config: ParallelConfig) -> None:
    """Connects this process with the others. Call it before anything asks JAX for its devices.

    They are found on a Cloud TPU pod, under Slurm and under Open MPI. Elsewhere, if the
    config names no coordinator, the process is alone.

    Raises:
        ConfigError: some other process can't be reached, or does not come.
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
    address, count, number, devices = _found(config)
    if not address:
        if config.processes:
            raise ConfigError(
                f'config.parallel.processes = {config.processes}: must come with config.parallel.coordinator '
                f'outside of a TPU pod, Slurm and Open MPI.'
            )
        return
    meet(address, count, number, Patience(config.wait_s, _say))
    try:
        jax.distributed.initialize(
            address, count, number, devices, heartbeat_timeout_seconds=config.heartbeat_s
        )
    except RuntimeError as error:
        raise ConfigError(
            f'config.parallel.coordinator: {address} was not reached by all processes ({error}). '
            f'config.parallel.processes=1 runs on this host alone.'
        ) from error


def _found(config: ParallelConfig) -> tuple[str | None, int, int, list[int] | None]:
    """The address of process 0, the number of processes, that of this one, and the devices that it may use.

    What the config does not name comes from a TPU pod, Slurm or Open MPI; without one, there is no address.
    """
    address, count, number, devices = ClusterEnv.auto_detect_unset_distributed_params(
        config.coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS'),
        config.processes if config.coordinator else None,
        config.process if config.coordinator else None,
        None,  # devices
        None,  # the kind of cluster
        config.wait_s,
    )
    return address, count or 1, number or 0, None if devices is None else list(devices)


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


def share_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process's devices hold: (index of the part, number of parts).

    Processes whose devices hold the same clips have the same part: the tensor axis may span hosts.
    """
    devices = mesh.devices.reshape(-1, mesh.shape['tensor'])
    owners = np.vectorize(lambda device: device.process_index)(devices)
    rows = {
        int(process): tuple((owners == process).any(axis=1).nonzero()[0]) for process in np.unique(owners)
    }
    parts = sorted(set(rows.values()))
    assert sorted(sum(parts, ())) == list(range(len(owners))) and len({*map(len, parts)}) == 1, parts
    return parts.index(rows[jax.process_index()]), len(parts)


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


def _say(text: str) -> None:
    print(text, flush=True)
