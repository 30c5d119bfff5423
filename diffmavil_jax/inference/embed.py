"""How a pretrained network turns media files, or clips in arrays, into features."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import ARRAYS, ClipSpec, DataError, Refusal
from diffmavil_jax.data.windows import CHOICES, FileEnd, Reader, Window, chosen
from diffmavil_jax.inference.batching import Batcher
from diffmavil_jax.inference.features import Embeddings
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.saved.demo import DEMO, DEMO_FOLDER
from diffmavil_jax.saved.network import open_network

POOLS = ('mean', 'tokens')

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far `Model.embed` has come, in counts."""

    files: int
    total_files: int
    windows: int
    refused: int


def load(path: Path) -> Model:
    """Loads the network of a pretraining run, an import or an export, or the small one in this package.

    Args:
        path: its directory; `demo`, unless there is such a directory, is the package's.

    Raises:
        ConfigError: the directory has no network that can be loaded, or that of a classifier.
    """
    network = open_network(DEMO_FOLDER if os.fspath(path) == DEMO and not os.path.exists(DEMO) else path)
    if network.config.objective == 'classification':
        raise ConfigError(
            f'{os.fspath(path)} is a classifier: features are those of a pretraining run, an import or an '
            f'export, such as the one it began with ({network.config.init or "none"}).'
        )
    return Model(network.config, network.params)


class Model:
    """A pretrained network that gives features of sound and pictures; `load` makes it.

    Attributes:
        config: of the network.
        modalities: those that it has encoders for.
    """

    def __init__(self, config: Config, params: Mapping[str, Any]) -> None:
        self.config = config
        self.modalities = tuple(m for m in MODALITIES if f'encoder_{m}' in params)
        self._fuses = len(self.modalities) == len(MODALITIES) and 'fusion' in params
        parts = [part for m in self.modalities for part in (f'encoder_{m}', f'{m}_pool_norm')]
        parts += ['fusion', 'fusion_norm'] if self._fuses else []
        # An import may lack a norm that our networks have: then it only normalises.
        width = config.model.vit.width
        plain_norm = {'scale': np.ones(width, np.float32), 'bias': np.zeros(width, np.float32)}
        self._params = jax.device_put({part: params.get(part, plain_norm) for part in parts})
        self._features = jax.jit(self._apply, static_argnames='pool')

    @property
    def clip(self) -> ClipSpec:
        """The sizes of the clips that the network takes."""
        return ClipSpec.of(self.config.data)

    def features(self, batch: Mapping[str, Any], pool: str = 'mean') -> dict[str, jax.Array]:
        """Features of a batch of clips, on the device; compiled for each batch size.

        Args:
            batch: see `to_patches`.
            pool: `mean` or `tokens`.

        Returns:
            Features by modality of the batch, and `fused` if it has both and the network fuses them. With
            `mean`, they are [b d], and `fused` is [b 2d]; with `tokens`, [b n d].
        """
        return self._features(self._params, dict(batch), pool=pool)

    def embed(
        self,
        inputs: Path | Iterable[Path] | Mapping[str, np.ndarray],
        modality: str = 'auto',
        pool: str = 'mean',
        *,
        batch_size: int = 32,
        workers: int | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Embeddings:
        """Features of media files, or of clips.

        Files are cut into consecutive windows of the length that the network was trained with. The
        front end pads the sound of the last window, and its last picture is repeated. Features are not
        normalised: for cosine similarities, divide each row by its L2 norm.

        Args:
            inputs: files; or clips as arrays, `waveform` int16 [n samples] and `frames`
                uint8 [n t h w 3] or one of them, of the sizes that `clip` has.
            modality: `auto` takes what each file has, where silence does not count as sound; `audio`,
                `video` and `both` refuse files that lack it.
            pool: `mean` gives [n d] (`fused`: [n 2d]), `tokens` all tokens [n t d].
            batch_size: the most clips that are computed at a time.
            workers: processes that decode; by default one for each core.
            progress: called after each file.

        Raises:
            ConfigError: an argument is wrong, or the network lacks a modality.
            DataError: an array has the wrong shape or type.
        """
        self._check(modality, pool, batch_size)
        total = 0
        items: Generator[Window | Refusal | FileEnd]
        if isinstance(inputs, Mapping):
            items = self._windows_of(inputs, modality)
        else:
            several = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
            paths = [os.fspath(path) for path in several]
            total = len(paths)
            offered = self.modalities if modality == 'auto' else MODALITIES
            reader = Reader(self.clip, offered, modality, workers or os.cpu_count() or 1)
            items = reader.windows(paths, ahead=3 * batch_size)
        batcher = Batcher(lambda batch: self.features(batch, pool), batch_size)
        refused: list[Refusal] = []
        files = 0
        with contextlib.closing(items), contextlib.closing(batcher):
            for item in items:
                match item:
                    case Window():
                        batcher.add(item)
                    case Refusal():
                        refused.append(item)
                    case FileEnd():
                        files += 1
                        progress(Progress(files, total, len(batcher), len(refused)))
            return batcher.finish(refused)

    def _apply(self, params: Any, batch: Mapping[str, jax.Array], *, pool: str) -> dict[str, jax.Array]:
        patches = to_patches(batch, self.config)
        together = [patches] if self._fuses else [{m: x} for m, x in patches.items()]
        method = {'mean': 'features', 'tokens': 'feature_tokens'}[pool]
        features: dict[str, jax.Array] = {}
        for part in together:
            features |= PretrainingModel(self.config).apply({'params': params}, part, method=method)
        return features

    def _check(self, modality: str, pool: str, batch_size: int) -> None:
        if modality not in CHOICES:
            raise ConfigError(f'modality = {modality!r}: must be one of {", ".join(CHOICES)}.')
        if pool not in POOLS:
            raise ConfigError(f'pool = {pool!r}: must be one of {", ".join(POOLS)}.')
        if batch_size < 1:
            raise ConfigError(f'batch_size = {batch_size}: must be at least 1.')
        wanted = chosen(modality, offered=())
        lacking = [m for m in wanted if m not in self.modalities]
        if lacking:
            raise ConfigError(
                f'modality = {modality!r}: must be auto or {" or ".join(self.modalities)}; this network has '
                f'no encoder for {" and ".join(lacking)}.'
            )

    def _windows_of(self, arrays: Mapping[str, np.ndarray], modality: str) -> Generator[Window]:
        """Clips in arrays as windows, whose ids are the numbers of their rows."""
        clip = self.clip
        shapes = clip.shapes
        wanted = chosen(modality, self.modalities)
        names = [ARRAYS[m] for m in wanted if modality != 'auto' or ARRAYS[m] in arrays]
        for name in names:
            shape, dtype = shapes[name]
            if name not in arrays or arrays[name].dtype != dtype or arrays[name].shape[1:] != shape:
                there = arrays.get(name)
                found = 'none' if there is None else f'{there.dtype} {list(there.shape)}'
                sizes = ', '.join(str(size) for size in shape)
                raise DataError(
                    f'{name}: must be {dtype.name} [n, {sizes}], as the network was trained with; '
                    f'there is {found}.'
                )
        counts = {len(arrays[name]) for name in names}
        if len(counts) != 1:
            raise DataError(f'arrays: must be {" or ".join(shapes)}, or both of one length.')
        for i in range(counts.pop()):
            row = {name: arrays[name][i] for name in names}
            samples = clip.num_samples if 'waveform' in row else 0
            yield Window(str(i), 0.0, clip.seconds, samples=samples, **row)
