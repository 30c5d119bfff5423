"""The example on the wire, and what a source of examples is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from diffmavil_jax.config.clips import DataConfig

ARRAYS = {'audio': 'waveform', 'video': 'frames'}  # modality -> its key in a clip and in a batch
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A file, or a part of one, that can't be used, and why."""

    path: str
    reason: str


class Clip(TypedDict):
    """One example: small on the wire; log-mel and normalisation run in JAX inside the step.

    It has the arrays of its source's modalities and no others.
    """

    waveform: NotRequired[Int16[np.ndarray, ' samples']]
    frames: NotRequired[UInt8[np.ndarray, 't h w 3']]
    label: int  # a class index, or NO_LABEL
    id: str
    present: NotRequired[Float[np.ndarray, ' 2']]  # by modality: 1, or 0 where something stands in
    target: NotRequired[Float[np.ndarray, ' c']]  # 1 for each class of the clip; see data.labelled
    # The unusable items of the source that this one stands in for, by index: a worker process
    # refuses them, and the process that trains has to know.
    refused: NotRequired[dict[int, Refusal]]


class ArrayShape(NamedTuple):
    """What one array of a clip looks like."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What a source must deliver: `seconds` of mono sound and `frames` square pictures of it."""

    sample_rate: int  # Hz
    seconds: float
    frames: int
    frame_size: int  # pixels

    @classmethod
    def of(cls, data: DataConfig) -> ClipSpec:
        """What a config asks for."""
        return cls(data.sample_rate, data.seconds, data.frames, data.frame_size)

    @property
    def num_samples(self) -> int:
        """Length of the waveform."""
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
    """The data can't be used: says what is wrong, where, and what to do."""


class ClipSource(Protocol):
    """Random access to clips: item i is a pure function of i, and safe to read from threads.

    It can be pickled, for worker processes.
    """

    name: str  # for messages
    modalities: tuple[str, ...]  # those of MODALITIES that every clip has
    label_names: tuple[str, ...]
    multi_label: bool  # whether a clip may have several

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def refused(self) -> list[Refusal]:
        """What was refused so far, in the order of the files."""
        ...

    def record(self, refused: Mapping[int, Refusal]) -> None:
        """Takes over what another process refused, by index.

        Raises:
            DataError: too much is refused.
        """
        ...

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """What is known of item i without decoding it: `label` or another class index, or numbers."""
        ...

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        """All class indices of item i, ascending."""
        ...


@dataclasses.dataclass(frozen=True)
class Sources:
    """Training and held-out clips, and what is to be said of them in the report.

    `coverage` says how many of the held-out clips that a dataset lists are there, if that is known.
    """

    train: ClipSource
    held_out: ClipSource
    notes: tuple[str, ...] = ()
    coverage: str = ''


def require_modalities(sources: Sequence[ClipSource], modalities: Sequence[str], consumer: str) -> None:
    """Checks that what is going to consume the clips can live with what they have.

    Raises:
        DataError: names the consumer, the dataset, what it lacks and what to do.
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
    """The clip's name in the dataset."""
    return f'{printable(name)}@{start_s:.3f}'


def printable(text: str) -> str:
    """Without the surrogates that stand for bytes of a file name that is not UTF-8."""
    return text.encode('utf-8', 'backslashreplace').decode('utf-8')
