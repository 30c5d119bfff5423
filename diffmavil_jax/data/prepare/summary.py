"""Counts what became of the clips: the contents of the prepare report and of the manifest."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from diffmavil_jax.data.prepare.work import Outcome

_EXAMPLES = 20  # how many clips are named for each reason, and how many duplicates


@dataclasses.dataclass
class _Part:
    """Counts of the clips of one split, or of all."""

    listed: int = 0
    written: int = 0
    seconds: float = 0.0
    num_bytes: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, outcome: Outcome) -> None:
        self.listed += 1
        if outcome.reason:
            self.refused[kind(outcome.reason)] += 1
        else:
            self.written += 1
            self.seconds += outcome.seconds
            self.num_bytes += outcome.num_bytes

    def to_dict(self) -> dict[str, Any]:
        return {
            'listed': self.listed,
            'written': self.written,
            'seconds': round(self.seconds, 3),
            'bytes': self.num_bytes,
            'refused': dict(self.refused.most_common()),
        }


class Summary:
    """Adds up outcomes. It keeps the hash of every file, but not the outcomes."""

    def __init__(self) -> None:
        self._total = _Part()
        self._splits: dict[str, _Part] = {}
        self._examples: dict[str, list[dict[str, str]]] = {}
        self._files: dict[bytes, tuple[str, str]] = {}  # hash -> its first file and split
        self._copies: dict[bytes, dict[str, str]] = {}  # hash -> further files and their splits
        self._notes: collections.Counter[str] = collections.Counter()

    def add(self, outcome: Outcome) -> None:
        """Counts a clip."""
        self._total.add(outcome)
        self._splits.setdefault(outcome.split, _Part()).add(outcome)
        if outcome.note:
            self._notes[outcome.note] += 1
        if outcome.reason:
            examples = self._examples.setdefault(kind(outcome.reason), [])
            if len(examples) < _EXAMPLES:
                examples.append({'id': outcome.id, 'split': outcome.split, 'reason': outcome.reason})
        else:
            self._add_hash(outcome)

    @property
    def expected(self) -> dict[str, int]:
        """How many clips the source lists in each split."""
        return {split: part.listed for split, part in sorted(self._splits.items())}

    def to_dict(self) -> dict[str, Any]:
        """The report, as JSON types."""
        across = [
            first
            for digest, first in self._files.items()
            if any(split != first[1] for split in self._copies.get(digest, {}).values())
        ]
        warning = f'{len(across)} files are, byte for byte, in more than one split: the evaluation leaks'
        return {
            **self._total.to_dict(),
            'splits': {split: part.to_dict() for split, part in sorted(self._splits.items())},
            'refused_examples': self._examples,
            'duplicates': {
                'files': sum(map(len, self._copies.values())),
                'across_splits': len(across),
                'examples': [
                    [dict(zip(('file', 'split'), place, strict=True)) for place in self._places(digest)]
                    for digest in sorted(self._copies, key=lambda d: self._files[d] not in across)[:_EXAMPLES]
                ],
            },
            'warnings': [warning] if across else [],
            'notes': [f'{count} clips: {note}' for note, count in sorted(self._notes.items())],
        }

    def _add_hash(self, outcome: Outcome) -> None:
        digest = bytes.fromhex(outcome.source_hash)[:16]
        first = self._files.setdefault(digest, (outcome.file, outcome.split))
        if first != (outcome.file, outcome.split):
            self._copies.setdefault(digest, {})[outcome.file] = outcome.split

    def _places(self, digest: bytes) -> Sequence[tuple[str, str]]:
        return [self._files[digest], *self._copies[digest].items()]


def kind(reason: str) -> str:
    """A reason for refusal without its details, which follow a colon."""
    return reason.partition(':')[0]


def manifest_line(outcome: Outcome) -> str:
    """The line of a clip in the manifest."""
    values = {
        'id': outcome.id,
        'split': outcome.split,
        'file': outcome.file,
        'source_hash': outcome.source_hash,
        'seconds': outcome.seconds,
        'bytes': outcome.num_bytes,
        'refused': outcome.reason or None,
    }
    return json.dumps(values) + '\n'
