"""The content of a run's report, as plain data: text, numbers and NumPy arrays.

Whoever writes a report fills it in. Every sequence may be empty.

Axes: t time, f mel bins, h w picture, T pictures of a clip.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffmavil_jax.units import Unit, is_number

Spectrogram = Float[np.ndarray, 't f']
Frames = Float[np.ndarray, 'T h w 3']
Direction = typing.Literal['audio to video', 'video to audio']
DIRECTIONS: tuple[Direction, ...] = typing.get_args(Direction)


@dataclasses.dataclass(frozen=True)
class Headline:
    """A card at the top of the page: a number, what it is, and a detail."""

    label: str
    value: str
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table; a value that is None or not finite shows as missing.

    `better` says which value is in bold: the highest, the lowest, or none.
    """

    label: str
    values: Sequence[float | None]
    unit: Unit = 'number'
    better: typing.Literal['higher', 'lower', ''] = ''

    def best(self) -> frozenset[int]:
        """Positions of the best value; empty unless two or more can be compared."""
        known = {i: float(v) for i, v in enumerate(self.values) if is_number(v)}
        if not self.better or len(known) < 2:
            return frozenset()
        target = max(known.values()) if self.better == 'higher' else min(known.values())
        if self.unit == 'r2' and target < 0:  # every value reads `none`
            return frozenset()
        return frozenset(i for i, v in known.items() if v == target)


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured numbers; `columns` has a name for each value of a row."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f'table {self.title!r}, row {row.label!r}: '
                    f'{len(row.values)} values for {len(self.columns)} columns'
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """One modality of one clip on its way through the network.

    All are spectrograms [t, f] of log-mel values, or all are frames [T, h, w, 3] in 0..1.

    Attributes:
        target: the clip itself; NaN where it is not known.
        masked: what the encoder sees; NaN where hidden.
        prediction: the target with its hidden part filled in by the network.
        start: what the decoder starts from, diffused where hidden; None for a network with mask tokens.
    """

    target: np.ndarray
    masked: np.ndarray
    prediction: np.ndarray
    start: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A held-out clip, hidden in part and filled in. `seconds` is the length of its sound."""

    id: str
    audio: Stages
    video: Stages
    seconds: float


@dataclasses.dataclass(frozen=True)
class Match:
    """A match of a query: a spectrogram [t, f] or frames [T, h, w, 3] in 0..1, and its similarity."""

    content: np.ndarray
    score: float
    is_true: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalExample:
    """A query of one modality and its best matches in the other, best first.

    `true_rank` is the rank of the query's own clip among all candidates; 1 is best.
    """

    direction: Direction
    query: np.ndarray
    matches: Sequence[Match]
    true_rank: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Counts of clips by true class (rows) and answer (columns); `classes` names both."""

    counts: Int[np.ndarray, 'c c']
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A clip that was taken for another class, with its sound and its frames where it has them.

    `sound` is a WAV file, `frames` are [T, h, w, 3] in 0..1.
    """

    id: str
    truth: str
    guess: str
    probability: float  # that the classifier gave its guess
    sound: bytes | None = None
    frames: Frames | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A whole page. Whatever is left empty gets no section.

    Args:
        title: what ran, in a few words.
        command: the command that repeats it.
        lead: a paragraph for a reader who has never seen the project.
        headlines: cards at the top.
        headlines_note: a sentence below them.
        facts: device, versions, times, parameters and so on, in the order shown.
        plan: buckets, with first_sample, last_sample, mask_ratio, audio_tokens, video_tokens,
            batch_size, steps, macs_per_clip, macs and saved (a share of the reference's MACs).
        history: lines of metrics.jsonl: `samples`, and numbers by name; held-out ones
            begin with `eval/`.
        tables: evaluation results.
        results: a paragraph above the tables.
        reconstructions: clips for the reconstruction sheets; the first is the README's picture.
        retrievals: queries and their matches.
        confusion: of a classifier.
        mistakes: of a classifier, those with the highest probability first.
        refused: (path, reason) of each file that could not be used. Reasons are counted by
            their text before the first colon.
        notes: further sentences.
        summary: every number under its stable name, for summary.json.
    """

    title: str
    command: str = ''
    lead: str = ''
    headlines: Sequence[Headline] = ()
    headlines_note: str = ''
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    plan: Sequence[Mapping[str, Any]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    tables: Sequence[Table] = ()
    results: str = ''
    reconstructions: Sequence[Reconstruction] = ()
    retrievals: Sequence[RetrievalExample] = ()
    confusion: Confusion | None = None
    mistakes: Sequence[Mistake] = ()
    refused: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
