"""Clips that lack a modality, among clips that have both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from diffmavil_jax.data.clip import ARRAYS, MODALITIES, Clip, ClipSource, ClipSpec, Refusal


class Completed:
    """A source with silence for the sound, and black for the pictures, that its clips lack (a ClipSource).

    `present` of a clip says what is its own. Nothing may be learned from what stands in, and
    nothing measured on it.
    """

    modalities = MODALITIES

    def __init__(self, source: ClipSource, spec: ClipSpec) -> None:
        self._source, self._spec = source, spec
        self.name, self.label_names = source.name, source.label_names
        self.multi_label = source.multi_label

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        clip = self._source[index].copy()
        clip['present'] = np.array([ARRAYS[m] in clip for m in MODALITIES], np.float32)
        size = self._spec.frame_size
        clip.setdefault('waveform', np.zeros(self._spec.num_samples, np.int16))
        clip.setdefault('frames', np.zeros((self._spec.frames, size, size, 3), np.uint8))
        return clip

    def refused(self) -> list[Refusal]:
        return self._source.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._source.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        return self._source.factors(index)

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        return self._source.labels(index)
