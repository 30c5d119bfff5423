"""The `tfds` source: reads the clips of a prepared dataset."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import simplejpeg
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Float, Int16, Int64, UInt8
from PIL import Image

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import NO_LABEL, Clip, ClipSpec, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.prepared.dataset import PreparedDataset
from diffmavil_jax.data.prepared.format import example_features, labels_of
from diffmavil_jax.data.prepared.label_file import Labels
from diffmavil_jax.data.take import FIXED, Crop, Take, cut_picture

# Stored pictures that are larger by up to this factor (256 for 224) are cropped; others are scaled.
_CROP_UP_TO = (8, 7)
_FEATURES = example_features()
_RECORDS_AT_ONCE = 256


class PreparedSource:
    """Some splits of a prepared dataset (a ClipSource).

    A clip is the beginning of what is stored, or a random take of it. A record that is broken, or lacks what
    its dataset promises, is refused, and the next usable one takes its place.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        splits: Sequence[str],
        spec: ClipSpec,
        ledger: Ledger,
        modalities: Collection[str] = MODALITIES,
    ) -> None:
        """Opens the shards.

        Args:
            dataset: a prepared dataset.
            splits: names of splits or of parts of them, such as `train[:90%]`.
            spec: what a clip is.
            ledger: counts what is refused.
            modalities: what is read of a clip; all that there is, if the dataset lacks one of them.

        Raises:
            DataError: a split does not exist or is empty.
        """
        self.name = dataset.name
        has = dataset.metadata.modalities
        self.modalities = tuple(m for m in has if m in modalities) if set(modalities) <= set(has) else has
        self.label_names = dataset.metadata.class_names
        self.multi_label = dataset.metadata.multi_label
        self._where = f'{dataset.name} {"+".join(splits)}'
        self._spec = spec
        self._timing = dataset.timing
        self._frame_size = dataset.metadata.frame_size
        self._records = ArrayRecordDataSource(dataset.files(splits))
        self._read_labels = functools.partial(dataset.labels, splits)
        self._usable = Substitutes(self._where, len(self._records), ledger)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        """Reads a take of clip `index`. Its arrays may be read-only.

        Raises:
            DataError: more clips are unusable than config.data.max_bad_fraction allows.
        """
        anew = None if take == FIXED else lambda i: self._read(i, take)
        _, clip, passed = self._usable.find(index, self._read, anew)
        if passed:
            clip['refused'] = passed
        return clip

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        """All class indices of item `index`, ascending. `Clip.label` is set if there is exactly one."""
        return self._labels[self._usable.expected(index)]

    @functools.cached_property
    def _labels(self) -> Labels:
        """The labels of all clips; of a broken record, none."""
        stored = self._read_labels()
        if stored is not None:
            return stored
        sets: list[tuple[int, ...]] = []
        for begin in range(0, len(self), _RECORDS_AT_ONCE):
            indices = range(begin, min(begin + _RECORDS_AT_ONCE, len(self)))
            sets += map(_labels_of, self._raw(indices))
        return Labels.of(sets)

    def _raw(self, indices: Sequence[int]) -> Sequence[bytes]:
        """Some records; empty ones for those that can't be read."""
        try:
            return self._records.__getitems__(indices)
        except Exception:  # the reader raises anything over broken bytes
            return [b''] if len(indices) == 1 else [self._raw([i])[0] for i in indices]

    def refused(self) -> list[Refusal]:
        return self._usable.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._usable.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index`, if each clip has one; reads a clip that was never read.

        For another takes its place if it can't be used.
        """
        if self.multi_label or not self.label_names:
            return {}
        return {'label': self._label(self._labels[self._usable.place(index, self._read)])}

    def _label(self, labels: Sequence[int] | Int64[np.ndarray, ' n']) -> int:
        return int(labels[0]) if len(labels) == 1 and not self.multi_label else NO_LABEL

    def _read(self, i: int, take: Take = FIXED) -> Clip:
        try:
            example = _FEATURES.deserialize_example_np(self._records[i])
            clip_id = example['id'].decode()
        except Exception as error:  # the readers raise anything over broken bytes
            raise UnusableError(Refusal(f'{self._where}[{i}]', f'unreadable record: {error}')) from error
        clip = Clip(label=self._label(example['labels']), labels=example['labels'], id=clip_id)
        try:
            if 'audio' in self.modalities:
                clip['waveform'] = self._waveform(example['audio'], take)
            if 'video' in self.modalities:
                clip['frames'] = self._pictures(example['frames'], take)
        except ValueError as error:
            raise UnusableError(Refusal(clip_id, str(error))) from error
        return clip

    def _waveform(self, audio: Int16[np.ndarray, ' n'], take: Take) -> Int16[np.ndarray, ' samples']:
        if not len(audio):
            raise ValueError('no audio')
        audio = audio[self._first_sample(len(audio), take) :]
        missing = self._spec.num_samples - len(audio)
        return np.pad(audio, (0, missing)) if missing > 0 else audio[: self._spec.num_samples]

    def _first_sample(self, stored: int, take: Take) -> int:
        if 'video' in self.modalities:
            first_s = self._timing.start_s(self._timing.start(self._spec, take))
            return round(first_s * self._spec.sample_rate)
        spare = max(0, stored - self._spec.num_samples)
        return min(int((take.start or 0.0) * (spare + 1)), spare)

    def _pictures(self, jpegs: Sequence[bytes], take: Take) -> UInt8[np.ndarray, 't h w 3']:
        if not len(jpegs):
            raise ValueError('no video')
        indices, size = self._timing.frame_indices(self._spec, take), self._spec.frame_size
        if len(jpegs) <= indices[-1]:
            raise ValueError(f'wrong frame count: {len(jpegs)}, needs {indices[-1] + 1}')
        pictures = np.empty(*self._spec.shapes['frames'])
        for i, frame in enumerate(indices):
            pictures[i] = decode_picture(jpegs[frame], self._frame_size, size, take.crop)[:, take.columns]
        return pictures


def _labels_of(record: bytes) -> tuple[int, ...]:
    try:
        return labels_of(record)
    except ValueError:
        return ()


def decode_picture(
    jpeg: bytes, stored: int, size: int, crop: Crop | None = None
) -> UInt8[np.ndarray, 'size size 3']:
    """Decodes a square JPEG, and crops or scales it.

    Args:
        jpeg: of `stored` x `stored` pixels.
        stored: its size.
        size: of the result. A picture that is little larger is cropped to its centre; see _CROP_UP_TO.
        crop: the rectangle that is scaled to `size` instead.

    Raises:
        ValueError: it is broken, or of another size.
    """
    centre = crop is None and size <= stored <= size * _CROP_UP_TO[0] / _CROP_UP_TO[1]
    # The decoder may halve larger pictures, down to this.
    least = 0 if centre else size if crop is None else math.ceil(size / min(crop.width, crop.height))
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if (height, width) != (stored, stored):
            raise ValueError(f'it has {width} x {height} pixels in place of {stored} x {stored}')
        pixels = simplejpeg.decode_jpeg(jpeg, min_height=least, min_width=least, min_factor=1)
    except ValueError as error:
        raise ValueError(f'broken picture: {error}') from error
    if crop is not None:
        return cut_picture(pixels, crop, size)
    if centre:
        edge = (stored - size) // 2
        return pixels[edge : edge + size, edge : edge + size]
    if len(pixels) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
