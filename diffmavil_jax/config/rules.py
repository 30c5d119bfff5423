"""Which values contradict each other; what a value may be by itself stands in its type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffmavil_jax.config.schema import Config


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """The fields to blame, such as `batch.size`, and what each must be."""
    yield from _of_clips(config)
    yield from _of_networks(config)
    yield from _of_training(config)


def _of_clips(config: Config) -> Iterator[tuple[str, str]]:
    data, audio, video = config.data, config.audio, config.video
    if data.weights and (data.source != 'tfds' or len(data.weights) != len(data.datasets)):
        yield 'data.weights', 'one for each dataset of data.path, with data.source=tfds'
    if data.video_seconds > data.seconds:
        yield 'data.video_seconds', f'at most data.seconds ({data.seconds:g}), or 0 for as long as the sound'
    if config.augmentation.roll and config.objective != 'classification' and data.video_span == data.seconds:
        yield (
            'augmentation.roll',
            f'false where pictures last as long as the sound ({data.seconds:g} s), for sound that is rolled '
            'does not fit them; with data.video_seconds below that, no network is told when they begin',
        )
    for split in sorted(set(data.train_split) & set(data.eval_split)):
        yield 'data.eval_split', f'without {split!r}, which is trained on'
    for field, count in (('num_mel_bins', audio.num_mel_bins), ('num_frames', audio.num_frames)):
        if count < 1 or count % audio.patch:
            yield f'audio.{field}', f'a positive multiple of patch ({audio.patch})'
    if data.frame_size % video.patch:
        yield 'data.frame_size', f'a multiple of video.patch ({video.patch})'
    if data.frames % video.patch_frames:
        yield 'data.frames', f'a multiple of video.patch_frames ({video.patch_frames})'


def _of_networks(config: Config) -> Iterator[tuple[str, str]]:
    model, compute, diffusion = config.model, config.compute, config.diffusion
    if model.decoder_width < 1 or model.decoder_width % model.decoder_heads:
        yield 'model.decoder_width', f'a positive multiple of decoder_heads ({model.decoder_heads})'
    if model.decoder_width % 16:
        yield 'model.decoder_width', 'a multiple of 16: positions share it among three axes'
    if model.decoded_fraction < 1 and (model.audio_decoder, model.video_decoder) != ('cross', 'cross'):
        kinds = f'audio_decoder={model.audio_decoder}, video_decoder={model.video_decoder}'
        yield 'model.decoded_fraction', f'1 unless both decoders are cross ({kinds}): others need every token'
    if compute.attention == 'cudnn' and compute.dtype != 'bfloat16':
        yield 'compute.attention', f'xla with dtype={compute.dtype}: cuDNN has no attention in it'
    if not diffusion.enabled and (diffusion.target, diffusion.conditioning) != ('x0', 'none'):
        both = f'target={diffusion.target}, conditioning={diffusion.conditioning}'
        yield 'diffusion.enabled', f'true with {both}; mask tokens have neither'
    if config.loss.inter_both_views and not config.loss.second_view:
        yield 'loss.inter_both_views', 'false without second_view'
    if config.loss.normalize_targets and diffusion.target != 'x0':
        allowed = f'false with diffusion.target={diffusion.target}; only x0 can be normalised'
        yield 'loss.normalize_targets', allowed
    if config.objective == 'stage2' and diffusion.target != 'x0':
        yield 'diffusion.target', 'x0 with objective=stage2: tokens are predicted, not patches'


def _of_training(config: Config) -> Iterator[tuple[str, str]]:
    batch, finetune, parallel = config.batch, config.finetune, config.parallel
    if bool(config.teacher) != (config.objective == 'stage2'):
        yield 'teacher', 'the workdir of a run with objective=stage2, empty with others'
    if batch.size < 1 or batch.size % batch.multiple:
        yield 'batch.size', f'a positive multiple of batch.multiple ({batch.multiple})'
    if batch.max_size < batch.size:
        yield 'batch.max_size', f'a number of at least {batch.size}'
    if bool(batch.sizes) != (batch.rule == 'listed'):
        yield 'batch.sizes', f'one for each bucket with rule=listed, empty with others ({batch.rule})'
    if batch.rule == 'listed' and len(batch.sizes) != config.masking.stretches:
        yield 'batch.sizes', f'{config.masking.stretches} sizes, one for each mask ratio'
    if config.optimizer.warmup_samples > config.train.samples:
        yield 'optimizer.warmup_samples', f'at most train.samples ({config.train.samples})'
    if config.data.source == 'generated' and config.evaluation.retrieval_clips > config.data.eval_clips:
        yield 'evaluation.retrieval_clips', f'at most data.eval_clips ({config.data.eval_clips})'
    galleries = config.data.eval_clips // config.evaluation.retrieval_clips
    if config.data.source == 'generated' and config.evaluation.retrieval_galleries > max(1, galleries):
        yield (
            'evaluation.retrieval_galleries',
            f'at most data.eval_clips / evaluation.retrieval_clips ({max(1, galleries)})',
        )
    if finetune.select == 'best' and not finetune.validation_fraction:
        yield 'finetune.select', "'last' without validation clips (validation_fraction = 0)"
    if finetune.scratch and not config.init:
        yield 'finetune.scratch', 'false without config.init, which says what network is meant'
    if (parallel.data, parallel.fsdp, parallel.tensor).count(-1) > 1:
        yield 'parallel.data', 'at most one axis of -1 among data, fsdp and tensor'
    if parallel.coordinator and parallel.processes < 1:
        yield 'parallel.processes', 'the number of processes, with parallel.coordinator'
    if parallel.coordinator and not 0 <= parallel.process < parallel.processes:
        yield 'parallel.process', f'from 0 to {parallel.processes - 1}, with parallel.coordinator'
