"""Classification as a task: its splits and labels, and which parameters are pretrained."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import labels, wrappers
from diffmavil_jax.data.clip import ClipSource, DataError, Sources, require_modalities
from diffmavil_jax.evaluation.classification import ClassifierSuite
from diffmavil_jax.evaluation.held_out import extract, spread
from diffmavil_jax.evaluation.probes import moments
from diffmavil_jax.models.classifier import MOMENTS, NEW
from diffmavil_jax.objectives.classification import ClassificationObjective
from diffmavil_jax.parallel import agreement
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.saved.inherit import other_front_end
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import missing_parts
from diffmavil_jax.saved.start import check_start, load_for, new_parts, start_from
from diffmavil_jax.tasks.pretraining import clip_shapes
from diffmavil_jax.tasks.reports import classification as report
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training.optimizer import Scales, layer_decay, make_optimizer
from diffmavil_jax.training.state import TrainState

_MOMENT_CLIPS = 2_048  # at most; the moments of a probe's features are measured on them


def classification_task(config: Config, plan: Plan, sources: Sources, workdir: pathlib.Path) -> Task:
    """Trains on labels, from config.init if it is given; measures validation clips, then test clips.

    Raises:
        ConfigError: the run can't start from config.init.
        DataError: the clips lack a modality or labels.
    """
    finetune = config.finetune
    check_start(config, finetune.modalities)
    new = _new_parts(config)
    require_modalities([sources.train, sources.held_out], finetune.modalities, 'Classification')
    train, validation, test = split(config, sources)
    objective = ClassificationObjective(
        config, len(train.label_names), multi_label=train.multi_label, time_steps=_time_steps(config)
    )
    predict = jax.jit(objective.probabilities)
    options = _reading(config)
    suites = {
        name: ClassifierSuite(predict, source, **options)
        for name, source in (('validation', validation), ('test', test))
        if source is not None
    }

    def start(state: TrainState) -> TrainState:
        if config.loaded:
            with agreement.together('parameters', ConfigError):
                loaded = load_for(config, finetune.modalities)
            state = start_from(state, loaded, new=(*NEW, MOMENTS, *new), run=config.loaded)
        return _standardized(state, objective, train, options) if MOMENTS in state.params else state

    def finish(state: TrainState, initial: Callable[[], Any], facts: Facts) -> pathlib.Path:
        del initial
        return report.write(config, plan, suites, sources, state.evaluated, workdir, facts)

    target = {'target': ((len(train.label_names),), jnp.float32)}
    return Task(
        objective=objective,
        optimizer=make_optimizer(config.optimizer, _learning_rates(config)),
        source=_drawn_from(config, train),
        batch=clip_shapes(config, finetune.modalities) | target,
        evaluate=suites['validation'] if validation is not None else lambda params: {},
        best_metric='eval/map' if train.multi_label else 'eval/top1',
        start=start,
        finish=finish,
        keep_ema=finetune.ema_decay > 0,
        select_best=finetune.select == 'best',
        notes=(
            *filter(
                None,
                (
                    sources.coverage,
                    *sources.notes,
                    new_parts(config, new),
                    other_front_end(config),
                    _seen_before(config),
                ),
            ),
            describe(config, train, validation, test),
        ),
    )


def split(config: Config, sources: Sources) -> tuple[ClipSource, ClipSource | None, ClipSource]:
    """Training, validation and test clips with their targets; validation clips are held out of training.

    Raises:
        DataError: a class has too few clips, or the test clips have a class that training does not.
    """
    finetune = config.finetune
    sets = labels.label_sets(sources.train)
    labels.check_labels(sources.train, sets, least=2 if finetune.validation_fraction else 1)
    if sources.held_out.label_names != sources.train.label_names:
        raise DataError(
            f'The held-out clips have other classes than the training clips: {sources.held_out.label_names} '
            f'and {sources.train.label_names}.'
        )
    kept, held_out = labels.split_by_class(sets, finetune.validation_fraction, config.seed)
    if finetune.clips_per_class:
        few = labels.few_of_each_class([sets[i] for i in kept], finetune.clips_per_class, config.seed)
        kept = [kept[i] for i in few]

    def chosen(source: ClipSource) -> ClipSource:
        return wrappers.Targets(source, finetune.modalities)

    validation = chosen(wrappers.Subset(sources.train, held_out)) if held_out else None
    return chosen(wrappers.Subset(sources.train, kept)), validation, chosen(sources.held_out)


def describe(config: Config, train: ClipSource, validation: ClipSource | None, test: ClipSource) -> str:
    """A sentence that says what is trained on and measured."""
    counts = [f'{len(train):,} training']
    if validation is not None:
        counts.append(f'{len(validation):,} validation')
    counts.append(f'{len(test):,} test clips')
    origin = f'from {config.loaded}' if config.loaded else 'from scratch'
    crop = f'one crop of {config.data.seconds:g} s'
    if 'video' in config.finetune.modalities:
        crop += f' with {config.data.pictures}'
    clips = ' and '.join([', '.join(counts[:-1]), counts[-1]])
    return f'{clips} of {len(train.label_names)} classes, {origin}; {crop} of each.'


def _reading(config: Config) -> dict[str, int]:
    """How clips are read when they are measured."""
    return {'batch_size': config.evaluation.batch_size, 'threads': config.data.threads}


def _learning_rates(config: Config) -> Scales:
    """A factor of the learning rate for each parameter: by layer, and 0 under a probe."""
    finetune, model = config.finetune, config.model
    return layer_decay(
        finetune.layer_decay if config.loaded else 1.0,
        model.vit.depth,
        model.fusion_layers if finetune.modality == 'both' else 0,
        NEW,
        frozen=finetune.probe != 'none',
    )


def _standardized(
    state: TrainState, objective: ClassificationObjective, train: ClipSource, options: Mapping[str, int]
) -> TrainState:
    """The state with the mean and deviation of the features of some training clips."""
    features = jax.jit(objective.features)
    functions = {'probe': lambda batch: {'features': features(state.params, batch)}}
    rows = extract(functions, train, spread(len(train), _MOMENT_CLIPS), **options)['probe']['features']
    measured = dict(zip(('mean', 'deviation'), moments(rows), strict=True))

    def placed(params: Any) -> Any:
        old = params[MOMENTS]
        new = {name: jax.device_put(measured[name].astype(x.dtype), x.sharding) for name, x in old.items()}
        return {**params, MOMENTS: new}

    ema = None if state.ema is None else placed(state.ema)
    return dataclasses.replace(state, params=placed(state.params), ema=ema)


def _seen_before(config: Config) -> str:
    """A warning if config.init was itself trained on labels, else nothing."""
    if not config.loaded or open_network(config.loaded).stored.objective != 'classification':
        return ''
    return (
        f'{config.loaded} was itself trained on labels: clips that it trained on may be among the test clips '
        'here, whose scores then say little.'
    )


def _drawn_from(config: Config, train: ClipSource) -> ClipSource:
    return wrappers.Balanced(train, labels.label_sets(train)) if config.finetune.class_balanced else train


def _new_parts(config: Config) -> tuple[str, ...]:
    """The parts that config.init lacks: the fusion, if both modalities are classified.

    Raises:
        ConfigError: config.init lacks an encoder.
    """
    missing = missing_parts(config.loaded)
    for modality in config.finetune.modalities:
        if f'encoder_{modality}' in missing:
            raise ConfigError(
                f'config.finetune.modality = {config.finetune.modality!r}: must be one that '
                f'{config.init!r} has an encoder for; it has none for {modality}.'
            )
    return ('fusion',) if config.finetune.modality == 'both' and 'fusion' in missing else ()


def _time_steps(config: Config) -> dict[str, float]:
    """The distance of neighbouring positions in time, by modality, in units of the pretrained network's."""
    steps = {'audio': 1.0, 'video': 1.0}
    if not config.init or config.finetune.positions == 'extend':
        return steps
    run = open_network(config.init).stored
    return {
        'audio': run.audio.num_frames / config.audio.num_frames,
        'video': run.data.frames / config.data.frames,
    }
