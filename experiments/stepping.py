"""The train step of each bucket, timed: python -m experiments.throughput step [--variant=demo].

MAViL and DiffMAViL at the scale of one variant, on random clips that lie on the device already. Rounds
go through all buckets in turn, so that each has the same share of a busy machine. A training step
counts as three forward passes; MFU is against a matrix product measured here, or --peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import for_this_machine
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import Bucket, Plan, make_plan
from diffmavil_jax.tasks.pretraining import pretraining_task
from diffmavil_jax.tasks.program import Program, make_program

METHODS = ('mavil', 'diffmavil')


@dataclasses.dataclass
class Timed:
    """One bucket of one method, and how long a step took in each round."""

    method: str
    bucket: Bucket
    step: Any
    batch: dict[str, jax.Array]
    compile_s: float
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--variant', default='demo', help='of configs/mavil.py and configs/diffmavil.py')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=4, help='timed in a row, of each bucket in each round')
    parser.add_argument('--peak', type=float, help='FLOP/s of all devices together')
    parser.add_argument('--out', type=pathlib.Path, help='a JSON file for the numbers')
    parser.add_argument('changes', nargs='*', metavar='FIELD=VALUE', help='such as masking.buckets=2')
    options = parser.parse_args()
    keep_freed_memory()  # as main.py does
    configs = {method: load(method, options.variant, options.changes) for method in METHODS}
    plans = {method: make_plan(config) for method, config in configs.items()}
    peak = options.peak or measure_peak(configs['diffmavil'].compute.dtype)
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, peak {peak / 1e9:,.0f} GFLOP/s')
    timed: list[Timed] = []
    states: dict[str, Any] = {}
    for method, config in configs.items():
        program = bare_program(config, plans[method])
        states[method] = program.init()
        timed += [
            compile_bucket(method, config, plans[method], program, i)
            for i in range(len(plans[method].buckets))
        ]
    for _ in range(options.rounds):
        for entry in timed:
            states[entry.method], seconds = timed_steps(
                entry.step, states[entry.method], entry.batch, options.steps
            )
            entry.seconds.append(seconds)
    rows = [describe(entry, peak) for entry in timed]
    print(table(rows))
    macs = {method: plan.macs / plan.total_samples for method, plan in plans.items()}
    seconds = {method: seconds_per_clip(plans[method], timed, method) for method in METHODS}
    saved = {
        name: 1 - values['diffmavil'] / values['mavil']
        for name, values in (('macs', macs), ('time', seconds))
    }
    print(f'DiffMAViL saves {saved["macs"]:.1%} of the MACs and {saved["time"]:.1%} of the time a clip.')
    if options.out:
        options.out.write_text(json.dumps({'peak': peak, 'rows': rows, 'saved': saved}, indent=2) + '\n')


def load(method: str, variant: str, changes: list[str]) -> Config:
    """The config of a variant, on generated clips, with fields changed."""
    config = importlib.import_module(f'configs.{method}').get_config(variant)
    config.data.source = 'generated'
    for change in changes:
        field, _, value = change.partition('=')
        config.update_from_flattened_dict({field: parse(value)})
    return from_dict(config.to_dict())


def parse(value: str) -> Any:
    """A number, true or false; any other text is itself."""
    try:
        return json.loads(value.lower())
    except json.JSONDecodeError:
        return value


def bare_program(config: Config, plan: Plan) -> Program:
    """The steps of a pretraining task; its data are not read."""
    config, reason = for_this_machine(config)
    print(f'Attention of {config.name}: {config.compute.attention}, {reason}')
    task = pretraining_task(config, plan, open_sources(config), pathlib.Path())
    return make_program(config, task, plan, make_mesh(config.parallel))


def compile_bucket(method: str, config: Config, plan: Plan, program: Program, index: int) -> Timed:
    """Compiles one step and makes its batch, of clips of noise."""
    bucket = plan.buckets[index]
    began = time.perf_counter()
    step = program.lower(index).compile()
    compile_s = time.perf_counter() - began
    return Timed(method, bucket, step, random_batch(config, bucket.batch_size), compile_s)


def random_batch(config: Config, size: int) -> dict[str, jax.Array]:
    """Clips of noise on the devices."""
    shapes, rng = ClipSpec.of(config.data).shapes, np.random.default_rng(0)
    waveform, frames = shapes['waveform'], shapes['frames']
    batch = {
        'waveform': rng.integers(-9_000, 9_000, (size, *waveform.shape), waveform.dtype),
        'frames': rng.integers(0, 256, (size, *frames.shape), frames.dtype),
        'position': np.arange(size, dtype=np.int32),
    }
    return hosts.put_batch(batch, make_mesh(config.parallel))


def timed_steps(step: Any, state: Any, batch: dict[str, jax.Array], steps: int) -> tuple[Any, float]:
    """The state after some steps, and the mean seconds of one, after one that is not timed.

    Steps are dispatched ahead, as the training loop does it: what the host has to do for a step, it does
    while the one before is computed.
    """
    state, _ = step(state, batch)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return state, (time.perf_counter() - began) / steps


def measure_peak(dtype: str) -> float:
    """FLOP/s of a large product of random matrices on each of the devices; of ones, a GPU is faster."""
    size = 2_048 if jax.default_backend() == 'cpu' else 8_192
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    product = jax.jit(lambda x, y: x @ y)
    product(a, b).block_until_ready()
    best = min(_time(lambda: product(a, b).block_until_ready()) for _ in range(10))
    return 2 * size**3 / best * jax.device_count()


def _time(function: Any) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def describe(entry: Timed, peak: float) -> dict[str, Any]:
    """One row of the table."""
    bucket, memory = entry.bucket, entry.step.memory_analysis()
    flops = 6 * bucket.macs_per_clip * bucket.batch_size
    return {
        'method': entry.method,
        'mask': bucket.mask_ratio,
        'batch': bucket.batch_size,
        'compile s': entry.compile_s,
        'step ms': 1e3 * entry.median,
        'clips/s': bucket.batch_size / entry.median,
        'GMAC/s': flops / 2e9 / entry.median,
        'MFU %': 100 * flops / entry.median / peak,
        'memory GB': (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e9,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [list(rows[0]), ['---'] * len(rows[0])]
    lines += [[f'{x:.4g}' if isinstance(x, float) else str(x) for x in row.values()] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def seconds_per_clip(plan: Plan, timed: list[Timed], method: str) -> float:
    """Seconds a clip of the whole run: each bucket's steps at their median."""
    entries = [entry for entry in timed if entry.method == method]
    return sum(entry.bucket.steps * entry.median for entry in entries) / plan.total_samples


if __name__ == '__main__':
    main()
