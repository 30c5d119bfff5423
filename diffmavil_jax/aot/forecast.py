"""The memory and the time that a run will need, as `main.py --plan` prints them below the buckets."""

from __future__ import annotations

import dataclasses

import jax

from diffmavil_jax.aot.chips import CHIPS
from diffmavil_jax.aot.compiled import bytes_per_device, program_without_data
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.plan.macs import teacher_macs
from diffmavil_jax.units import duration, si, size

_UTILIZATION = 0.4  # of a chip's peak, as large networks commonly reach


def forecast(config: Config, plan: Plan) -> str:
    """Two lines of text. Nothing is compiled, and no array is allocated."""
    alone = dataclasses.replace(config, parallel=ParallelConfig(processes=1))
    state = program_without_data(alone, plan, make_mesh(alone.parallel, jax.devices()[:1])).abstract
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    nbytes = bytes_per_device(state) + bytes_per_device(state.params)  # the second for gradients
    without_backward = teacher_macs(config) * plan.total_samples
    operations = 2 * (3 * plan.macs - 2 * without_backward)
    times = ', '.join(
        f'{chip.kind} {duration(operations / (_UTILIZATION * chip.flops))}' for chip in CHIPS.values()
    )
    return (
        f'Memory: {si(parameters)} parameters; {size(nbytes)} of state and gradients, shared by '
        f'config.parallel.fsdp x tensor devices. Activations come on top (--compile_for, --fit_batch).\n'
        f'Time: {si(operations)} operations (two for each MAC, the backward pass twice the forward). '
        f'One chip, at {_UTILIZATION:.0%} of its peak: {times}; N chips an N-th of it.'
    )
