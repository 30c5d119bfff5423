"""The largest batches that a memory holds: `main.py --fit_batch=GIB`.

Found from what the compiler says of each step's memory, without running any, and kept: a second
search compiles nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from diffmavil_jax.aot.compiled import compile_step, program_without_data
from diffmavil_jax.aot.topology import find
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.attention import choose
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import Bucket, make_plan, visible_at_stretches
from diffmavil_jax.units import size

_GUESSES = 4  # along a line


def run(config: Config, gib: float, topology: str | None, say: Callable[[str], None]) -> list[int]:
    """The largest batch at each mask ratio, up to batch.max_size and in multiples of batch.multiple.

    Args:
        config: of the run; its batch.rule does not matter.
        gib: a device's memory for state, batch and temporaries.
        topology: see `compile_for`; without one, the devices that are here.
        say: is told each bucket's answer as it comes.

    Raises:
        ConfigError: not even the smallest batch fits, or the topology is wrong.
    """
    if not gib > 0:
        raise ConfigError(f'--fit_batch = {gib}: must be a positive number of GiB.')
    if config.objective == 'classification':
        raise ConfigError(
            '--fit_batch: must go with config.objective=pretraining or stage2, not classification, whose '
            'batch config.batch.size is the same for all clips.'
        )
    devices = find(topology)[1] if topology else jax.devices()
    attention = 'xla' if topology else choose(config.model.attention, config.model.dtype)[0]
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention=attention))
    mesh = make_mesh(config.parallel, devices)
    plan = make_plan(config)
    known = _Known(config, devices, dict(mesh.shape))
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * config.batch.parts
    unit = math.lcm(config.batch.multiple, parts)
    sizes = {}
    for index, bucket in enumerate(plan.buckets):

        def peak(batch: int, bucket: Bucket = bucket, index: int = index) -> float:
            wanted = dataclasses.replace(bucket, batch_size=batch)

            def compile_it() -> float:
                buckets = (*plan.buckets[:index], wanted, *plan.buckets[index + 1 :])
                program = program_without_data(config, dataclasses.replace(plan, buckets=buckets), mesh)
                compiled = compile_step(program, wanted, index, len(devices))
                return math.inf if compiled.refusal else float(compiled.peak)

            return known.get(wanted, compile_it)

        budget = gib * 2**30
        batch = largest(peak, budget, unit, config.batch.max_size)
        if not batch:
            raise ConfigError(
                f'--fit_batch = {gib:g}: at mask ratio {bucket.mask_ratio:.3f} even {unit} clips need '
                f'{size(peak(unit))} on a device. More devices on config.parallel.fsdp, config.batch.parts '
                'or config.model.remat need less.'
            )
        say(f'mask {bucket.mask_ratio:.3f}: {batch:,} clips, {size(peak(batch))} of {size(budget)}')
        sizes[bucket.audio_tokens, bucket.video_tokens] = batch
    return [sizes[tokens] for tokens in visible_at_stretches(config)]


def largest(peak: Callable[[int], float], budget: float, unit: int, most: int) -> int:
    """The largest multiple of `unit`, at most `most`, whose `peak` is within the budget; 0 if none is.

    Memory is nearly a straight line over the batch, so at first the next size to try is where a line
    through two that were tried meets the budget. Then what is left is halved.
    """
    low, high = 0, most // unit + 1  # in units: `low` fits, `high` does not or is not allowed
    tried: dict[int, float] = {}
    guess = 1
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        tried[guess] = peak(guess * unit)
        low, high = (guess, high) if tried[guess] <= budget else (low, guess)
        guess = _on_the_line(tried, budget) if len(tried) <= _GUESSES else (low + high) // 2
    return low * unit


def _on_the_line(tried: dict[int, float], budget: float) -> int:
    """Where the line through the two sizes nearest to the budget meets it."""
    finite = sorted((n for n in tried if math.isfinite(tried[n])), key=lambda n: abs(tried[n] - budget))
    if len(finite) < 2:
        return 2 * finite[0] if finite else 1
    a, b = finite[:2]
    slope = (tried[b] - tried[a]) / (b - a)
    return a + math.floor((budget - tried[a]) / slope) if slope > 0 else 2 * max(finite)


class _Known:
    """Memory of steps that were compiled before, in a file beside the compilation cache."""

    def __init__(self, config: Config, devices: list[Any], axes: dict[str, int]) -> None:
        sections = to_dict(config)
        about = {
            name: sections[name] for name in ('objective', 'data', 'audio', 'video', 'model', 'diffusion')
        }
        about |= {name: sections[name] for name in ('loss', 'finetune')}
        about |= {'jax': jax.__version__, 'devices': devices[0].device_kind, 'axes': axes}
        about |= {'parts': config.batch.parts}
        self._key = json.dumps(about, sort_keys=True)
        folder = config.parallel.compilation_cache
        self._folder = pathlib.Path(folder).expanduser() / 'memory' if folder else None

    def get(self, bucket: Bucket, compile_it: Callable[[], float]) -> float:
        """The peak of a bucket's step in bytes; infinite where it does not compile."""
        shapes = dataclasses.astuple(
            dataclasses.replace(bucket, first_sample=0, last_sample=0, steps=0, mask_ratio=0.0)
        )
        name = hashlib.sha256(f'{self._key}{shapes}'.encode()).hexdigest()[:32]
        path = self._folder / f'{name}.json' if self._folder else None
        if path and path.exists():
            return float(json.loads(path.read_text())['peak'])
        peak = compile_it()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({'peak': peak, 'shapes': shapes}))
        return peak
