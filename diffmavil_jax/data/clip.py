"""What a clip is, and what a source of clips offers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from diffmavil_jax.config.clips import DataConfig
from diffmavil_jax.data.take import FIXED, Take

ARRAYS = {'audio': 'waveform', 'video': 'frames'}  # modality -> its key in a clip and in a batch
NO_LABEL = -1

_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A file or a part of one that can't be used, and why."""

    path: str
    reason: str


class Clip(TypedDict):
    """One example, as small as it can be: the log-mel spectrogram and normalisation are left to the step.

    It has the arrays of its source's modalities and no others.
    """

    waveform: NotRequired[Int16[np.ndarray, ' samples']]
    frames: NotRequired[UInt8[np.ndarray, 't h w 3']]
    label: int  # a class index, or NO_LABEL
    id: str
    # All class indices of the item that came, ascending; of sources that put one in the place of another.
    labels: NotRequired[Int64[np.ndarray, ' n']]
    present: NotRequired[Float[np.ndarray, ' 2']]  # by modality: 1, or 0 where a blank array stands in
    target: NotRequired[Float[np.ndarray, ' c']]  # 1 for each class of the clip, else 0; see data.wrappers
    # The unusable items of the source in whose place this one came, by index. A worker process refuses
    # them, and the process that trains must learn of it.
    refused: NotRequired[dict[int, Refusal]]


class ArrayShape(NamedTuple):
    """What one array of a clip looks like."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What a source must deliver: mono sound, and square pictures of the same time or of a stretch of it."""

    sample_rate: int  # Hz
    seconds: float
    frames: int
    frame_size: int  # pixels
    video_seconds: float = 0.0  # how long the pictures last; 0: as long as the sound

    @classmethod
    def of(cls, data: DataConfig) -> ClipSpec:
        """The clips of a config."""
        return cls(data.sample_rate, data.seconds, data.frames, data.frame_size, data.video_seconds)

    @property
    def video_span(self) -> float:
        """How long the pictures last, in seconds."""
        return self.video_seconds or self.seconds

    def video_start(self, take: Take) -> float:
        """When the pictures begin, in seconds from the beginning of the sound."""
        return take.video * (self.seconds - self.video_span)

    @property
    def num_samples(self) -> int:
        """Length of the waveform in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def shapes(self) -> dict[str, ArrayShape]:
        """Shape and dtype of each array of a clip that has both modalities, by its key."""
        return {
            'waveform': ArrayShape((self.num_samples,), np.dtype(np.int16)),
            'frames': ArrayShape((self.frames, self.frame_size, self.frame_size, 3), np.dtype(np.uint8)),
        }

    def blank(self, key: str) -> np.ndarray:
        """An array of zeros: silence for `waveform`, black pictures for `frames`."""
        return np.zeros(*self.shapes[key])


class DataError(RuntimeError):
    """The data can't be used. The message says what is wrong, where, and what to do."""


class ClipSource(Protocol):
    """Random access to clips: item i depends on i alone, and many threads may read at once.

    A source can be pickled, for worker processes.

    Attributes:
        name: for messages.
        modalities: those of MODALITIES that every clip has.
        label_names: class index -> name; empty where there are no labels.
        multi_label: whether a clip may have several labels.
    """

    name: str
    modalities: tuple[str, ...]
    label_names: tuple[str, ...]
    multi_label: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip:
        """Item `index` as it is evaluated."""
        ...

    def read(self, index: int, take: Take) -> Clip:
        """Item `index` as a take of it, which depends on both alone; `self[index]` is that of FIXED."""
        ...

    def refused(self) -> list[Refusal]:
        """What was refused so far, sorted by path."""
        ...

    def record(self, refused: Mapping[int, Refusal]) -> None:
        """Takes over what another process refused, by index.

        Raises:
            DataError: too much is refused.
        """
        ...

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """Known facts of item `index`, by name: class indices such as `label`, or numbers [d].

        Of the generated world they are what the clip was made from; of other sources at most `label`.
        Decodes an item that was never read, for another takes its place if it can't be used.
        """
        ...

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        """All class indices of item `index`, ascending, without decoding it.

        If it turned out to be unusable when it was decoded, they are those of the item in its place.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Sources:
    """Training and held-out clips, and remarks on them for the report.

    Attributes:
        train: clips to train on.
        held_out: clips to evaluate on.
        notes: remarks, a sentence each.
        coverage: how many of the evaluation clips that a benchmark lists are present; empty if not known.
    """

    train: ClipSource
    held_out: ClipSource
    notes: tuple[str, ...] = ()
    coverage: str = ''


def read(source: ClipSource, index: int, take: Take) -> Clip:
    """Item `index` of a source as a take of it; only a source of random takes needs more than items."""
    return source[index] if take == FIXED else source.read(index, take)


def require_modalities(sources: Sequence[ClipSource], modalities: Sequence[str], consumer: str) -> None:
    """Checks that all clips of the sources have the modalities that a consumer needs.

    Raises:
        DataError: one lacks a modality. Names the consumer, the source, what it lacks and what to do.
    """
    for source in sources:
        lacking = [modality for modality in modalities if modality not in source.modalities]
        if lacking:
            raise DataError(
                f'{consumer} needs {" and ".join(modalities)}, and {source.name} has no '
                f'{" and no ".join(lacking)}: its clips have {" and ".join(source.modalities)} only. '
                'Take a dataset whose clips have both, or prepare it again from files that have them.'
            )


def clip_id(name: str, start_s: float) -> str:
    """The id of the clip that begins at `start_s` in the file or video `name`."""
    return f'{printable(name)}@{start_s:.3f}'


def printable(text: str) -> str:
    """A name as one line of text that any output can hold.

    Surrogates, which stand for the bytes of a file name that is not UTF-8, and control characters, such as
    line ends, are escaped.
    """
    escaped = text.encode('utf-8', 'backslashreplace').decode('utf-8')
    return _CONTROL.sub(lambda match: match[0].encode('unicode_escape').decode(), escaped)
