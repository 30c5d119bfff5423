"""Examples to look at: reconstructions stage by stage, and retrievals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import ClipSource
from diffmavil_jax.data.pipeline import stack
from diffmavil_jax.evaluation.held_out import Network, batches
from diffmavil_jax.evaluation.retrieval import cosine, nearest, ranks
from diffmavil_jax.models.patches import unpatchify_audio, unpatchify_video
from diffmavil_jax.models.pretraining import MODALITIES, View
from diffmavil_jax.parallel import hosts

Pictures = dict[str, Float[np.ndarray, '...']]


@dataclasses.dataclass(frozen=True)
class Shown:
    """One clip and modality on its way through the network: log-mel [t f] or frames [t h w 3] in 0..1.

    `masked` is NaN where hidden; `start` has the diffused patches there, or is None.
    """

    target: np.ndarray
    masked: np.ndarray
    prediction: np.ndarray
    start: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Match:
    """A query's best candidates by position among the clips, with their scores, and the true one's rank."""

    query: int
    candidates: list[int]
    scores: list[float]
    true_rank: int


def reconstructions(
    network: Network, params: Any, source: ClipSource, indices: Sequence[int]
) -> list[tuple[str, dict[str, Shown]]]:
    """(clip id, modality -> pictures) of held-out clips, in the units of people."""
    examples = []
    size = network.config.evaluation.batch_size
    for batch, clips in batches(source, indices, size, network.config.data.threads):
        result = hosts.fetch(network.reconstruct(params, batch))
        for row, clip in enumerate(clips):
            shown = {m: show(network.config, m, result, row) for m in MODALITIES}
            examples.append((clip['id'], shown))
    return examples


def matches(
    queries: Float[np.ndarray, 'n d'], targets: Float[np.ndarray, 'n d'], chosen: Sequence[int], k: int
) -> list[Match]:
    """The k best targets of some queries."""
    scores = cosine(queries, targets)
    best, rank = nearest(scores, k), ranks(queries, targets)
    return [Match(q, best[q].tolist(), [float(scores[q, c]) for c in best[q]], int(rank[q])) for q in chosen]


def clip_pictures(network: Network, source: ClipSource, index: int) -> Pictures:
    """A clip as people see it: its log-mel [t f] and its frames [t h w 3] in 0..1."""
    clip = source[index]
    batch = stack([clip])
    audio = network.spectrogram(batch['waveform'])
    return {'audio': _log_mel(np.asarray(audio)[0], network.config), 'video': clip['frames'] / 255.0}


def show(config: Config, modality: str, result: Mapping[str, Any], row: int) -> Shown:
    """A clip of one modality in the units of people, of what `Network.reconstruct` gives for a batch."""
    view: View = result['views'][modality]
    decoded, clean = np.asarray(view.decoded)[row], np.asarray(view.patches)[row]

    visible = np.asarray(view.visible)[row]

    def with_patches(values: Any) -> np.ndarray:
        patches = np.full_like(clean, np.nan)
        patches[visible] = clean[visible]
        patches[decoded] = values
        return _picture(config, modality, patches)

    return Shown(
        target=_picture(config, modality, clean),
        masked=with_patches(np.nan),
        prediction=with_patches(result['prediction'][modality][row]),
        start=None if view.noisy is None else with_patches(view.noisy[row]),
    )


def _picture(config: Config, modality: str, patches: Float[np.ndarray, 'n p']) -> np.ndarray:
    rows = jnp.asarray(patches)[None]
    if modality == 'audio':
        return _log_mel(np.asarray(unpatchify_audio(rows, config.audio.grid, config.audio.patch))[0], config)
    video = config.video
    frames = np.asarray(unpatchify_video(rows, config.video_grid, video.patch_frames, video.patch))[0]
    return np.clip(frames * np.asarray(video.std) + np.asarray(video.mean), 0.0, 1.0)


def _log_mel(normalized: np.ndarray, config: Config) -> np.ndarray:
    front_end = config.audio.normalization
    return normalized * (front_end.divisor * front_end.std) + front_end.mean
