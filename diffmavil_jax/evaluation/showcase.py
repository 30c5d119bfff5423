"""Examples for the report: clips reconstructed stage by stage, and queries with their best matches."""

from __future__ import annotations

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
from diffmavil_jax.models.pretraining import View
from diffmavil_jax.parallel import hosts
from diffmavil_jax.report.content import DIRECTIONS, Match, Reconstruction, RetrievalExample, Stages

Pictures = dict[str, Float[np.ndarray, '...']]


def reconstructions(
    network: Network, params: Any, source: ClipSource, indices: Sequence[int]
) -> list[Reconstruction]:
    """Clips of a held-out source, hidden in part and filled in by the network."""
    config = network.config
    examples = []
    for batch, clips in batches(source, indices, config.evaluation.batch_size, config.data.threads):
        result = hosts.fetch(network.reconstruct(params, batch))
        for row, clip in enumerate(clips):
            audio, video = (stages(config, modality, result, row) for modality in ('audio', 'video'))
            examples.append(
                Reconstruction(id=clip['id'], audio=audio, video=video, seconds=config.data.seconds)
            )
    return examples


def retrievals(
    network: Network,
    source: ClipSource,
    clips: Sequence[int],
    features: Mapping[str, Float[np.ndarray, 'n d']],
    queries: Sequence[int],
    count: int,
) -> list[RetrievalExample]:
    """The best matches of some queries, first from sound to picture, then from picture to sound.

    Args:
        network: whose front end draws the clips.
        source: of held-out clips.
        clips: the n candidates, as indices into the source.
        features: of the candidates, by modality.
        queries: which candidates ask, as positions in `clips`.
        count: of matches of each query.
    """
    examples = []
    for direction in DIRECTIONS:
        asked, answer = direction.split(' to ')
        scores = cosine(features[asked], features[answer])
        best, rank = nearest(scores, count), ranks(features[asked], features[answer])
        for query in queries:
            found = best[query].tolist()
            pictures = {i: clip_pictures(network, source, clips[i]) for i in {query, *found}}
            matches = [Match(pictures[i][answer], float(scores[query, i]), i == query) for i in found]
            examples.append(
                RetrievalExample(
                    direction=direction,
                    query=pictures[query][asked],
                    matches=matches,
                    true_rank=int(rank[query]),
                )
            )
    return examples


def clip_pictures(network: Network, source: ClipSource, index: int) -> Pictures:
    """The log-mel [t f] and the frames [t h w 3], in 0..1, of a clip."""
    clip = source[index]
    batch = stack([clip])
    audio = network.spectrogram(batch['waveform'])
    return {'audio': _log_mel(np.asarray(audio)[0], network.config), 'video': clip['frames'] / 255.0}


def stages(config: Config, modality: str, result: Mapping[str, Any], row: int) -> Stages:
    """One modality of one clip, stage by stage: log-mel [t f], or frames [t h w 3] in 0..1.

    Args:
        config: of the network.
        modality: `audio` or `video`.
        result: what `Network.reconstruct` returns for a batch.
        row: of the clip in the batch.
    """
    view: View = result['views'][modality]
    decoded, clean = np.asarray(view.decoded)[row], np.asarray(view.patches)[row]

    visible = np.asarray(view.visible)[row]

    def with_patches(values: Any) -> np.ndarray:
        patches = np.full_like(clean, np.nan)
        patches[visible] = clean[visible]
        patches[decoded] = values
        return _picture(config, modality, patches)

    return Stages(
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
