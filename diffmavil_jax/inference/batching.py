"""How windows of files become batches of a few sizes, and features return in the order of the windows."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from diffmavil_jax.data.clip import ARRAYS, Refusal
from diffmavil_jax.data.windows import Window
from diffmavil_jax.inference.features import FEATURES, Embeddings

Batch = Mapping[str, np.ndarray]


class Batcher:
    """Computes features of windows in batches; a batch has windows of the same modalities."""

    def __init__(self, compute: Callable[[Batch], dict[str, jax.Array]], batch_size: int) -> None:
        self._compute, self._sizes = compute, bucket_sizes(batch_size)
        self._ids: list[str] = []
        self._times: list[tuple[float, float]] = []
        self._has: list[tuple[bool, bool]] = []
        self._waiting: dict[tuple[bool, bool], list[tuple[int, Window]]] = {}
        self._running: collections.deque[tuple[list[int], dict[str, jax.Array]]] = collections.deque()
        self._done: list[tuple[list[int], dict[str, np.ndarray]]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, window: Window) -> None:
        """Takes a window, and starts the computation of its batch if that is full."""
        has = window.waveform is not None, window.frames is not None
        waiting = self._waiting.setdefault(has, [])
        waiting.append((len(self), window))
        self._ids.append(window.id)
        self._times.append((window.start_s, window.end_s))
        self._has.append(has)
        if len(waiting) == self._sizes[-1]:
            self._start(waiting)

    def close(self) -> None:
        """Waits for what is being computed: an interpreter that exits before that may crash."""
        jax.block_until_ready([features for _, features in self._running])

    def finish(self, refused: Sequence[Refusal]) -> Embeddings:
        """The features of all windows, in the order in which they were added.

        A window whose features are not finite is refused, and has no row.
        """
        for waiting in self._waiting.values():
            if waiting:
                self._start(waiting)
        while self._running:
            self._fetch()
        start_s, end_s = np.array(self._times, np.float64).reshape(-1, 2).T
        has_audio, has_video = np.array(self._has, bool).reshape(-1, 2).T
        embeddings = Embeddings(
            self._ids,
            start_s,
            end_s,
            has_audio=has_audio,
            has_video=has_video,
            refused=list(refused),
            **{kind: self._rows(kind) for kind in FEATURES},
        )
        return embeddings.only_finite()

    def _start(self, waiting: list[tuple[int, Window]]) -> None:
        """Computes a batch of the waiting windows, filled up to one of the sizes with copies of the last."""
        rows, windows = [row for row, _ in waiting], [window for _, window in waiting]
        waiting.clear()
        size = next(size for size in self._sizes if size >= len(rows))
        windows += windows[-1:] * (size - len(rows))
        batch = {
            name: np.stack([getattr(window, name) for window in windows])
            for name in ARRAYS.values()
            if getattr(windows[0], name) is not None
        }
        if 'waveform' in batch:
            batch['samples'] = np.array([window.samples for window in windows], np.int32)
        self._running.append((rows, self._compute(batch)))
        # One batch is computed while the next is collected.
        if len(self._running) > 1:
            self._fetch()

    def _fetch(self) -> None:
        rows, features = self._running.popleft()
        self._done.append((rows, {kind: x[: len(rows)] for kind, x in jax.device_get(features).items()}))

    def _rows(self, kind: str) -> np.ndarray | None:
        """All rows of a kind of feature, zero where a window lacks it; None if all windows do."""
        parts = [(rows, features[kind]) for rows, features in self._done if kind in features]
        if not parts:
            return None
        array = np.zeros((len(self), *parts[0][1].shape[1:]), np.float32)
        for rows, part in parts:
            array[rows] = part
        return array


def bucket_sizes(batch_size: int) -> tuple[int, ...]:
    """The batch sizes that may be compiled: powers of 4, and the largest."""
    return (*(size for k in range(16) if (size := 4**k) < batch_size), batch_size)
