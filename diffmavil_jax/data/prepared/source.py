"""The `tfds` source: reads the clips of a prepared dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import simplejpeg
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Float, Int16, Int64, UInt8
from PIL import Image

from diffmavil_jax.data.clip import NO_LABEL, Clip, ClipSpec, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.prepared.dataset import PreparedDataset
from diffmavil_jax.data.prepared.format import example_features

# Stored pictures that are larger by up to this factor (256 for 224) are cropped; others are scaled.
_CROP_UP_TO = (8, 7)
_FEATURES = example_features()


class PreparedSource:
    """Some splits of a prepared dataset (a ClipSource).

    A clip is the beginning of what is stored. A record that is broken, or lacks what its dataset promises, is
    refused, and the next usable one takes its place.
    """

    def __init__(
        self, dataset: PreparedDataset, splits: Sequence[str], spec: ClipSpec, ledger: Ledger
    ) -> None:
        """Opens the shards.

        Args:
            dataset: a prepared dataset.
            splits: names of splits or of parts of them, such as `train[:90%]`.
            spec: what a clip is.
            ledger: counts what is refused.

        Raises:
            DataError: a split does not exist or is empty.
        """
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
        """All class indices of item `index`, ascending. `Clip.label` is set if there is exactly one."""
        return self._usable.find(index, self._read)[1][1]

    def refused(self) -> list[Refusal]:
        return self._usable.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._usable.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index`, if each clip has one.

        Decodes the clip, because another takes its place if it can't be used.
        """
        return {} if self.multi_label or not self.label_names else {'label': self[index]['label']}

    def _read(self, i: int) -> tuple[Clip, Int64[np.ndarray, ' n']]:
        try:
            example = _FEATURES.deserialize_example_np(self._records[i])
            clip_id = example['id'].decode()
        except Exception as error:  # the readers raise anything over broken bytes
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
        pictures = np.empty(*self._spec.shapes['frames'])
        for i, frame in enumerate(self._frames):
            pictures[i] = decode_picture(jpegs[frame], self._frame_size, self._spec.frame_size)
        return pictures


def decode_picture(jpeg: bytes, stored: int, size: int) -> UInt8[np.ndarray, 'size size 3']:
    """Decodes a square JPEG, and crops or scales it.

    Args:
        jpeg: of `stored` x `stored` pixels.
        stored: its size.
        size: of the result. A picture that is little larger is cropped to its centre; see _CROP_UP_TO.

    Raises:
        ValueError: it is broken, or of another size.
    """
    crop = size <= stored <= size * _CROP_UP_TO[0] / _CROP_UP_TO[1]
    least = 0 if crop else size  # the decoder may halve larger pictures, down to this
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
