"""A run compiled for a topology: the memory, the operations and the traffic of each bucket's step.

`main.py --compile_for` uses the TPU compiler for TPUs that are not attached.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from diffmavil_jax.aot.chips import Chip
from diffmavil_jax.aot.flops import matmul_flops
from diffmavil_jax.aot.hlo import Collective, Hlo
from diffmavil_jax.aot.topology import compiler_of, computed_on, find_topology
from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.parallel.mesh import check_batch, make_mesh
from diffmavil_jax.plan.buckets import Bucket, Plan, make_plan
from diffmavil_jax.tasks.program import Program, make_program
from diffmavil_jax.tasks.registry import make_task

# How the compiler says that a step does not fit.
_STAND_INS = 4_096  # training clips of the generated world
_NO_MEMORY = 'RESOURCE_EXHAUSTED'
_NEEDED = re.compile(r'Used [\d.]+\w* of [\d.]+\w* hbm', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One bucket's step, as one chip runs it.

    Attributes:
        batch: clips of all chips together.
        ratio: the mask ratio.
        arguments: bytes of the state and the batch.
        temporaries: bytes that the step needs besides.
        code: bytes of the program itself.
        flops: operations of the matrix products.
        traffic: bytes read from HBM and written to it; see `Hlo.memory_traffic`.
        collectives: see `Hlo.collectives`.
        seconds: the time that compiling took.
        refusal: the compiler's message if the step does not fit, else empty.
    """

    batch: int
    ratio: float
    arguments: int = 0
    temporaries: int = 0
    code: int = 0
    flops: float = 0.0
    traffic: int = 0
    collectives: tuple[Collective, ...] = ()
    seconds: float = 0.0
    refusal: str = ''

    @property
    def peak(self) -> int:
        """Bytes that the step needs in all."""
        return self.arguments + self.temporaries + self.code

    def fits(self, chip: Chip) -> bool:
        """Whether the chip's memory holds the step."""
        return not self.refusal and self.peak <= chip.hbm_bytes

    @property
    def sent(self) -> float:
        """Bytes sent to other chips."""
        return sum(c.count * c.sent for c in self.collectives)

    def bounds(self, chip: Chip) -> dict[str, float]:
        """Seconds that each resource needs at its full rate. A step takes at least the longest of them."""
        return {
            'compute': self.flops / chip.flops,
            'HBM': self.traffic / chip.hbm_bandwidth,
            'links': self.sent / chip.link_bandwidth,
        }


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """A run compiled for a topology.

    Attributes:
        name: the name of the run.
        topology: the name of the topology, such as v5e:16x16.
        chip: the kind of its chips.
        axes: the size of each mesh axis, by name.
        parameters: bytes of the parameters on one chip.
        optimizer: bytes of the optimizer's state on one chip.
        buckets: the steps of the buckets, in order.
    """

    name: str
    topology: str
    chip: Chip
    axes: Mapping[str, int]
    parameters: int
    optimizer: int
    buckets: tuple[Compiled, ...]

    @property
    def fits(self) -> bool:
        """Whether the chip's memory holds every step."""
        return all(bucket.fits(self.chip) for bucket in self.buckets)


def compile_all_buckets(
    config: Config, topology: str, say: Callable[[str], None] = lambda text: None
) -> Rehearsal:
    """Compiles the steps of all buckets for a topology, which takes minutes each.

    Args:
        config: the run.
        topology: see `find_topology`.
        say: is called with a line of text after each step.

    Raises:
        ConfigError: the topology, the mesh or the batch is wrong, or the compiler is missing.
    """
    chip, devices = find_topology(topology)
    mesh = make_mesh(config.parallel, devices)
    plan = make_plan(config)
    for bucket in plan.buckets:
        check_batch(bucket.batch_size, config.batch.microbatches, mesh)
    config = computed_on(config, chip)
    program = program_without_data(config, plan, mesh)

    def compile_one(index: int) -> Compiled:
        compiled = compile_step(program, plan.buckets[index], index, len(devices))
        say(f'mask {compiled.ratio:.3f}: compiled in {compiled.seconds:.0f} s')
        return compiled

    with compiler_of(chip), concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        buckets = tuple(pool.map(compile_one, range(len(plan.buckets))))
    return Rehearsal(
        config.name,
        topology,
        chip,
        dict(mesh.shape),
        bytes_per_device(program.abstract.params),
        bytes_per_device(program.abstract.opt_state),
        buckets,
    )


def program_without_data(config: Config, plan: Plan, mesh: jax.sharding.Mesh) -> Program:
    """The steps of a run, without opening its data. The generated world stands in and is not read."""
    few = min(config.data.train_clips, _STAND_INS)  # a classifier draws the label of each
    data = dataclasses.replace(config.data, source='generated', path=(), weights=(), train_clips=few)
    stand_in = dataclasses.replace(config, data=data)
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(stand_in, plan, open_sources(stand_in), pathlib.Path(folder))
    return make_program(stand_in, task, plan, mesh)


def compile_step(program: Program, bucket: Bucket, index: int, chips: int) -> Compiled:
    """Compiles the step of one bucket, and reads what it needs from the result.

    Args:
        program: the steps of the run.
        bucket: the bucket.
        index: its index in the program's plan.
        chips: how many chips share a step.
    """
    began = time.perf_counter()
    traced = program.trace(index)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if _NO_MEMORY not in str(error):
            raise
        needed = _NEEDED.search(str(error))
        return Compiled(bucket.batch_size, bucket.mask_ratio, refusal=needed[0] if needed else _NO_MEMORY)
    memory, hlo = compiled.memory_analysis(), Hlo(compiled.as_text())
    return Compiled(
        batch=bucket.batch_size,
        ratio=bucket.mask_ratio,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=matmul_flops(traced.jaxpr) / chips,
        traffic=hlo.memory_traffic(),
        collectives=tuple(hlo.collectives()),
        seconds=time.perf_counter() - began,
    )


def bytes_per_device(tree: Any) -> int:
    """Bytes that the arrays of a tree, which have shardings, take on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
