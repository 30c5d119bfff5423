"""What each technique saves: python -m experiments.efficiency [--scale=demo|paper] [--out=DIR].

From MAViL to DiffMAViL and beyond, one technique more in each row, at equal clips. Multiply-accumulates
are those of the plan; the count beside them is of the matrix products in the traced step, loops as often
as they run. With --time (the default at demo scale) every bucket's step is compiled and timed, in
rounds that take turns, and the run's time is the sum of steps times their median, and compiling.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import pathlib
import statistics
import time
from typing import Any

import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from configs import diffmavil_fast, mavil
from diffmavil_jax.aot.flops import matmul_flops
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.plan.buckets import Plan, make_plan
from diffmavil_jax.tasks.program import Program
from diffmavil_jax.units import si
from experiments.stepping import bare_program, random_batch, timed_steps

VARIANTS = {'demo': 'demo_plain', 'paper': 'audioset'}
# Each is added to those above it. Up to the adaptive batch it is configs/diffmavil.py, with cross-attention
# for sound besides configs/diffmavil_cross.py. The last row is configs/diffmavil_fast.py.
TECHNIQUES: dict[str, dict[str, Any]] = {
    'MAViL': {},
    'diffused patches': {'diffusion.enabled': True, 'loss.normalize_targets': False},
    'cross-attention, video': {'model.video_decoder': 'cross'},
    'curriculum': {'masking.curriculum': 'linear'},
    'adaptive batch': {'batch.rule': 'visible_tokens'},
    'cross-attention, audio': {'model.audio_decoder': 'cross'},
    'a tenth of the masked decoded': {'model.decoded_fraction': 0.1},
}
FAST = 'fast preset'


@dataclasses.dataclass
class Stage:
    """MAViL with all techniques up to one, and what was measured of it.

    Attributes:
        counted: multiply-accumulates of a step for each bucket, forward and backward.
        compile_s: of all buckets.
        seconds: of a step of each bucket, in each round.
    """

    name: str
    config: Config
    plan: Plan
    counted: list[float] = dataclasses.field(default_factory=list)
    compile_s: float = 0.0
    seconds: list[list[float]] = dataclasses.field(default_factory=list)

    @property
    def run_s(self) -> float:
        """Seconds of the whole run, without evaluation."""
        steps = zip(self.plan.buckets, self.seconds, strict=True)
        return self.compile_s + sum(bucket.steps * statistics.median(times) for bucket, times in steps)

    @property
    def training_s(self) -> float:
        return self.run_s - self.compile_s


def main() -> None:
    """Prints the table; writes it, the numbers and a picture below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--scale', choices=VARIANTS, default='demo')
    parser.add_argument('--out', type=pathlib.Path)
    parser.add_argument('--time', action=argparse.BooleanOptionalAction, help='compile and time the steps')
    parser.add_argument('--rounds', type=int, default=8)
    parser.add_argument('--steps', type=int, default=8, help='timed in a row, of each bucket in each round')
    options = parser.parse_args()
    keep_freed_memory()  # as main.py does
    stages = make_stages(VARIANTS[options.scale])
    programs = [bare_program(stage.config, stage.plan) for stage in stages]
    for stage, program in zip(stages, programs, strict=True):
        for index, bucket in enumerate(stage.plan.buckets):
            flops = matmul_flops(program.trace(index).jaxpr)
            stage.counted.append(flops / 2 / bucket.batch_size)
    if options.time if options.time is not None else options.scale == 'demo':
        measure(stages, programs, options.rounds, options.steps)
    text = table(stages)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / 'efficiency.md').write_text(text + '\n')
        (options.out / 'efficiency.json').write_text(json.dumps(numbers(stages), indent=2) + '\n')
        (options.out / 'efficiency.png').write_bytes(picture(stages))


def make_stages(variant: str) -> list[Stage]:
    """The configs, on clips that need no data."""
    values = mavil.get_config(variant)
    values.data.source = 'generated'
    stages = []
    for name, changes in TECHNIQUES.items():
        values.update_from_flattened_dict(changes)
        config = from_dict(values.to_dict())
        stages.append(Stage(name, config, make_plan(config)))
    values = diffmavil_fast.get_config(variant)
    values.data.source = 'generated'
    config = from_dict(values.to_dict())
    return [*stages, Stage(FAST, config, make_plan(config))]


def measure(stages: list[Stage], programs: list[Program], rounds: int, steps: int) -> None:
    """Compiles and times every bucket of every stage."""
    compiled, states = [], []
    sizes = {bucket.batch_size for stage in stages for bucket in stage.plan.buckets}
    batches = {size: random_batch(stages[0].config, size) for size in sizes}
    for stage, program in zip(stages, programs, strict=True):
        began = time.perf_counter()
        compiled.append([program.lower(index).compile() for index in range(len(stage.plan.buckets))])
        stage.compile_s = time.perf_counter() - began
        states.append(program.init())
        stage.seconds = [[] for _ in stage.plan.buckets]
    for _ in range(rounds):
        for i, stage in enumerate(stages):
            for bucket, step, seconds in zip(stage.plan.buckets, compiled[i], stage.seconds, strict=True):
                states[i], mean = timed_steps(step, states[i], batches[bucket.batch_size], steps)
                seconds.append(mean)


def numbers(stages: list[Stage]) -> dict[str, Any]:
    """The numbers of the table."""
    first = stages[0]
    rows = []
    for stage in stages:
        clips = stage.plan.total_samples
        parts = zip(stage.plan.buckets, stage.counted, strict=True)
        counted = sum(count * (b.last_sample - b.first_sample) for b, count in parts) / clips
        row = {
            'technique': stage.name,
            'clips': clips,
            'macs_per_clip': stage.plan.macs / clips,
            'macs': stage.plan.macs,
            'macs_saved': 1 - stage.plan.macs / clips / (first.plan.macs / first.plan.total_samples),
            'counted_macs_per_step_and_clip': counted,
        }
        if stage.seconds:
            per_clip = stage.training_s / clips
            row |= {
                'ms_per_clip': 1e3 * per_clip,
                'time_saved': 1 - per_clip / (first.training_s / first.plan.total_samples),
                'compile_s': stage.compile_s,
                'run_s': stage.run_s,
                'buckets': [
                    {'mask': b.mask_ratio, 'batch': b.batch_size, 'step_ms': 1e3 * statistics.median(times)}
                    for b, times in zip(stage.plan.buckets, stage.seconds, strict=True)
                ],
            }
        rows.append(row)
    device = jax.devices()[0].device_kind
    return {'name': first.config.name, 'device': f'{jax.device_count()} x {device}', 'rows': rows}


def table(stages: list[Stage]) -> str:
    """The rows as Markdown."""
    data = numbers(stages)
    timed = 'ms_per_clip' in data['rows'][0]
    columns = ['technique', 'MACs a clip', 'of the run', 'saved', 'counted, 3 passes']
    columns += ['ms a clip', 'time saved', 'compile', 'run'] * timed
    if timed:
        columns = [*columns[:5], 'step of each bucket', *columns[5:]]
    lines = [columns, ['---'] * len(columns)]
    for row in data['rows']:
        line = [
            spell_name(row['technique']),
            si(row['macs_per_clip']),
            si(row['macs']),
            f'{row["macs_saved"]:.1%}',
            si(row['counted_macs_per_step_and_clip']),
        ]
        if timed:
            line += [
                ', '.join(f'{b["step_ms"]:.0f} ms of {b["batch"]}' for b in row['buckets']),
                f'{row["ms_per_clip"]:.2f}',
                f'{row["time_saved"]:.1%}',
                f'{row["compile_s"]:.0f} s',
                f'{row["run_s"]:,.0f} s',
            ]
        lines.append(line)
    rows = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'{data["name"]}, each + with all techniques above it; {data["device"]}\n\n{rows}'


def spell_name(technique: str) -> str:
    """The name, with a plus if the row adds to the one above."""
    return technique if technique in ('MAViL', FAST) else f'+ {technique}'


def picture(stages: list[Stage]) -> bytes:
    """PNG: a bar for each stage's multiply-accumulates a clip and, where measured, its time; MAViL is 1."""
    rows = numbers(stages)['rows']
    series = {'multiply-accumulates': ([1 - row['macs_saved'] for row in rows], '#3b6fb6')}
    if 'time_saved' in rows[0]:
        series['time'] = ([1 - row['time_saved'] for row in rows], '#e08a2c')
    figure = Figure(figsize=(8, 0.55 * len(rows) + 1.2), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    height = 0.8 / len(series)
    for number, (name, (values, colour)) in enumerate(series.items()):
        places = [row + (number - (len(series) - 1) / 2) * height for row in range(len(rows))]
        bars = axes.barh(places, values, height, color=colour, label=f'{name} a clip')
        axes.bar_label(bars, labels=[f'{value:.0%}' for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), [spell_name(row['technique']) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25)
    axes.set_xlabel("share of MAViL's, at equal clips")
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='lower right')
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    return buffer.getvalue()


if __name__ == '__main__':
    main()
