"""Chooses the splits of prepared datasets to train on and to hold out, and mixes several datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from diffmavil_jax.config.clips import MODALITIES, DataConfig
from diffmavil_jax.data.clip import ClipSpec, DataError, Sources
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.mixture import Mixture
from diffmavil_jax.data.prepared.dataset import PreparedDataset, open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource
from diffmavil_jax.data.wrappers import Completed

GENERATED = 'generated'  # stands for the generated world where a path is expected
_EVAL_SPLITS = ('validation', 'test', 'eval')


def open_splits(
    data: DataConfig, spec: ClipSpec, generated: Sources, modalities: Sequence[str] = MODALITIES
) -> Sources:
    """Opens the splits of the prepared datasets that a config names.

    Args:
        data: the config's section.
        spec: what a clip is.
        generated: the generated world, which the path `generated` stands for.
        modalities: what is read of a clip.

    Raises:
        DataError: a dataset or a split does not exist, or does not fit the spec.
    """
    paths = data.datasets
    datasets = _named_apart([open_prepared(path) for path in paths if path != GENERATED])
    notes = [remark for dataset in datasets for remark in dataset.remarks(spec, modalities)]
    wanted_train, wanted_eval = data.train_split, data.eval_split
    train_splits = _splits('train_split', wanted_train, datasets)
    if wanted_eval:
        eval_splits = _splits('eval_split', wanted_eval, datasets)
    else:
        eval_splits = [_default_eval(dataset, wanted_train) for dataset in datasets]
    opened: list[Sources] = []
    for dataset, for_train, for_eval in zip(datasets, train_splits, eval_splits, strict=True):
        _check_apart(dataset, for_train, for_eval)
        clips = sum(file.take for file in dataset.files([*for_train, *for_eval]))
        ledger = Ledger(dataset.path, clips, data.max_bad_fraction)
        opened.append(
            Sources(
                PreparedSource(dataset, for_train, spec, ledger, modalities),
                PreparedSource(dataset, for_eval, spec, ledger, modalities),
            )
        )
    prepared = iter(opened)
    parts = [generated if path == GENERATED else next(prepared) for path in paths]
    train = [part.train for part in parts]
    held_out = [part.held_out for part in parts]
    if data.missing_modality == 'mask':
        train = [Completed(source, spec) for source in train]
        # Nothing may be measured on blank sound or pictures.
        held_out = [source for source in held_out if set(MODALITIES) <= set(source.modalities)]
        if not held_out:
            raise DataError(
                f'config.data.path = {data.folder!r}: must have a dataset with sound and pictures to '
                'evaluate on.'
            )
    coverage = _coverage(datasets, eval_splits)
    if len(parts) == 1:
        return Sources(train[0], held_out[0], tuple(notes), coverage)
    mixed = Mixture(held_out) if len(held_out) > 1 else held_out[0]
    return Sources(Mixture(train, data.weights), mixed, tuple(notes), coverage)


def _named_apart(datasets: Sequence[PreparedDataset]) -> list[PreparedDataset]:
    """The same datasets, in which those that have the same name are named by their paths."""
    names = [dataset.name for dataset in datasets]
    return [
        dataclasses.replace(dataset, name=dataset.path) if names.count(dataset.name) > 1 else dataset
        for dataset in datasets
    ]


def _splits(field: str, wanted: Sequence[str], datasets: Sequence[PreparedDataset]) -> list[tuple[str, ...]]:
    """Of the splits that are wanted, those that each dataset has.

    Raises:
        DataError: a dataset has none of them, or no dataset has one of them.
    """
    chosen = [tuple(split for split in wanted if dataset.has_split(split)) for dataset in datasets]
    known = '; '.join(f'{dataset.path} has {dataset.describe_splits()}' for dataset in datasets)
    field = f'config.data.{field} = {",".join(wanted)!r}'
    for dataset, splits in zip(datasets, chosen, strict=True):
        if not splits:
            raise DataError(f'{field}: {dataset.path} has none of these splits. {known}.')
    vain = [split for split in wanted if not any(dataset.has_split(split) for dataset in datasets)]
    if vain:
        raise DataError(f'{field}: no dataset has the split {vain[0]!r}. {known}.')
    return chosen


def _default_eval(dataset: PreparedDataset, trained_on: Sequence[str]) -> tuple[str, ...]:
    """The first split with a usual name that is not trained on."""
    for split in _EVAL_SPLITS:
        if dataset.has_split(split) and split not in trained_on:
            return (split,)
    raise DataError(
        f"config.data.eval_split = '': {dataset.path} has none of {', '.join(_EVAL_SPLITS)} besides what "
        f'is trained on; it has {dataset.describe_splits()}. Name one, or take two parts of one: '
        "config.data.train_split = 'train[:90%]', config.data.eval_split = 'train[90%:]'."
    )


def _check_apart(dataset: PreparedDataset, train: Sequence[str], held_out: Sequence[str]) -> None:
    """Checks that no clip is both trained on and held out.

    Raises:
        DataError: a clip is.
    """
    trained_on = [(file.filename, file.skip, file.skip + file.take) for file in dataset.files(train)]
    for file in dataset.files(held_out):
        for name, begin, end in trained_on:
            if name == file.filename and begin < file.skip + file.take and file.skip < end:
                raise DataError(
                    f'config.data.train_split = {",".join(train)!r} and eval_split = {",".join(held_out)!r} '
                    f'share clips of {dataset.path}.'
                )


def _coverage(datasets: Sequence[PreparedDataset], splits: Sequence[Sequence[str]]) -> str:
    """How many of the evaluation clips that a benchmark lists are present, for each dataset that knows it."""
    counts = [dataset.coverage(names) for dataset, names in zip(datasets, splits, strict=True)]
    texts = [
        f'{count[0]:,} of {count[1]:,} evaluation clips present'
        + (f' in {dataset.name}' if len(datasets) > 1 else '')
        for dataset, count in zip(datasets, counts, strict=True)
        if count is not None
    ]
    return '; '.join(texts)
