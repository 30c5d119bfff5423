"""The device mesh, and the rules by which arrays lie on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.config.tree import ConfigError

AXES = ('data', 'fsdp', 'tensor')

# From the logical name of an axis (of parameters or, for `clips`, of activations) to mesh axes.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ('clips', ('data', 'fsdp')),
    ('layers', None),
    ('patch', None),
    ('decoder', None),
    ('classes', None),
    ('embed', 'fsdp'),
    ('heads', 'tensor'),
    ('mlp', 'tensor'),
)


def make_mesh(config: ParallelConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp, tensor) mesh of all devices; an axis of -1 takes the devices that the others leave.

    Neighbours on the last axes are neighbours in a TPU's torus, and GPUs of one host.

    Raises:
        ConfigError: the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = [config.data, config.fsdp, config.tensor]
    if -1 in shape:
        others = -int(np.prod(shape))
        shape[shape.index(-1)] = max(1, len(devices) // others)
    if int(np.prod(shape)) != len(devices):
        sizes = ' x '.join(f'{axis} {size}' for axis, size in zip(AXES, shape, strict=True))
        raise ConfigError(
            f'config.parallel: {sizes} does not make {len(devices)} devices; set one axis to -1.'
        )
    return Mesh(mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True), AXES)


def describe_devices(mesh: Mesh) -> dict[str, Any]:
    """What a run records of the machines that it runs on."""
    return {
        'device': f'{mesh.size} x {mesh.devices.flat[0].device_kind}',
        'backend': jax.default_backend(),
        'hosts': jax.process_count(),
        'host cores': os.cpu_count(),
    }


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: clips over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def check_batch(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Raises ConfigError where a batch, or its microbatches, do not divide over the mesh."""
    shards = mesh.shape['data'] * mesh.shape['fsdp']
    if batch_size % (shards * microbatches):
        split = f' in {microbatches} microbatches (config.batch.microbatches)' if microbatches > 1 else ''
        raise ConfigError(
            f'config.batch: a bucket has {batch_size} clips, which the {shards} devices of the data and fsdp '
            f'axes do not divide{split}; make config.batch.size and config.batch.multiple multiples of '
            f'{shards * microbatches}.'
        )


@contextlib.contextmanager
def constrained(mesh: Mesh) -> Iterator[None]:
    """A context to trace a function in, so that the activations that it names are sharded by the rules."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def by_clips(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A function of clips that each device runs on its own clips, if a mesh is set (see `constrained`).

    XLA does not split every operation by itself: for an FFT it gathers the whole batch on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function
    clips = PartitionSpec(('data', 'fsdp'))
    return jax.shard_map(function, in_specs=clips, out_specs=clips)


def shardings(abstract: Any, mesh: Mesh) -> Any:
    """The shardings of a pytree, whose leaves may have logical axis names."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract), mesh, RULES)
