"""Opens the training and held-out clips that a config names."""

from __future__ import annotations

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import ClipSpec, Sources
from diffmavil_jax.data.folder import open_folder
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.world import GeneratedWorld

# Held-out clips of the generated world have another seed.
_EVAL_SEED_OFFSET = 1_000_003


def open_sources(config: Config) -> Sources:
    """Opens the generated world, a folder, or prepared datasets.

    Raises:
        ConfigError: config.data.path is empty.
        DataError: there are no clips, or too many of them are unusable.
    """
    data, classifies = config.data, config.objective == 'classification'
    modalities = config.finetune.modalities if classifies else MODALITIES
    spec = ClipSpec.of(data)
    train, held_out = (
        GeneratedWorld(spec, seed=seed, length=length, difficulty=data.difficulty)
        for seed, length in (
            (config.seed, data.train_clips),
            (config.seed + _EVAL_SEED_OFFSET, data.eval_clips),
        )
    )
    generated = Sources(train, held_out)
    if data.source == 'generated':
        return generated
    if not data.datasets:
        what = {
            'folder': 'a folder of media files (--config.data.path=DIR)',
            'tfds': 'a prepared dataset (--config.data.path=DIR, or DIR,DIR for several)',
        }
        raise ConfigError(f'config.data.path = {data.folder!r}: must be {what[data.source]}.')
    if data.source == 'folder':
        folder = open_folder(
            data.folder,
            spec,
            eval_fraction=data.eval_fraction,
            max_bad_fraction=data.max_bad_fraction,
            cache_bytes=int(data.cache_gb * 2**30),
            decoders=DecodePool(data.threads),
            modalities=modalities,
            folder_labels=classifies,
        )
        return Sources(folder.train, folder.eval, folder.notes)
    # Imported here, because importing TFDS takes a second.
    from diffmavil_jax.data.prepared.splits import open_splits

    return open_splits(data, spec, generated, modalities)
