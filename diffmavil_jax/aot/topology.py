"""The devices of a topology such as v5e:16x16 or h100:2x8, of accelerators that are not attached.

TPUs need their compiler (`pip install -e '.[tpu]'`), GPUs JAX's CUDA plugin (`pip install -e '.[cuda]'`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from diffmavil_jax.aot import cuda
from diffmavil_jax.aot.chips import CHIPS, GPUS, TPUS, Chip
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError

_TPU_SHAPE = re.compile(r'\d+(x\d+){1,2}')
_GPU_SHAPE = re.compile(r'(?:(\d+)x)?(\d+)')


def find_topology(topology: str) -> tuple[Chip, list[Any]]:
    """The chip and the devices of a topology.

    Args:
        topology: a TPU and the shape of a slice, such as `v5e:16x16`; or a GPU and how many of them, on one
            host or on several: `h100`, `h100:8`, `h100:2x8`.

    Raises:
        ConfigError: there is no such topology, or its compiler is not installed.
    """
    kind, colon, shape = topology.partition(':')
    gpus = _GPU_SHAPE.fullmatch(shape if colon else '1') if kind in GPUS else None
    if not gpus and not (kind in TPUS and _TPU_SHAPE.fullmatch(shape)):
        raise ConfigError(
            f'--compile_for = {topology!r}: must be a TPU ({", ".join(TPUS)}) and the shape of a slice, '
            f'such as v5e:16x16 or v5p:4x4x4, or a GPU ({", ".join(GPUS)}) and how many of them, such as '
            'h100, h100:8 or h100:2x8 for two hosts.'
        )
    chip, extra = CHIPS[kind], 'cuda' if gpus else 'tpu'
    jax.config.update('jax_platforms', 'cpu')  # else JAX looks for attached accelerators
    try:
        if chip.gpu is not None and gpus:
            return chip, cuda.devices(chip, chip.gpu, int(gpus[1] or 1), int(gpus[2]))
        return chip, _tpu_devices(chip, topology, shape)
    except Exception as error:  # the compilers and JAX do not document what they raise
        words = ' '.join(str(error).split())[:300]
        hint = f"; pip install -e '.[{extra}]' has the compiler"
        raise ConfigError(f'--compile_for = {topology!r}: {words}{hint}') from error


def _tpu_devices(chip: Chip, topology: str, shape: str) -> list[Any]:
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # else libtpu asks a metadata server for the TPUs
    options = {'chip_config_name': chip.config} if chip.config else {}
    # The compiler wants three axes for chips whose slices have three.
    name = topology if shape.count('x') == 2 or chip.kind in ('v5e', 'v6e') else f'{topology}x1'
    return list(topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices)


def computed_on(config: Config, chip: Chip) -> Config:
    """The config with what a chip would choose: attention, rematerialisation, unrolling."""
    compute = config.compute.on(chip.platform)
    fused = chip.gpu is not None and chip.gpu.capability >= (8, 0) and compute.dtype == 'bfloat16'
    if compute.attention == 'auto' or not fused:
        compute = dataclasses.replace(compute, attention='cudnn' if fused else 'xla')
    return dataclasses.replace(config, compute=compute)


def compiler_of(chip: Chip) -> contextlib.AbstractContextManager[None]:
    """Within it, JAX compiles for the chip as if it were attached."""
    return contextlib.nullcontext() if chip.gpu is None else cuda.pretended(chip.gpu)
