"""Quality against cost, each method tuned alike: python -m experiments.pareto [--minutes=60] [--arms ...].

`pareto.json` declares the comparison before it runs: arms, grid of rates and batches, seeds, endpoints,
margins, and the rule of the verdicts. Each arm is tuned on the same grid, on seeds (and so on clips of the
generated world) that are used for nothing else; with what it chose it is then trained on the report seeds.
Differences are paired by seed. Trainings are kept below --out: a second start goes on where the time was
up, and refuses another declaration. What was not run is said to be not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffmavil_jax.atomic import write_json
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.plan.buckets import make_plan
from experiments import cells, pareto_page
from experiments.efficiency import Stage, measure
from experiments.stepping import bare_program

DECLARED = pathlib.Path(__file__).with_suffix('.json')
_GALLERIES = 16
# What `fast` has besides the papers, and every method can have.
EQUIPMENT = {'masking.contrast_power': 1.0, 'loss.inter_both_views': True, 'model.class_token': False}


@dataclasses.dataclass(frozen=True)
class Choice:
    """What an arm is tuned in."""

    rate: float
    batch: int


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What `pareto.json` declares; its text is kept beside the results.

    Attributes:
        clips: of each training.
        arms: what each changes, the reference among them.
        grid: what each arm is tuned in.
    """

    values: Mapping[str, Any]

    @property
    def clips(self) -> int:
        return self.values['clips']

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        return self.values['arms']

    @property
    def grid(self) -> list[Choice]:
        tuning = self.values['tuning']
        return [Choice(*pair) for pair in itertools.product(tuning['rates'], tuning['batches'])]

    @property
    def tuning_seeds(self) -> Sequence[int]:
        return self.values['tuning']['seeds']

    @property
    def report_seeds(self) -> Sequence[int]:
        return self.values['report_seeds']

    def primary(self, numbers: cells.Numbers) -> float:
        """The primary endpoint of one training."""
        return float(np.mean([numbers[name] for name in self.values['primary']['numbers']]))


def read_protocol(path: pathlib.Path = DECLARED) -> Protocol:
    """The declaration.

    Raises:
        ValueError: a report seed is a tuning seed, the reference is no arm, or a grid is empty.
    """
    protocol = Protocol(json.loads(path.read_text(encoding='utf-8')))
    both = set(protocol.tuning_seeds) & set(protocol.report_seeds)
    if both:
        raise ValueError(f'{path}: seeds {sorted(both)} are tuned on and reported; they must be others.')
    if protocol.values['reference'] not in protocol.arms:
        raise ValueError(f'{path}: the reference {protocol.values["reference"]!r} must be one of the arms.')
    if not protocol.grid or not protocol.tuning_seeds:
        raise ValueError(f'{path}: tuning must have rates, batches and seeds.')
    return protocol


def config_of(protocol: Protocol, arm: str, choice: Choice, seed: int) -> Config:
    """The demo's network and world by the method of an arm."""
    declared = protocol.arms[arm]
    values = importlib.import_module(f'configs.{declared["preset"]}').get_config('demo_plain')
    if declared.get('equipped', False):
        values.update_from_flattened_dict(EQUIPMENT)
    values.update_from_flattened_dict(declared.get('fields', {}))
    values.seed = seed
    values.optimizer.learning_rate = choice.rate
    # The adaptive rule grows batches by half, as in the demo.
    values.batch.update(size=choice.batch, max_size=3 * choice.batch // 2)
    # The interval should be the seeds', not the clips': all held-out clips, 256 at a time.
    is_tuning = seed in protocol.tuning_seeds
    galleries = protocol.values['tuning']['galleries'] if is_tuning else _GALLERIES
    values.evaluation.update(probe_eval_clips=2_048, retrieval_galleries=galleries)
    return cells.with_samples(from_dict(values.to_dict()), protocol.clips)


class Runs:
    """The trainings below a folder, as many as the time allows.

    Args:
        protocol: what is compared.
        out: the folder.
        minutes: no training begins that would probably end later; 0 begins none.

    Raises:
        ValueError: the folder has the results of another declaration.
    """

    def __init__(self, protocol: Protocol, out: pathlib.Path, minutes: float) -> None:
        self._protocol, self._out = protocol, out
        self._end, self._longest = time.monotonic() + 60 * minutes, 0.0
        out.mkdir(parents=True, exist_ok=True)
        kept = out / 'protocol.json'
        if kept.exists() and json.loads(kept.read_text()) != protocol.values:
            raise ValueError(
                f'{out} has results of another declaration than {DECLARED.name}; take another --out.'
            )
        write_json(kept, protocol.values)

    def numbers(self, arm: str, choice: Choice, seed: int) -> cells.Numbers | None:
        """Those of one training, which is run if it was not; None if the time does not suffice."""
        name = f'{arm.replace("/", "-")}, {choice.rate:g}, {choice.batch}, seed {seed}'
        folder = self._out / name
        begin = time.monotonic()
        if begin + self._longest > self._end and not cells.is_finished(folder):
            return None
        found = cells.pretrain(config_of(self._protocol, arm, choice, seed), folder)
        self._longest = max(self._longest, time.monotonic() - begin)
        print(f'{name}: {100 * self._protocol.primary(found):.1f} %', flush=True)
        return found

    def choice(self, arm: str) -> Choice | None:
        """What is best for an arm on the tuning seeds, the lowest rate among equals; None without time."""
        scores = {}
        for choice in self._protocol.grid:
            found = [self.numbers(arm, choice, seed) for seed in self._protocol.tuning_seeds]
            measured = [self._protocol.primary(numbers) for numbers in found if numbers is not None]
            if len(measured) < len(found):
                return None
            scores[choice] = float(np.mean(measured))
        return max(scores, key=lambda choice: (scores[choice], -choice.rate))

    def report(self, arms: Sequence[str]) -> Iterator[tuple[str, Choice, int, cells.Numbers]]:
        """The trainings on the report seeds, seed by seed, so that differences can be paired early."""
        chosen = {arm: self.choice(arm) for arm in arms}
        for seed in self._protocol.report_seeds:
            for arm, choice in chosen.items():
                found = None if choice is None else self.numbers(arm, choice, seed)
                if choice is not None and found is not None:
                    yield arm, choice, seed, found


def timed(protocol: Protocol, choices: Mapping[str, Choice], rounds: int) -> dict[str, float]:
    """Milliseconds of training a clip of each arm: steps of all arms are timed in turns in one process."""
    stages = []
    for arm, choice in choices.items():
        config = config_of(protocol, arm, choice, seed=0)
        stages.append(Stage(arm, config, make_plan(config)))
    measure(stages, [bare_program(stage.config, stage.plan) for stage in stages], rounds, steps=8)
    return {stage.name: 1e3 * stage.training_s / stage.plan.total_samples for stage in stages}


def main() -> None:
    """Trains what is missing as far as the time allows; writes the table, its numbers and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    protocol = read_protocol()
    parser.add_argument('--minutes', type=float, default=60.0, help='no training begins that would end later')
    parser.add_argument(
        '--arms', nargs='+', choices=list(protocol.arms), default=list(protocol.arms), metavar='ARM'
    )
    parser.add_argument('--time', type=int, default=8, metavar='ROUNDS', help='of timed steps; 0: none')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/pareto'))
    options = parser.parse_args()
    keep_freed_memory()  # as main.py does
    use_compilation_cache('~/.cache/diffmavil_jax')
    runs = Runs(protocol, options.out, options.minutes)
    found = list(runs.report(options.arms))
    choices = {arm: choice for arm, choice, _, _ in found}
    times = timed(protocol, choices, options.time) if options.time else {}
    results = {
        arm: {
            'rate': choice.rate,
            'batch': choice.batch,
            'ms_per_clip': times.get(arm),
            'seeds': {str(seed): numbers for of, _, seed, numbers in found if of == arm},
        }
        for arm, choice in choices.items()
    }
    write_json(options.out / 'results.json', results)
    print(pareto_page.table(protocol.values, results))
    (options.out / 'pareto.png').write_bytes(pareto_page.picture(protocol.values, results))


if __name__ == '__main__':
    main()
