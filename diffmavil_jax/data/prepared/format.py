"""The format of a prepared dataset, which `data.prepare` writes and `prepared.source` reads.

It is a TFDS dataset of ArrayRecord shards, which `tfds.builder_from_directory` reads too. An example is a
clip with its sound as int16 and its pictures as JPEG, so that training decodes no video. Sound or pictures
may be absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffmavil_jax.config.clips import MODALITIES

_LABELS = b'\n\x06labels'  # the key of an entry
_FIRST, _VALUE, _INTEGERS = b'\n', b'\x12', b'\x1a'  # tags of protocol buffers


def example_features() -> tfds.features.FeaturesDict:
    """The features of an example. TFDS features keep state, so each call makes new ones."""
    return tfds.features.FeaturesDict(
        {
            'id': tfds.features.Text(doc='<path or video id>@<start_s with 3 decimals>'),
            'start_s': tfds.features.Scalar(np.float64, doc='where the clip begins in its source'),
            # Bytes take a third of the size of a list of integers, and are read 17 times faster.
            'audio': tfds.features.Tensor(
                shape=(None,), dtype=np.int16, encoding='bytes', doc='mono; empty: the clip has no sound'
            ),
            'frames': tfds.features.Tensor(
                shape=(None,), dtype=np.object_, doc='JPEG in time order; empty: the clip has no picture'
            ),
            'labels': tfds.features.Tensor(
                shape=(None,), dtype=np.int64, doc='class indices, ascending; empty: unlabelled'
            ),
            'source_hash': tfds.features.Text(doc='SHA-256 of the source file, in hexadecimal'),
        }
    )


def labels_of(record: bytes) -> tuple[int, ...]:
    """The `labels` of a serialized example, of which nothing else is parsed.

    An example is a message of protocol buffers, whose entries may stand in any order.

    Raises:
        ValueError: it has no such entry, or a broken one.
    """
    position, end = _inside(record, 0, _FIRST)
    while position < end:
        entry, position = _inside(record, position, _FIRST)
        if record.startswith(_LABELS, entry):
            return _integers(record, entry + len(_LABELS))
    raise ValueError('no labels')


def _integers(record: bytes, position: int) -> tuple[int, ...]:
    """The integers of a feature that begins at a position."""
    for tag in (_VALUE, _INTEGERS, _FIRST):  # the feature, its list of integers, and their bytes
        position, end = _inside(record, position, tag)
        if position == end:
            return ()
    values = []
    while position < end:
        value, position = _varint(record, position)
        values.append(value)
    return tuple(values)


def _inside(record: bytes, position: int, tag: bytes) -> tuple[int, int]:
    """Where the content of the field that begins at a position begins and ends."""
    if record[position : position + 1] != tag:
        raise ValueError('broken labels')
    size, begin = _varint(record, position + 1)
    if begin + size > len(record):
        raise ValueError('broken labels')
    return begin, begin + size


def _varint(record: bytes, position: int) -> tuple[int, int]:
    """A number in seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        if position >= len(record):
            raise ValueError('broken labels')
        byte = record[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is true of all clips of a prepared dataset: its metadata.json.

    Attributes:
        source: what it was prepared from, such as `audioset`.
        modalities: those of MODALITIES that every clip has.
        class_names: index -> name; empty where there are no labels.
        multi_label: whether a clip may have several labels.
        sample_rate: of the sound, in Hz.
        seconds: length of a clip; None if it varies.
        frames: pictures of a clip; 0 without video.
        frame_size: their width and height in pixels; 0 without video.
        frame_seconds: the pictures are from the first `frame_seconds` of the clip; None: from all of it.
        expected: split -> the number of clips that its source lists, missing ones included.
    """

    source: str
    modalities: tuple[str, ...] = MODALITIES
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    sample_rate: int = 16_000
    seconds: float | None = None
    frames: int = 0
    frame_size: int = 0
    frame_seconds: float | None = None
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f'modalities = {self.modalities!r}: must be one or both of {MODALITIES}.')

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON types, for tfds.core.MetadataDict."""
        values = dataclasses.asdict(self)
        return values | {
            'modalities': list(self.modalities),
            'class_names': list(self.class_names),
            'expected': dict(self.expected),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metadata:
        """The reverse of `to_dict`. Unknown keys, which a later version may have written, are ignored.

        Raises:
            ValueError: the values can't be understood.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {name: value for name, value in values.items() if name in known}
        for name in ('modalities', 'class_names'):
            if name in chosen:
                chosen[name] = tuple(chosen[name])
        try:
            return cls(**chosen)
        except TypeError as error:
            raise ValueError(f'not the metadata of a prepared dataset: {error}') from error
