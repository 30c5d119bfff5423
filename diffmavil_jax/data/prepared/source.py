"""Clips from a prepared dataset; `prepared` says what is in one."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from jaxtyping import Float, Int16, Int64, UInt8
from PIL import Image

from diffmavil_jax.data.clip import NO_LABEL, Clip, ClipSpec, DataError, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.prepared.format import FEATURES, Metadata

# Pictures larger than asked for by up to this factor, 256 for 224, are cut; others are scaled.
_CROP_UP_TO = (8, 7)
_SEARCHED_LEVELS = 3
_FEATURES = FEATURES()


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
        path: the directory of its version.
        name: for messages and reports.
        metadata: what is true of all clips.
        splits: of TFDS, by name.
    """

    path: str
    name: str
    metadata: Metadata
    splits: Mapping[str, Any]

    def has_split(self, split: str) -> bool:
        """Whether there is such a split; `train[:90%]` is a part of `train`."""
        return split.partition('[')[0] in self.splits

    def files(self, splits: Sequence[str]) -> list[Any]:
        """The shards of some splits, or of parts of them, each with what to skip and to take.

        Raises:
            DataError: a split does not exist, or they are empty.
        """
        absent = [split for split in splits if not self.has_split(split)]
        try:
            files = [] if absent else [f for split in splits for f in self.splits[split].file_instructions]
        except ValueError as error:
            raise DataError(f'{"+".join(splits)} of {self.path}: {error}.') from error
        if not sum(file.take for file in files):
            what = f'no split {absent[0]!r}' if absent else f'no clip in {"+".join(splits) or "no split"}'
            raise DataError(f'{self.path} has {what}; its splits are {self.describe_splits()}.')
        return files

    def describe_splits(self) -> str:
        """Such as `train (1,600 clips), test (400 clips)`."""
        texts = (f'{name} ({split.num_examples:,} clips)' for name, split in self.splits.items())
        return ', '.join(texts) or 'none'

    def coverage(self, splits: Sequence[str]) -> tuple[int, int] | None:
        """How many clips there are, and how many the source lists; None where it is not known."""
        expected = [self.metadata.expected.get(split) for split in splits]
        if not splits or None in expected:
            return None
        return sum(file.take for file in self.files(splits)), sum(filter(None, expected))

    def remarks(self, spec: ClipSpec) -> list[str]:
        """What a reader of the results has to know of how the clips fit the spec.

        Raises:
            DataError: they don't.
        """
        has, remarks = self.metadata, []
        if has.sample_rate != spec.sample_rate:
            raise DataError(
                f'{self.name} has sound at {has.sample_rate} Hz: config.data.sample_rate = '
                f'{spec.sample_rate} must be the same.'
            )
        if 'audio' in has.modalities and has.seconds is not None and has.seconds < spec.seconds:
            remarks.append(
                f'{self.name}: clips of {has.seconds:g} s are padded with silence to {spec.seconds:g} s'
            )
        if 'video' in has.modalities:
            usable = self._frames_within(spec.seconds)
            if usable < spec.frames:
                span = has.seconds if has.frame_seconds is None else has.frame_seconds
                raise DataError(
                    f'{self.name} has {usable} pictures in the first {spec.seconds:g} s of a clip '
                    f'({has.frames} in {"the clip" if span is None else f"{span:g} s"}): '
                    f'config.data.frames = {spec.frames} must be at most that. '
                    'Lower it, raise config.data.seconds, or prepare again with more.'
                )
            if has.frame_size < spec.frame_size:
                remarks.append(
                    f'{self.name}: pictures of {has.frame_size} pixels are enlarged to {spec.frame_size}'
                )
        return remarks

    def frame_indices(self, spec: ClipSpec) -> list[int]:
        """Which of the stored pictures to take: evenly spread over what is heard."""
        step = self._frames_within(spec.seconds) / spec.frames
        return [math.floor((i + 0.5) * step) for i in range(spec.frames)]

    def _frames_within(self, seconds: float) -> int:
        """How many pictures are shown before the sound of `seconds` ends."""
        has = self.metadata
        span = has.seconds if has.frame_seconds is None else has.frame_seconds
        if span is None or span <= seconds:
            return has.frames
        return math.floor(has.frames * seconds / span + 1e-6)


def open_prepared(path: str | os.PathLike[str]) -> PreparedDataset:
    """Finds a prepared dataset and reads what it says of itself.

    Args:
        path: the directory of a version, or one above it that holds no other dataset.

    Raises:
        DataError: there is none, there are several, it is not complete, or not by `prepare`; or its
            storage can't be reached.
    """
    try:
        directory = _find(epath.Path(path))
    except (ImportError, OSError) as error:  # gs:// without gcsfs, for example
        raise DataError(f"{path} can't be reached (config.data.path): {error}.") from error
    try:
        info = tfds.builder_from_directory(directory).info
        metadata = Metadata.from_dict(info.metadata or {})
        lacking = sorted(FEATURES().keys() - info.features.keys())
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{directory} can't be read as a prepared dataset: {error}.") from error
    if lacking:
        raise DataError(
            f'{directory} is a TFDS dataset, but none that `diffmavil prepare` wrote: its examples '
            f'have no {", ".join(lacking)}.'
        )
    there = {file.name for file in directory.iterdir()}
    gone = [name for split in info.splits.values() for name in split.filenames if name not in there]
    if gone:
        raise DataError(
            f'{directory} is not complete: {len(gone)} of its shards are missing, the first is {gone[0]}.'
        )
    return PreparedDataset(os.fspath(directory), info.name, metadata, info.splits)


class PreparedSource:
    """Some splits of a prepared dataset (a ClipSource).

    A clip begins at the beginning of what is stored. A record that is broken, or lacks what
    its dataset promises, is refused, and the next usable one takes its place.
    """

    def __init__(
        self, dataset: PreparedDataset, splits: Sequence[str], spec: ClipSpec, ledger: Ledger
    ) -> None:
        """Raises a DataError where a split does not exist or is empty."""
        self.name = dataset.name
        self.modalities = dataset.metadata.modalities
        self.label_names = dataset.metadata.class_names
        self.multi_label = dataset.metadata.multi_label
        self._where = f'{dataset.name} {"+".join(splits)}'
        self._spec = spec
        self._frames = dataset.frame_indices(spec) if 'video' in self.modalities else []
        self._frame_size = dataset.metadata.frame_size
        self._records = ArrayRecordDataSource(dataset.files(splits))
        self._usable = Substitutes(self._where, len(self._records), ledger)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Clip:
        """Reads clip `index`. Its arrays may be read-only.

        Raises:
            DataError: more clips are unusable than config.data.max_bad_fraction allows.
        """
        _, (clip, _), passed = self._usable.find(index, self._read)
        if passed:
            clip['refused'] = passed
        return clip

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        """`Clip.label` is the only one, if it is."""
        return self._usable.find(index, self._read)[1][1]

    def refused(self) -> list[Refusal]:
        return self._usable.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._usable.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index`, where there is one for each; decodes the clip to know which it is."""
        return {} if self.multi_label or not self.label_names else {'label': self[index]['label']}

    def _read(self, i: int) -> tuple[Clip, Int64[np.ndarray, ' n']]:
        try:
            example = _FEATURES.deserialize_example_np(self._records[i])
            clip_id = example['id'].decode()
        except Exception as error:  # whatever the readers make of broken bytes
            raise UnusableError(Refusal(f'{self._where}[{i}]', f'unreadable record: {error}')) from error
        labels = example['labels']
        single = len(labels) == 1 and not self.multi_label
        clip = Clip(label=int(labels[0]) if single else NO_LABEL, id=clip_id)
        try:
            if 'audio' in self.modalities:
                clip['waveform'] = self._waveform(example['audio'])
            if 'video' in self.modalities:
                clip['frames'] = self._pictures(example['frames'])
        except ValueError as error:
            raise UnusableError(Refusal(clip_id, str(error))) from error
        return clip, labels

    def _waveform(self, audio: Int16[np.ndarray, ' n']) -> Int16[np.ndarray, ' samples']:
        if not len(audio):
            raise ValueError('no audio')
        missing = self._spec.num_samples - len(audio)
        return np.pad(audio, (0, missing)) if missing > 0 else audio[: self._spec.num_samples]

    def _pictures(self, jpegs: Sequence[bytes]) -> UInt8[np.ndarray, 't h w 3']:
        if not len(jpegs):
            raise ValueError('no video')
        if len(jpegs) <= self._frames[-1]:
            raise ValueError(f'wrong frame count: {len(jpegs)}, needs {self._frames[-1] + 1}')
        size = self._spec.frame_size
        pictures = np.empty((len(self._frames), size, size, 3), np.uint8)
        for i, frame in enumerate(self._frames):
            pictures[i] = picture(jpegs[frame], self._frame_size, size)
        return pictures


def picture(jpeg: bytes, stored: int, size: int) -> UInt8[np.ndarray, 'size size 3']:
    """Decodes a square JPEG of `stored` pixels: its centre, or all of it scaled.

    Raises:
        ValueError: it is broken, or of another size.
    """
    crop = size <= stored <= size * _CROP_UP_TO[0] / _CROP_UP_TO[1]
    least = 0 if crop else size  # the decoder halves pictures that are at least twice as large
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if (height, width) != (stored, stored):
            raise ValueError(f'it has {width} x {height} pixels in place of {stored} x {stored}')
        pixels = simplejpeg.decode_jpeg(jpeg, min_height=least, min_width=least, min_factor=1)
    except ValueError as error:
        raise ValueError(f'broken picture: {error}') from error
    if crop:
        edge = (stored - size) // 2
        return pixels[edge : edge + size, edge : edge + size]
    if len(pixels) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def _find(path: epath.Path) -> epath.Path:
    found, level = [], [path]
    for _ in range(_SEARCHED_LEVELS):
        found = [folder for folder in level if (folder / 'dataset_info.json').exists()]
        level = [child for folder in level if folder.is_dir() for child in folder.iterdir() if child.is_dir()]
        if found:
            break
    if not found:
        raise DataError(
            f'{path} is no prepared dataset, and holds none (config.data.path): write one with '
            '`diffmavil prepare`.'
        )
    if len(found) > 1:
        names = ', '.join(sorted(os.fspath(folder) for folder in found))
        raise DataError(f'{path} holds several prepared datasets: let config.data.path be one of {names}.')
    return found[0]
