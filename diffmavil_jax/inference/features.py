"""What embedding gives: features of windows, and the files that store them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Bool, Float

from diffmavil_jax.atomic import replacing
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import Refusal
from diffmavil_jax.storage.paths import local_path

SUFFIXES = ('.npz', '.parquet')
FEATURES = ('audio', 'video', 'fused')
_NOT_FINITE = 'its features are not finite: the parameters of the network may be too large'


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Features of n windows, in the order of the files: pooled [n d], or of tokens [n t d].

    A kind of feature that no window has is None. Where some windows lack it, their rows are zero, and
    `has` says which they are.

    Attributes:
        ids: `PATH@START`, or the number of the row for clips in arrays.
        start_s: where each window begins in its file, in seconds.
        end_s: where each window ends, in seconds.
        audio: features of sound, before fusion.
        video: features of pictures, before fusion.
        fused: features after fusion, of windows that have both.
        has_audio: whether each window has sound.
        has_video: whether each window has pictures.
        refused: files that could not be used, and why.
    """

    ids: list[str]
    start_s: Float[np.ndarray, ' n']
    end_s: Float[np.ndarray, ' n']
    audio: Float[np.ndarray, 'n ...'] | None
    video: Float[np.ndarray, 'n ...'] | None
    fused: Float[np.ndarray, 'n ...'] | None
    has_audio: Bool[np.ndarray, ' n']
    has_video: Bool[np.ndarray, ' n']
    refused: list[Refusal]

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, kind: str) -> Bool[np.ndarray, ' n']:
        """Which rows have a kind of feature; `fused` needs both sound and pictures."""
        masks = {'audio': self.has_audio, 'video': self.has_video, 'fused': self.has_audio & self.has_video}
        return masks[kind]

    def only_finite(self) -> Embeddings:
        """The rows whose features are all finite; the others are among the refused, by their ids."""
        finite = np.ones(len(self), bool)
        arrays = {kind: array for kind in FEATURES if (array := getattr(self, kind)) is not None}
        for array in arrays.values():
            finite &= np.isfinite(array).reshape(len(self), -1).all(axis=1)
        if finite.all():
            return self
        bad = [Refusal(self.ids[i], _NOT_FINITE) for i in np.flatnonzero(~finite)]
        there = {kind: self.has(kind)[finite].any() for kind in FEATURES}
        kept = {kind: arrays[kind][finite] if kind in arrays and there[kind] else None for kind in FEATURES}
        return Embeddings(
            [self.ids[i] for i in np.flatnonzero(finite)],
            self.start_s[finite],
            self.end_s[finite],
            audio=kept['audio'],
            video=kept['video'],
            fused=kept['fused'],
            has_audio=self.has_audio[finite],
            has_video=self.has_video[finite],
            refused=[*self.refused, *bad],
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Writes a file in one step, and replaces one of the same name unless `overwrite` is false.

        An `.npz` file has `ids`, `start_s`, `end_s`, `has_audio`, `has_video` and the kinds of features
        that are not None, zero where a row lacks one. A `.parquet` file has the same columns, null there.

        Raises:
            ConfigError: the suffix is another one, or the file can't be written, or may not be replaced.
        """
        target = check_output(path)
        columns: dict[str, Any] = {
            'ids': np.array(self.ids, np.str_),
            'start_s': self.start_s,
            'end_s': self.end_s,
            'has_audio': self.has_audio,
            'has_video': self.has_video,
        }
        arrays = {kind: array for kind in FEATURES if (array := getattr(self, kind)) is not None}
        try:
            with replacing(target, overwrite=overwrite) as draft:
                if target.suffix == '.npz':
                    with draft.open('wb') as file:
                        np.savez(file, **columns, **arrays)
                else:
                    lists = {kind: _lists(array, self.has(kind)) for kind, array in arrays.items()}
                    pyarrow.parquet.write_table(pa.table({**columns, **lists}), draft)
        except OSError as error:
            raise ConfigError(f'--output={path}: must be a file that can be written ({error}).') from None


def check_output(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of an output, checked before anything is computed.

    Raises:
        ConfigError: it has another suffix, or its folder does not exist.
    """
    target = local_path(path, f'--output={path}')
    if target.suffix not in SUFFIXES:
        raise ConfigError(f'--output={path}: must end in {" or ".join(SUFFIXES)}.')
    if not target.parent.is_dir():
        raise ConfigError(
            f'--output={path}: must be in a folder that exists; {target.parent} is not a folder.'
        )
    return target


def _lists(array: Float[np.ndarray, 'n ...'], there: Bool[np.ndarray, ' n']) -> pa.Array:
    """Rows as lists of numbers, or of tokens that are lists of numbers; null for rows not in `there`."""
    values = pa.array(array[there].reshape(-1))
    for size in array.shape[:1:-1]:
        values = pa.LargeListArray.from_arrays(np.arange(0, len(values) + 1, size), values)
    # Lists of a fixed size would be simpler, but pyarrow can't read them back if there are nulls among them.
    ends = np.cumsum(there) * array.shape[1]
    return pa.LargeListArray.from_arrays(np.append(0, ends), values, mask=pa.array(~there))
