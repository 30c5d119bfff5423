"""The training example on the wire, and what a source of examples is."""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypedDict

import numpy as np
from jaxtyping import Float, Int16, UInt8


class Clip(TypedDict):
    """One example: small on the wire; log-mel and normalisation run in JAX inside the step."""

    waveform: Int16[np.ndarray, ' samples']
    frames: UInt8[np.ndarray, 't h w 3']
    label: int  # a class index, or NO_LABEL
    id: str


NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What a source must deliver: `seconds` of mono sound and `frames` square pictures of it."""

    sample_rate: int  # Hz
    seconds: float
    frames: int
    frame_size: int  # pixels

    @property
    def num_samples(self) -> int:
        return round(self.seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A file, or a part of one, that can't be used, and why."""

    path: str
    reason: str


class DataError(RuntimeError):
    """The data can't be used: says what is wrong, where, and what to do."""


class ClipSource(Protocol):
    """Random access to clips: item i is a pure function of i, and safe to read from threads."""

    label_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def refused(self) -> list[Refusal]:
        """What was refused so far, in the order of the files."""
        ...

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """What is known of item i without decoding it: `label` or another class index, or numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class Sources:
    """Training and held-out clips, and what is to be said of them in the report."""

    train: ClipSource
    held_out: ClipSource
    notes: tuple[str, ...] = ()
