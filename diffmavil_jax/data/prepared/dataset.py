"""Opens a prepared dataset: its splits, its shards, and how it fits the clips that are wanted."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import ClipSpec, DataError
from diffmavil_jax.data.prepared.format import Metadata, example_features
from diffmavil_jax.data.prepared.label_file import Labels, read_labels
from diffmavil_jax.data.prepared.timing import Timing

_SEARCHED_LEVELS = 3  # DIR/NAME/VERSION


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
        path: the directory of its version.
        name: for messages and reports.
        metadata: what is true of all clips.
        splits: TFDS's SplitInfo by name.
    """

    path: str
    name: str
    metadata: Metadata
    splits: Mapping[str, Any]

    def has_split(self, split: str) -> bool:
        """Whether there is such a split, or, for a part such as `train[:90%]`, the whole one."""
        return split.partition('[')[0] in self.splits

    def files(self, splits: Sequence[str]) -> list[Any]:
        """The shards of some splits or parts of splits, each with the examples to skip and to take.

        Raises:
            DataError: a split does not exist, or all are empty.
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

    def labels(self, splits: Sequence[str]) -> Labels | None:
        """The class indices of the clips of some splits or parts of splits, from the files beside the shards.

        None if there are no such files, or if they do not fit the shards.
        """
        stored, found = functools.cache(functools.partial(read_labels, epath.Path(self.path))), []
        for split in splits:
            whole = self.splits[split.partition('[')[0]]
            labels = stored(whole.name)
            if labels is None or len(labels) != whole.num_examples:
                return None
            begins = dict(
                zip(whole.filenames, itertools.accumulate(whole.shard_lengths, initial=0), strict=False)
            )
            for file in self.splits[split].file_instructions:
                begin = begins[file.filename.rpartition('/')[2]] + file.skip
                found.append(labels.between(begin, begin + file.take))
        return Labels.joined(found)

    def describe_splits(self) -> str:
        """The names and sizes of the splits, such as `train (1,600 clips), test (400 clips)`."""
        texts = (f'{name} ({split.num_examples:,} clips)' for name, split in self.splits.items())
        return ', '.join(texts) or 'none'

    def coverage(self, splits: Sequence[str]) -> tuple[int, int] | None:
        """The number of clips in some splits, and how many the source lists; None if that is not known."""
        expected = [self.metadata.expected.get(split) for split in splits]
        if not splits or None in expected:
            return None
        return sum(file.take for file in self.files(splits)), sum(filter(None, expected))

    def remarks(self, spec: ClipSpec, modalities: Sequence[str] = MODALITIES) -> list[str]:
        """How the stored clips differ from the spec in some modalities: remarks for the report.

        Raises:
            DataError: clips of the spec can't be made of them.
        """
        has, remarks = self.metadata, []
        read = set(has.modalities) & set(modalities)
        if has.sample_rate != spec.sample_rate:
            raise DataError(
                f'{self.name} has sound at {has.sample_rate} Hz: config.data.sample_rate = '
                f'{spec.sample_rate} must be the same.'
            )
        if 'audio' in read and has.seconds is not None and has.seconds < spec.seconds:
            remarks.append(
                f'{self.name}: clips of {has.seconds:g} s are padded with silence to {spec.seconds:g} s'
            )
        if 'video' in read:
            timing = self.timing
            if timing.span_s is None and spec.video_span < spec.seconds:
                raise DataError(
                    f'{self.name} has clips of different lengths (--seconds=all): config.data.video_seconds '
                    f'= {spec.video_seconds:g} must be 0, or prepare again with --seconds.'
                )
            usable = timing.pictures_within(spec.video_span)
            if usable < spec.frames:
                raise DataError(self._too_few_pictures(spec, usable))
            if has.frame_size < spec.frame_size:
                remarks.append(
                    f'{self.name}: pictures of {has.frame_size} pixels are enlarged to {spec.frame_size}'
                )
        return remarks

    @property
    def timing(self) -> Timing:
        """When the stored sound and pictures are."""
        has = self.metadata
        span = has.seconds if has.frame_seconds is None else has.frame_seconds
        return Timing(has.seconds, has.frames, span)

    def _too_few_pictures(self, spec: ClipSpec, usable: int) -> str:
        has, span = self.metadata, self.timing.span_s
        whole = spec.video_span == spec.seconds
        stretch = f'{"the first " if whole else ""}{spec.video_span:g} s of a clip'
        text = (
            f'{self.name} has {usable} pictures in {stretch} '
            f'({has.frames} in {"the clip" if span is None else f"{span:g} s"}): config.data.frames = '
            f'{spec.frames} must be at most that. '
        )
        if whole:
            return text + 'Lower it, raise config.data.seconds, or prepare again with more.'
        enough = '' if span is None else f' (--frames={math.ceil(spec.frames / spec.video_span * span)})'
        return text + (
            f'Prepare again with more{enough}, or let pictures cover the whole sound '
            '(--config.data.video_seconds=0).'
        )


def open_prepared(path: str | os.PathLike[str]) -> PreparedDataset:
    """Finds a prepared dataset and reads its description.

    Args:
        path: the directory of a version, or one above it that has no other dataset in it.

    Raises:
        DataError: there is none or more than one, it is not complete, `prepare` did not write it, or the
            storage can't be reached.
    """
    try:
        directory = _find(epath.Path(path))
    except (ImportError, OSError) as error:  # gs:// without gcsfs, for example
        raise DataError(f"{path} can't be reached (config.data.path): {error}.") from error
    try:
        info = tfds.builder_from_directory(directory).info
        metadata = Metadata.from_dict(info.metadata or {})
        lacking = sorted(example_features().keys() - info.features.keys())
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


def _find(path: epath.Path) -> epath.Path:
    found, level = [], [path]
    for _ in range(_SEARCHED_LEVELS):
        found = [folder for folder in level if (folder / 'dataset_info.json').exists()]
        level = [child for folder in level if folder.is_dir() for child in folder.iterdir() if child.is_dir()]
        if found:
            break
    if not found:
        raise DataError(
            f'{path} is not a prepared dataset and contains none (config.data.path): write one with '
            '`diffmavil prepare`.'
        )
    if len(found) > 1:
        names = ', '.join(sorted(os.fspath(folder) for folder in found))
        raise DataError(f'{path} holds several prepared datasets: let config.data.path be one of {names}.')
    return found[0]
