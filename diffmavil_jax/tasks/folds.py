"""The configs of a cross-validation, one for each fold."""

from __future__ import annotations

import dataclasses

from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError


def folds(config: Config) -> list[tuple[str, Config]]:
    """The name and the config of each run of a cross-validation: each fold is tested once.

    Raises:
        ConfigError: the clips are not of prepared datasets, or a dataset lacks a fold.
    """
    names = config.finetune.folds
    if config.data.source != 'tfds':
        raise ConfigError(
            f'config.finetune.folds = {",".join(names)!r}: must be empty with data.source='
            f'{config.data.source}; only prepared datasets have splits by name.'
        )
    from diffmavil_jax.data.prepared.dataset import open_prepared  # importing TFDS takes a second

    for path in config.data.datasets:
        dataset = open_prepared(path)
        absent = [name for name in names if not dataset.has_split(name)]
        if absent:
            raise ConfigError(
                f'config.finetune.folds = {",".join(names)!r}: must be splits of {path}, which has '
                f'{dataset.describe_splits()}, and no {", ".join(absent)}.'
            )
    return [
        (
            name,
            dataclasses.replace(
                config,
                name=f'{config.name}_{name}',
                data=dataclasses.replace(
                    config.data,
                    train_split=tuple(other for other in names if other != name),
                    eval_split=(name,),
                ),
                finetune=dataclasses.replace(config.finetune, folds=()),
            ),
        )
        for name in names
    ]
