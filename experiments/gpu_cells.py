"""The measurements of `experiments.on_gpu`, a process for each: python -m experiments.gpu_cells NAME.

A cell prints one line of JSON, its last.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import glob
import gzip
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from diffmavil_jax.aot.fit_batch import largest_batches
from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import for_this_machine
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.tasks.pretraining import pretraining_task
from diffmavil_jax.tasks.program import make_batches, make_program
from experiments.stepping import bare_program, load, measure_peak, random_batch, timed_steps
from experiments.streaming import SPEC, write_dataset

METHODS = ('mavil', 'diffmavil', 'diffmavil_cross', 'diffmavil_fast')
_STEPS, _ROUNDS = 6, 4
_KERNELS = 25
_FED_CLIPS, _FED_STEPS = 4_096, 48
_MEMORY_SHARE = 0.9  # of the device's, that the largest batch may need


def one_bucket(method: str, variant: str, batch: int) -> Config:
    """A method's config with one bucket, at the middle of its mask ratios, and a fixed batch."""
    sizes = [f'batch.{field}={batch}' for field in ('size', 'max_size')]
    return load(method, variant, ['masking.buckets=1', 'batch.multiple=1', 'batch.rule=fixed', *sizes])


def device(variant: str) -> dict[str, Any]:
    """What is there, the attention that is chosen and why, and the peak of a product of random matrices."""
    config = one_bucket('mavil', variant, 8)
    config, reason = for_this_machine(config)
    compute, found = config.compute, jax.devices()[0]
    stats = found.memory_stats() or {}
    return {
        'device': f'{jax.device_count()} x {found.device_kind}',
        'jax': jax.__version__,
        'attention': f'{compute.attention}: {reason}',
        'compute': f'{compute.dtype}, remat {compute.remat}',
        'peak TFLOP/s': measure_peak(compute.dtype) / 1e12,
        'memory GB': stats.get('bytes_limit', 0) / 1e9,
    }


def step(method: str, variant: str, batch: int, profile: bool = False) -> dict[str, Any]:
    """Time, memory and MFU of a method's step; with `profile`, its slowest kernels as well."""
    config = one_bucket(method, variant, batch)
    use_compilation_cache(config.parallel.compilation_cache)
    plan = make_plan(config)
    bucket, program = plan.buckets[0], bare_program(config, plan)
    began = time.perf_counter()
    compiled = program.lower(0).compile()
    compile_s = time.perf_counter() - began
    memory = compiled.memory_analysis()
    state, arrays = program.init(), random_batch(config, bucket.batch_size)
    seconds = []
    for _ in range(_ROUNDS):
        state, taken = timed_steps(compiled, state, arrays, _STEPS)
        seconds.append(taken)
    step_s = statistics.median(seconds)
    flops = 6 * bucket.macs_per_clip * bucket.batch_size
    result = {
        'method': method,
        'mask': bucket.mask_ratio,
        'batch': bucket.batch_size,
        'compile s': compile_s,
        'step ms': 1e3 * step_s,
        'clips/s': bucket.batch_size / step_s,
        'MFU %': 100 * flops / step_s / measure_peak(config.compute.dtype),
        'GMAC a clip': bucket.macs_per_clip / 1e9,
        'predicted GB': (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e9,
        'peak GB': (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0) / 1e9,
        'spread ms': [1e3 * s for s in seconds],
    }
    if profile:
        result['kernels'] = kernels(lambda: jax.block_until_ready(compiled(state, arrays)))
    return result


def kernels(run: Callable[[], Any]) -> list[list[Any]]:
    """The kernels that take most of a step: name, milliseconds, share and calls."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            run()
        (path,) = glob.glob(f'{folder}/**/perfetto_trace.json.gz', recursive=True)
        with gzip.open(path) as file:
            events = json.load(file)['traceEvents']
    threads = {
        (event['pid'], event.get('tid')): event['args']['name']
        for event in events
        if event.get('name') == 'thread_name' and 'args' in event
    }
    times: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get('ph') == 'X' and 'Stream' in threads.get((event['pid'], event.get('tid')), ''):
            times[event['name']] += event['dur']
            calls[event['name']] += 1
    total = sum(times.values()) or 1
    return [[n, us / 1e3, 100 * us / total, calls[n]] for n, us in times.most_common(_KERNELS)]


def fed(method: str, variant: str, batch: int) -> dict[str, Any]:
    """Steps that a loader feeds from prepared shards, beside the same steps on one batch that is there."""
    config = one_bucket(method, variant, batch)
    config, _ = for_this_machine(config)
    use_compilation_cache(config.parallel.compilation_cache)
    workers = max(1, (os.cpu_count() or 2) - 2)
    with tempfile.TemporaryDirectory() as folder:
        path = write_dataset(folder, '', _FED_CLIPS, SPEC.frame_size)
        data = dataclasses.replace(
            config.data,
            source='tfds',
            path=(path,),
            train_split=('train',),
            eval_split=('eval',),
            workers=workers,
            threads=1,
        )
        config = dataclasses.replace(config, data=data)
        plan, mesh = make_plan(config), make_mesh(config.parallel)
        task = pretraining_task(config, plan, open_sources(config), pathlib.Path(folder))
        program = make_program(config, task, plan, mesh)
        compiled, state = program.lower(0).compile(), program.init()
        batches = make_batches(config, task, plan, mesh)(0)
        state, there_s = timed_steps(compiled, state, next(batches)[0], _STEPS)
        waited, began = 0.0, time.perf_counter()
        for _ in range(_FED_STEPS):
            asked = time.perf_counter()
            arrays, _ = next(batches)
            waited += time.perf_counter() - asked
            state, metrics = compiled(state, arrays)
            jax.block_until_ready(metrics)
        fed_s = (time.perf_counter() - began) / _FED_STEPS
    return {
        'batch': batch,
        'workers': workers,
        'step ms': 1e3 * fed_s,
        'step on a batch that is there ms': 1e3 * there_s,
        'clips/s': batch / fed_s,
        'waiting for data %': 100 * waited / _FED_STEPS / fed_s,
    }


def largest(method: str, variant: str) -> dict[str, Any]:
    """The largest batch that fits, and its step."""
    limit = (jax.devices()[0].memory_stats() or {}).get('bytes_limit', 4 * 2**30)
    config = load(method, variant, ['masking.buckets=1', 'batch.multiple=8', 'batch.max_size=4096'])
    (size,) = largest_batches(config, _MEMORY_SHARE * limit / 2**30, None, lambda text: None)
    return step(method, variant, size)


def peer(method: str, variant: str, batch: int, *, compiled: bool) -> dict[str, Any]:
    """PyTorch's step of the same geometry."""
    from experiments import torch_peer

    jax.config.update('jax_platforms', 'cpu')  # JAX would take most of the GPU's memory
    return torch_peer.measure(one_bucket(method, variant, batch), compiled=compiled)


def demo() -> dict[str, Any]:
    """The demo from the command to its report, with a cold compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, 'main.py', '--config=configs/diffmavil.py', f'--workdir={folder}/run',
            f'--config.parallel.compilation_cache={folder}/cache',
        ]  # fmt: skip
        began, first = time.perf_counter(), math.nan
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if '/s ' in line and math.isnan(first):
                first = time.perf_counter() - began
        summary = pathlib.Path(folder) / 'run' / 'report' / 'summary.json'
        scores = json.loads(summary.read_text()) if summary.exists() else {}
        return {
            'exit code': process.wait(),
            'first line s': first,
            'report s': time.perf_counter() - began,
            'retrieval': scores.get('retrieval'),
        }


CELLS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    'device': device,
    **{f'step {m}': lambda v, m=m: step(m, v, 64, profile=m == 'mavil') for m in METHODS},
    'torch mavil': lambda v: peer('mavil', v, 64, compiled=False),
    'torch mavil compiled': lambda v: peer('mavil', v, 64, compiled=True),
    'demo': lambda v: demo(),
    'fed mavil': lambda v: fed('mavil', v, 64),
    **{f'largest {m}': lambda v, m=m: largest(m, v) for m in METHODS},
}


def main() -> None:
    """Measures one cell and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('cell', choices=CELLS)
    parser.add_argument('--variant', default='audioset')
    options = parser.parse_args()
    print(json.dumps(CELLS[options.cell](options.variant)))


if __name__ == '__main__':
    main()
