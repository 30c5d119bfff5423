"""The largest batches that fit a memory: `main.py --fit_batch=GIB`.

The compiler tells how much memory a step needs, so no step is run. What it told is kept in files,
so that a second search compiles nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from diffmavil_jax.aot.compiled import compile_step, program_without_data
from diffmavil_jax.aot.topology import compiler_of, computed_on, find_topology
from diffmavil_jax.atomic import write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.attention import for_this_machine
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import Bucket, make_plan, visible_at_stretches
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.units import size

_GUESSES = 4  # sizes that are tried along a line before the rest is halved

# Sections and fields that change neither a step nor its memory, or change it through the shapes of a bucket
# alone. Every other field is part of the key under which the memory of a step is kept.
_WITHOUT_EFFECT = (
    'name',
    'seed',
    'init',
    'teacher',
    'train',
    'checkpoint',
    'evaluation',
    'batch',
    'parallel',
)
_IN_THE_SHAPES = ('curriculum', 'start_ratio', 'end_ratio', 'buckets', 'token_multiple')


def largest_batches(
    config: Config, gib: float, topology: str | None, say: Callable[[str], None]
) -> list[int]:
    """The largest batch at each mask ratio: a multiple of batch.multiple, at most batch.max_size.

    Args:
        config: the run; its batch.rule does not matter.
        gib: memory of a device, for the state, the batch and temporaries.
        topology: such as v5e:16x16; without one, the devices of this machine.
        say: is called with a line of text for each bucket.

    Raises:
        ConfigError: not even the smallest batch fits, or the topology is wrong.
    """
    _check(config, gib)
    steps, budget = _Steps(config, topology), gib * 2**30
    sizes = {}
    for index, bucket in enumerate(steps.plan.buckets):
        peak = functools.partial(steps.peak, index)
        batch = largest_within(peak, budget, steps.unit, config.batch.max_size)
        if not batch:
            raise ConfigError(
                f'--fit_batch = {gib:g}: at mask ratio {bucket.mask_ratio:.3f} even {steps.unit} clips need '
                f'{size(peak(steps.unit))} on a device. More devices on config.parallel.fsdp, '
                'config.batch.microbatches or config.compute.remat need less.'
            )
        say(f'mask {bucket.mask_ratio:.3f}: {batch:,} clips, {size(peak(batch))} of {size(budget)}')
        sizes[bucket.audio_tokens, bucket.video_tokens] = batch
    return [sizes[tokens] for tokens in visible_at_stretches(config)]


def largest_within(peak: Callable[[int], float], budget: float, unit: int, most: int) -> int:
    """The largest multiple of `unit`, at most `most`, whose `peak` is within the budget; 0 if none is.

    Memory grows nearly in a straight line with the batch. So the first sizes to try are where a line
    through two known sizes meets the budget. After a few of them, the interval that is left is halved.
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
    """Where the line through the two sizes whose peaks are nearest to the budget meets it."""
    finite = sorted((n for n in tried if math.isfinite(tried[n])), key=lambda n: abs(tried[n] - budget))
    if len(finite) < 2:
        return 2 * finite[0] if finite else 1
    a, b = finite[:2]
    slope = (tried[b] - tried[a]) / (b - a)
    return a + math.floor((budget - tried[a]) / slope) if slope > 0 else 2 * max(finite)


def _check(config: Config, gib: float) -> None:
    """Raises ConfigError if the search makes no sense for the run."""
    if not gib > 0:
        raise ConfigError(f'--fit_batch = {gib}: must be a positive number of GiB.')
    if config.objective == 'classification':
        raise ConfigError(
            '--fit_batch: must go with config.objective=pretraining or stage2, not classification, whose '
            'batch config.batch.size is the same for all clips.'
        )


class _Steps:
    """The steps of a run with batches of any size, and the memory that they need."""

    def __init__(self, config: Config, topology: str | None) -> None:
        if topology:
            chip, self._devices = find_topology(topology)
            self._config, self._compiler = computed_on(config, chip), compiler_of(chip)
        else:
            self._devices, self._compiler = jax.devices(), contextlib.nullcontext()
            self._config, _ = for_this_machine(config)
        self._mesh = make_mesh(config.parallel, self._devices)
        self._known = _KnownPeaks(self._config, self._devices, dict(self._mesh.shape))
        self.plan = make_plan(self._config)
        shares = self._mesh.shape['data'] * self._mesh.shape['fsdp'] * config.batch.microbatches
        self.unit = math.lcm(config.batch.multiple, shares)  # every batch is a multiple of it

    def peak(self, index: int, batch_size: int) -> float:
        """Bytes on a device of one bucket's step with another batch size; infinite if it does not compile."""
        bucket = dataclasses.replace(self.plan.buckets[index], batch_size=batch_size)
        peak = self._known.get(bucket)
        if peak is None:
            peak = self._compiled_peak(index, bucket)
            self._known.put(bucket, peak)
        return peak

    def _compiled_peak(self, index: int, bucket: Bucket) -> float:
        buckets = list(self.plan.buckets)
        buckets[index] = bucket
        plan = dataclasses.replace(self.plan, buckets=tuple(buckets))
        program = program_without_data(self._config, plan, self._mesh)
        with self._compiler:
            compiled = compile_step(program, bucket, index, len(self._devices))
        return math.inf if compiled.refusal else float(compiled.peak)


class _KnownPeaks:
    """Memory of steps that were compiled before, in files beside the compilation cache."""

    def __init__(self, config: Config, devices: Sequence[Any], axes: dict[str, int]) -> None:
        self._key = json.dumps(
            {
                'config': _what_a_step_depends_on(config),
                'teacher': read_config(config.teacher) if config.teacher else None,
                'parts': config.batch.microbatches,
                'axes': axes,
                'devices': devices[0].device_kind,
                'jax': jax.__version__,
            },
            sort_keys=True,
        )
        folder = config.parallel.compilation_cache
        self._folder = pathlib.Path(folder).expanduser() / 'memory' if folder else None
        self._peaks: dict[Bucket, float] = {}

    def get(self, bucket: Bucket) -> float | None:
        """The peak of a bucket's step in bytes; None if it is not known."""
        path = self._path(bucket)
        if bucket not in self._peaks and path and path.exists():
            self._peaks[bucket] = float(json.loads(path.read_text())['peak'])
        return self._peaks.get(bucket)

    def put(self, bucket: Bucket, peak: float) -> None:
        """Keeps the peak of a bucket's step."""
        self._peaks[bucket] = peak
        if path := self._path(bucket):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {'peak': peak, 'shapes': _shapes(bucket)})

    def _path(self, bucket: Bucket) -> pathlib.Path | None:
        name = hashlib.sha256(f'{self._key}{_shapes(bucket)}'.encode()).hexdigest()[:32]
        return self._folder / f'{name}.json' if self._folder else None


def _what_a_step_depends_on(config: Config) -> dict[str, Any]:
    """The fields of a config that can change a step, but for those that its bucket has."""
    fields = {name: value for name, value in to_dict(config).items() if name not in _WITHOUT_EFFECT}
    masking = {name: value for name, value in fields['masking'].items() if name not in _IN_THE_SHAPES}
    return {**fields, 'masking': masking}


def _shapes(bucket: Bucket) -> tuple[Any, ...]:
    """What a step depends on of its bucket."""
    return dataclasses.astuple(
        dataclasses.replace(bucket, first_sample=0, last_sample=0, steps=0, mask_ratio=0.0)
    )
