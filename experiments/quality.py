"""What efficiency costs downstream: python -m experiments.quality [--dataset=generated] [--seeds=5].

Each method pretrains the demo's network, on the same clips in the same order for each seed: at equal
clips, or, with --equal=macs, as long as MAViL's multiply-accumulates last. Then its frozen features are
probed and it is fine-tuned on few labels. Differences to MAViL are paired by seed.

--dataset=generated measures on the generated world. esc10 and spoken_digit pretrain on sounds and films
as well (--data=DIR, see experiments/README.md), and measure on those sets.
Every training is kept below --out; a finished one is not run again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from configs import finetune as finetune_configs
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource
from diffmavil_jax.data.wrappers import Completed
from diffmavil_jax.evaluation.held_out import extract
from diffmavil_jax.evaluation.probes import linear_probe
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.saved.inherit import inherit
from diffmavil_jax.saved.network import open_network
from experiments import cells
from experiments.downstream import COMPARISONS
from experiments.intervals import spell_difference, spell_kind, spell_mean

Numbers = dict[str, float]

# name -> the module in configs/, and fields that it changes besides.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    'MAViL': ('mavil', {}),
    'DiffMAViL': ('diffmavil', {}),
    'mask tokens': ('diffmavil', {'diffusion.enabled': False}),  # DiffMAViL without diffusion alone
    'cross': ('diffmavil_cross', {}),
    'fast': ('diffmavil_fast', {}),
    'MAViL, stage 2': ('mavil', {'objective': 'stage2'}),
    'DiffMAViL, stage 2': ('diffmavil', {'objective': 'stage2'}),
}
# Stage 2 is taught by the stage-1 run of the same seed and as many clips.
TEACHERS = {'MAViL, stage 2': 'MAViL', 'DiffMAViL, stage 2': 'DiffMAViL'}
STAGE_1 = tuple(method for method in METHODS if method not in TEACHERS)

# The rows of the tables: name -> title, factor, digits.
_GENERATED = {
    'retrieval/a2v/r10': ('sound to picture among 256, mean of 16 galleries, R@10, %', 100, 1),
    'retrieval/v2a/r10': ('picture to sound among 256, mean of 16 galleries, R@10, %', 100, 1),
    'probe/audio/top1': ('linear probe, 16 classes, sound, %', 100, 1),
    'probe/video/top1': ('linear probe, 16 classes, picture, %', 100, 1),
    'probe/fused/top1': ('linear probe, 16 classes, fused, %', 100, 1),
    'finetune/top1': ('sound fine-tuned on 512 labels, 16 classes, %', 100, 1),
    'reconstruction/audio/low': ('reconstruction error, sound, low', 1, 3),
    'reconstruction/audio/high': ('reconstruction error, sound, high', 1, 3),
    'reconstruction/video/low': ('reconstruction error, picture, low', 1, 3),
    'reconstruction/video/high': ('reconstruction error, picture, high', 1, 3),
}
_SOUNDS = {
    'frozen/top1': ('frozen, linear probe, %', 100, 1),
    'finetune/top1': ('fine-tuned, %', 100, 1),
}
_FOLDS = ('fold1', 'fold2', 'fold3', 'fold4')
_FINETUNED_AS = {'esc10': 'esc10', 'spoken_digit': 'digits_10'}  # in experiments.downstream
# With few labels a fine-tuning's own seed moves its score by points; ESC-10 has the mean of four folds.
_FINETUNINGS = {'generated': 3, 'esc10': 1, 'spoken_digit': 3}


def main() -> None:
    """Trains the missing cells; prints the tables, and writes them and their numbers below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--dataset', choices=('generated', 'esc10', 'spoken_digit'), default='generated')
    parser.add_argument('--data', type=pathlib.Path, help='the folder of the prepared sets')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--samples', type=int, default=11_500, help="clips that MAViL's pretraining sees")
    parser.add_argument('--equal', choices=('clips', 'macs'), default='clips')
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(STAGE_1))
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/quality'))
    options = parser.parse_args()
    if options.dataset != 'generated' and options.data is None:
        parser.error(f'--dataset={options.dataset} needs --data, the folder of the prepared sets')
    keep_freed_memory()  # as main.py does
    use_compilation_cache('~/.cache/diffmavil_jax')
    numbers: dict[str, list[Numbers]] = {method: [] for method in options.methods}
    for seed in range(options.seeds):
        for method in options.methods:
            numbers[method].append(_measure(options, method, seed))
            print(f'seed {seed}, {method}: done', flush=True)
    text = tables(numbers, _GENERATED if options.dataset == 'generated' else _SOUNDS)
    print(text)
    stem = options.out / f'{options.dataset}_equal_{options.equal}_{options.samples}'
    stem.with_suffix('.md').write_text(text + '\n')
    stem.with_suffix('.json').write_text(json.dumps(numbers, indent=2) + '\n')


def tables(numbers: dict[str, list[Numbers]], shown: dict[str, tuple[str, float, int]]) -> str:
    """Means with 95 % intervals over seeds, and paired differences to the first method.

    A number that a method lacks, such as the reconstruction errors of stage 2, is NaN.
    """
    methods = list(numbers)

    def values(method: str, name: str) -> np.ndarray:
        return np.array([seed.get(name, np.nan) for seed in numbers[method]])

    kind = spell_kind(max(map(len, numbers.values())))
    lines = [[f'mean ± half of its {kind}', *methods], ['---'] * (1 + len(methods))]
    for name, (title, factor, digits) in shown.items():
        lines.append([title, *(spell_mean(factor * values(m, name), digits) for m in methods)])
    base = values(methods[0], 'macs')
    saved = [f'{100 * (1 - values(m, "macs") / base).mean():.1f} %' for m in methods]
    lines.append([f'multiply-accumulates saved against {methods[0]}', *saved])
    lines.append(['clips', *(f'{values(m, "clips").mean():,.0f}' for m in methods)])
    first, others = methods[0], methods[1:]
    differences = [[f'difference to {first}, paired, and its {kind}', *others], ['---'] * len(methods)]
    for name, (title, factor, digits) in shown.items():
        paired = [factor * (values(m, name) - values(first, name)) for m in others]
        differences.append([title, *(spell_difference(p, digits) for p in paired)])
    return '\n\n'.join(
        '\n'.join(f'| {" | ".join(line)} |' for line in part)
        for part in (lines, differences)
        if len(part[0]) > 1
    )


def _measure(options: argparse.Namespace, method: str, seed: int) -> Numbers:
    """All numbers of one method and seed."""
    if method in TEACHERS:
        _measure(options, TEACHERS[method], seed)
    folder = _folder(options, method, seed)
    numbers = cells.pretrain(_pretraining(options, method, seed), folder)
    run = str(folder.absolute())
    tuned = [
        cells.finetune(
            _finetuning(options, run, seed + 1_000 * again), folder / f'finetuned_{options.dataset}_{again}'
        )
        for again in range(_FINETUNINGS[options.dataset])
    ]
    numbers |= {f'finetune/{name}': value for name, value in cells.mean(tuned).items()}
    if options.dataset != 'generated':
        numbers['frozen/top1'] = _probe(options, run)
    return numbers


def _folder(options: argparse.Namespace, method: str, seed: int) -> pathlib.Path:
    world = 'generated' if options.dataset == 'generated' else 'sounds'
    return options.out / world / f'equal_{options.equal}_{options.samples}' / f'{method}_{seed}'


def _pretraining(options: argparse.Namespace, method: str, seed: int) -> Config:
    config = _of_method(options, method, seed)
    if options.equal == 'clips':
        return cells.with_samples(config, options.samples)
    baseline = make_plan(cells.with_samples(_of_method(options, 'MAViL', seed), options.samples))
    plan = make_plan(cells.with_samples(config, options.samples))
    longer = baseline.macs / (plan.macs / plan.total_samples)
    return cells.with_samples(config, round(longer))


def _of_method(options: argparse.Namespace, method: str, seed: int) -> Config:
    module, changes = METHODS[method]
    values = importlib.import_module(f'configs.{module}').get_config('demo_plain')
    values.seed = seed
    # The interval should be the seeds', not the clips': all 4,096 held-out clips, 256 at a time.
    values.evaluation.probe_eval_clips = 2_048
    values.evaluation.retrieval_galleries = 16
    values.update_from_flattened_dict(changes)
    if method in TEACHERS:
        values.teacher = str(_folder(options, TEACHERS[method], seed).absolute())
    if options.dataset != 'generated':
        sets = ('av_pieces', 'esc10_pieces', 'spoken_digit')
        path = ','.join(['generated', *(str((options.data / name).absolute()) for name in sets)])
        values.data.update(source='tfds', path=path, weights='2,1,3,2', missing_modality='mask')
        values.audio.front_end = 'cavmae'
    return from_dict(values.to_dict())


def _finetuning(options: argparse.Namespace, run: str, seed: int) -> Config:
    """The recipe of `experiments.downstream`, or, on the generated world, one like it."""
    if options.dataset == 'generated':
        values = finetune_configs.get_config('folder')
        values.data.update(source='generated', train_clips=512, eval_clips=1_024)
        values.finetune.update(modality='audio', time_mask=0.0, frequency_mask=0.0, validation_fraction=0.0)
        # Chosen for both methods on other clips; a quarter as long, they are 13 and 16 points worse.
        values.train.samples, values.optimizer.warmup_samples = 16_000, 1_600
        values.optimizer.learning_rate = 2e-3
        values.update(seed=seed, init=run)
        return from_dict(inherit(values.to_dict(), ()))
    comparison = COMPARISONS[_FINETUNED_AS[options.dataset]]
    values = finetune_configs.get_config(comparison.variant)
    values.update_from_flattened_dict(comparison.fields)
    values.data.path = str((options.data / options.dataset).absolute())
    values.update(seed=seed, init=run)
    return from_dict(inherit(values.to_dict(), ()))


def _probe(options: argparse.Namespace, run: str) -> float:
    """Test accuracy of a closed-form probe on frozen features of sound, the mean over the folds of ESC-10."""
    values = finetune_configs.get_config(options.dataset).to_dict() | {'init': run}
    config = cells.on_this_machine(from_dict(inherit(values, ())))
    dataset = open_prepared(str(options.data / options.dataset))
    spec = ClipSpec.of(config.data)
    model, params = PretrainingModel(config), open_network(run).params
    features = jax.jit(
        lambda batch: model.apply({'params': params}, to_patches(batch, config), method='features')
    )

    def split(name: str) -> tuple[np.ndarray, np.ndarray]:
        length = sum(file.take for file in dataset.files([name]))
        source = Completed(PreparedSource(dataset, [name], spec, Ledger(dataset.path, length, 0.1)), spec)
        rows = extract({'only': features}, source, range(length), batch_size=32, threads=2)['only']['audio']
        return rows, np.array([int(source.labels(i)[0]) for i in range(length)])

    if options.dataset == 'spoken_digit':
        return linear_probe(*split('train'), *split('test'))
    parts = {name: split(name) for name in _FOLDS}
    scores = []
    for held_out in _FOLDS:
        train = [parts[name] for name in _FOLDS if name != held_out]
        rows, labels = (np.concatenate(kind) for kind in zip(*train, strict=True))
        scores.append(linear_probe(rows, labels, *parts[held_out]))
    return float(np.mean(scores))


if __name__ == '__main__':
    main()
