"""The devices of a TPU topology such as v5e:16x16, for TPUs that are not attached.

Describing them needs the TPU compiler, which is in libtpu (`pip install -e '.[tpu]'`), and no TPU.
"""

from __future__ import annotations

import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from diffmavil_jax.aot.chips import TPUS, Chip
from diffmavil_jax.config.tree import ConfigError


def find_topology(topology: str) -> tuple[Chip, list[Any]]:
    """The chip and the devices of a topology such as `v5e:16x16`.

    Raises:
        ConfigError: there is no such topology, or no libtpu.
    """
    kind, _, shape = topology.partition(':')
    if kind not in TPUS or not re.fullmatch(r'\d+(x\d+){1,2}', shape):
        allowed = ', '.join(TPUS)
        raise ConfigError(
            f'--compile_for = {topology!r}: must be a chip ({allowed}) and the shape of a slice, '
            'such as v5e:16x16 or v5p:4x4x4.'
        )
    chip = TPUS[kind]
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # else libtpu asks a metadata server for the TPUs
    jax.config.update('jax_platforms', 'cpu')  # else JAX looks for attached TPUs
    options = {'chip_config_name': chip.config} if chip.config else {}
    # The compiler wants three axes for chips whose slices have three.
    name = topology if shape.count('x') == 2 or kind in ('v5e', 'v6e') else f'{topology}x1'
    try:
        description = topologies.get_topology_desc(platform='tpu', topology_name=name, **options)
    except Exception as error:  # libtpu and JAX do not document what they raise
        words = ' '.join(str(error).split())[:300]
        hint = (
            "; pip install -e '.[tpu]' has the compiler"
            if 'libtpu' in words or 'tpu' in words.lower()
            else ''
        )
        raise ConfigError(f'--compile_for = {topology!r}: {words}{hint}') from error
    return chip, list(description.devices)
