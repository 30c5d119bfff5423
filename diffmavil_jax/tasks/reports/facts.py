"""What every report says of its run: device, versions, times, MACs, refused files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import ClipSource, Refusal
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.plan.table import plan_rows
from diffmavil_jax.training.interfaces import Timings
from diffmavil_jax.units import spell


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the process.

    Attributes:
        command: that repeats the run.
        environment: device and versions.
        timings: of training, over all starts of the run.
        started: time.time() at this start.
        notes: sentences for the page.
    """

    command: str
    environment: Mapping[str, Any]
    timings: Timings
    started: float
    notes: Sequence[str]


def run_summary(config: Config, plan: Plan, params: Any, refused: int, facts: Facts) -> dict[str, Any]:
    """The numbers of summary.json that every run has."""
    timings = dataclasses.asdict(facts.timings)
    return {
        'name': config.name,
        'seed': config.seed,
        'clips_seen': plan.total_samples,
        'macs': {
            'saved_fraction': plan.saved,
            'total': plan.macs,
            'reference': plan.baseline,
            'reference_per_clip': plan.baseline_macs_per_clip,
        },
        'buckets': plan_rows(plan),
        'compilations': {'train_step': timings.pop('compilations')},
        'time': {**timings, 'total_s': time.time() - facts.started},
        'refused': refused,
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
        'environment': dict(facts.environment),
    }


def spell_facts(summary: Mapping[str, Any], facts: Facts, plan: Plan) -> dict[str, str]:
    """The facts on the page: a name and a text for each."""
    seconds = summary['time']
    return {
        'Device': str(facts.environment['device']),
        'Clips seen': spell(summary['clips_seen']),
        'Wall-clock since this start': spell(seconds['total_s'], 'seconds'),
        'Training': spell(seconds['train_s'], 'seconds'),
        'Waiting for data': spell(seconds['data_wait_s'] / max(seconds['train_s'], 1e-9), 'percent'),
        'Waiting for the compiler': spell(seconds['compile_s'], 'seconds'),
        'Compiled train steps': spell(summary['compilations']['train_step']),
        'Parameters': spell(summary['parameters'], 'si'),
        f'MACs saved against {plan.baseline}': spell(summary['macs']['saved_fraction'], 'percent'),
        'Seed': str(summary['seed']),
        'Versions': ', '.join(
            f'{name.removeprefix("version ")} {version}'
            for name, version in facts.environment.items()
            if name.startswith('version ')
        ),
    }


def refusals(sources: Sequence[ClipSource]) -> list[tuple[str, str]]:
    """(path, reason) of each refused file, once: every part of a dataset names the files of all parts."""
    all_of_them: dict[Refusal, None] = {}
    for source in sources:
        all_of_them |= dict.fromkeys(source.refused())
    return [(refusal.path, refusal.reason) for refusal in all_of_them]
