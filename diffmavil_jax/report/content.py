"""What a report says: plain values that the run fills in, and how numbers are spelled.

Nothing here knows of JAX, of a model or of the loop: arrays are NumPy, the rest is
text and numbers, and every sequence may be empty.

Axes: t time, f mel bins, h w picture, T pictures of a clip.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffmavil_jax.units import Unit, is_number, spell

Spectrogram = Float[np.ndarray, 't f']
Frames = Float[np.ndarray, 'T h w 3']
Direction = typing.Literal['audio to video', 'video to audio']
DIRECTIONS: tuple[Direction, ...] = typing.get_args(Direction)

PRETRAINING_LEAD = (
    'A network was shown short clips of video with their sound, most of each hidden from it. '
    'It learned to fill in what was hidden, and to tell which sound belongs to which picture; '
    'no label was used. This page says what ran, how it went, and what the network can do now.'
)


PRETRAINING_RESULTS = (
    'Measured on held-out clips. The trained network stands beside the same network before training, '
    'beside features computed without any network, and beside chance, where those exist; '
    'the best of a row is marked.'
)

CLASSIFICATION_LEAD = (
    'A network learned to name what is in short clips, from clips whose class is known. This page says '
    'what ran, how often it is right on clips that it was not trained on, and where it is wrong.'
)

CLASSIFICATION_RESULTS = (
    'Whole clips, one crop of each; the intervals hold 95 % of what is to be expected by chance. '
    'The test clips took no part in training, and nothing was chosen by them.'
)


@dataclasses.dataclass(frozen=True)
class Headline:
    """One number worth a card."""

    label: str
    value: str
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table; a value that is None or not finite shows as missing.

    `better` says which value is set in bold: the highest, the lowest, or none.
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
        return frozenset(i for i, v in known.items() if v == target)


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured numbers; `columns` names the values of a row, so it has as many entries."""

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
    """One modality of one clip on its way through the model.

    Each is a spectrogram [t, f] of log-mel values, or frames [T, h, w, 3] in 0..1; all
    have one shape. `masked` is what the encoder sees, NaN where hidden. `start` is what
    the decoder starts from, noise where hidden; None for a model with mask tokens.
    A `target` that is not known is NaN.
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
    """A candidate: a spectrogram [t, f] or frames [T, h, w, 3] in 0..1, and its similarity."""

    content: np.ndarray
    score: float
    is_true: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalExample:
    """A query of one modality and its best matches in the other, best first.

    `true_rank` is the place of the query's own clip among all candidates, from 1.
    """

    direction: Direction
    query: np.ndarray
    matches: Sequence[Match]
    true_rank: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many clips of each class (rows) were taken for each (columns); `classes` names both."""

    counts: Int[np.ndarray, 'c c']
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A clip that was taken for another class, with what is there of it to hear and to see.

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
        headlines: cards at the top; see `pretraining_headlines`.
        headlines_note: what is to be said below them.
        facts: device, versions, wall-clock, parameters and so on, in the order shown.
        plan: buckets, with first_sample, last_sample, mask_ratio, audio_tokens, video_tokens,
            batch_size, steps, macs_per_clip, macs and saved (a share of MAViL's MACs).
        history: lines of metrics.jsonl: `samples`, and numbers by name; held-out ones
            begin with `eval/`.
        tables: evaluation results.
        results: what is to be said above them.
        reconstructions: clips for the reconstruction sheets; the first is the README's picture.
        retrievals: queries and their matches.
        confusion: of a classifier.
        mistakes: of a classifier, the surest first.
        refused: (path, reason) of each file that could not be used. Reasons are counted by
            their text before the first colon.
        notes: further sentences.
        summary: every number under its stable name, for summary.json.
    """

    title: str
    command: str = ''
    lead: str = PRETRAINING_LEAD
    headlines: Sequence[Headline] = ()
    headlines_note: str = ''
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    plan: Sequence[Mapping[str, Any]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    tables: Sequence[Table] = ()
    results: str = PRETRAINING_RESULTS
    reconstructions: Sequence[Reconstruction] = ()
    retrievals: Sequence[RetrievalExample] = ()
    confusion: Confusion | None = None
    mistakes: Sequence[Mistake] = ()
    refused: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def lookup(summary: Mapping[str, Any], name: str) -> Any:
    """The value under a dotted name, in a nested or a flat mapping; None if absent."""
    if name in summary:
        return summary[name]
    head, _, rest = name.partition('.')
    inner = summary.get(head)
    return lookup(inner, rest) if rest and isinstance(inner, Mapping) else None


def pretraining_headlines(summary: Mapping[str, Any]) -> list[Headline]:
    """The cards of a pretraining run, from the stable names of its summary.

    Those of which the summary has no number are left out.
    """
    cards = [
        _compared(summary, 'Sound finds its picture, top 10', 'retrieval.a2v.r10'),
        _compared(summary, 'Picture finds its sound, top 10', 'retrieval.v2a.r10'),
        _compared(summary, 'Linear probe, both senses', 'probe.fused.top1'),
    ]
    if is_number(saved := lookup(summary, 'macs.saved_fraction')):
        cards.append(Headline('Training compute saved', spell(saved, 'percent'), 'against MAViL, in MACs'))
    if is_number(clips := lookup(summary, 'clips_seen')):
        total = lookup(summary, 'time.total_s')
        detail = f'in {spell(total, "seconds")}' if is_number(total) else ''
        cards.append(Headline('Clips seen', spell(clips), detail))
    return [card for card in cards if card is not None]


def _compared(summary: Mapping[str, Any], label: str, name: str) -> Headline | None:
    """A share beside the same share for the untrained network and for raw features."""
    value = lookup(summary, name)
    if not is_number(value):
        return None
    others = ((kind, lookup(summary, f'{kind}.{name}')) for kind in ('untrained', 'raw'))
    detail = ', '.join(f'{kind} {spell(v, "percent")}' for kind, v in others if is_number(v))
    detail = '; '.join(filter(None, (detail, lookup(summary, 'coverage'))))
    return Headline(label, spell(value, 'percent'), detail)
