"""The plan of a run: a config becomes a list of buckets with static shapes.

Everything is keyed on samples seen. A bucket is a stretch of training with one mask
ratio: it has one number of visible tokens, one batch size and one compiled step. The
trainer, the counts of MACs, `--plan` and the tests read this list. Nothing here needs JAX.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from diffmavil_jax.config.schema import Config
from diffmavil_jax.plan.macs import MAVIL, classifier_macs, decoded_tokens, macs_per_clip, mavil_baseline


@dataclasses.dataclass(frozen=True)
class Bucket:
    """One stretch of training: samples seen from `first_sample` up to, but not including, `last_sample`."""

    first_sample: int
    last_sample: int
    mask_ratio: float
    audio_tokens: int  # visible
    video_tokens: int  # visible
    batch_size: int
    steps: int
    audio_decoded: int
    video_decoded: int
    macs_per_clip: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The buckets of a run, in order and without gaps."""

    buckets: tuple[Bucket, ...]
    baseline_macs_per_clip: int
    baseline: str  # the baseline in words

    @property
    def total_samples(self) -> int:
        return self.buckets[-1].last_sample

    @property
    def total_steps(self) -> int:
        return sum(bucket.steps for bucket in self.buckets)

    @property
    def macs(self) -> int:
        return sum(b.macs_per_clip * (b.last_sample - b.first_sample) for b in self.buckets)

    @property
    def saved(self) -> float:
        """Share of the baseline's multiply-accumulates that the run saves for the same number of clips."""
        return 1 - self.macs / (self.baseline_macs_per_clip * self.total_samples)

    def batch_sizes_from(self, samples_seen: int) -> Iterator[int]:
        """The sizes of the batches that follow; the samples seen are whole batches."""
        while samples_seen < self.total_samples:
            size = self.buckets[self.index_at(samples_seen)].batch_size
            yield size
            samples_seen += size

    def index_at(self, samples_seen: int) -> int:
        """The index of the bucket with the batch after `samples_seen`; at the end, that of the last one."""
        for index, bucket in enumerate(self.buckets):
            if samples_seen < bucket.last_sample:
                return index
        return len(self.buckets) - 1


def make_plan(config: Config) -> Plan:
    """The buckets of a run. A classifier has a single one."""
    return _classification_plan(config) if config.objective == 'classification' else _curriculum_plan(config)


def kept_lines(config: Config) -> tuple[int, int]:
    """How many columns (time) and rows (frequency) of the audio tokens the masks of a classifier leave."""
    time, frequency = config.audio.grid
    return (
        max(1, round(time * (1 - config.finetune.time_mask))),
        max(1, round(frequency * (1 - config.finetune.frequency_mask))),
    )


def _classification_plan(config: Config) -> Plan:
    """One bucket for the whole run, rounded to whole batches."""
    finetune, batch_size = config.finetune, config.batch.size
    hears, sees = 'audio' in finetune.modalities, 'video' in finetune.modalities
    audio = math.prod(kept_lines(config)) if hears else 0
    video = max(1, round(config.video_tokens * (1 - finetune.video_mask))) if sees else 0
    whole_audio, whole_video = config.audio.num_tokens if hears else 0, config.video_tokens if sees else 0
    steps = max(1, round(config.train.samples / batch_size))
    bucket = Bucket(
        first_sample=0,
        last_sample=steps * batch_size,
        mask_ratio=1 - (audio + video) / (whole_audio + whole_video),
        audio_tokens=audio,
        video_tokens=video,
        batch_size=batch_size,
        steps=steps,
        audio_decoded=0,
        video_decoded=0,
        macs_per_clip=classifier_macs(config, audio, video),
    )
    return Plan((bucket,), classifier_macs(config, whole_audio, whole_video), 'the same without masks')


def _curriculum_plan(config: Config) -> Plan:
    """Divides training into `masking.buckets` equal stretches, each with one mask ratio.

    The ratio is the curriculum's at the middle of the stretch. Stretches are rounded to whole batches, so
    the total may differ from `train.samples` by up to half a batch. A stretch of less than half a batch is
    left out, but for a run that would have no step at all. Neighbours with the same shapes become one bucket.
    """
    count = config.masking.stretches
    buckets: list[Bucket] = []
    seen = 0
    for index in range(count):
        bucket = _bucket_of_stretch(config, index, seen)
        end = config.train.samples * (index + 1) / count
        steps = round((end - seen) / bucket.batch_size)
        if index == count - 1 and not buckets:
            steps = max(1, steps)
        if steps >= 1:
            seen += steps * bucket.batch_size
            buckets.append(dataclasses.replace(bucket, steps=steps, last_sample=seen))
    return Plan(tuple(_merge(buckets)), _baseline_macs(config), MAVIL)


def visible_at_stretches(config: Config) -> list[tuple[int, int]]:
    """Visible (audio, video) tokens at each mask ratio of the curriculum, in order."""
    return [_visible(config, _stretch_ratio(config, index)) for index in range(config.masking.stretches)]


def mask_ratio(progress: float, config: Config) -> float:
    """The curriculum's mask ratio after a share of training from 0 to 1."""
    masking = config.masking
    if masking.curriculum == 'none':
        return masking.end_ratio
    if masking.curriculum == 'cosine':
        progress = (1 - math.cos(math.pi * progress)) / 2
    return masking.start_ratio + progress * (masking.end_ratio - masking.start_ratio)


def visible_tokens(tokens: int, ratio: float, multiple: int) -> int:
    """(1 - ratio) of the tokens, rounded to a multiple, leaving at least one visible and one masked."""
    rounded = multiple * round((1 - ratio) * tokens / multiple)
    return min(max(rounded, multiple, 1), tokens - 1)


def counts_at(config: Config, ratio: float) -> dict[str, tuple[int, int]]:
    """(visible, decoded) tokens of each modality at a mask ratio."""
    audio, video = _visible(config, ratio)
    return {
        'audio': (audio, decoded_tokens(config, config.audio.num_tokens, audio)),
        'video': (video, decoded_tokens(config, config.video_tokens, video)),
    }


def learning_rate_scale(batch_size: int, config: Config) -> float:
    """The factor of the learning rate for a batch that differs from `batch.size`."""
    exponent = {'none': 0.0, 'sqrt': 0.5, 'linear': 1.0}[config.batch.lr_scaling]
    return (batch_size / config.batch.size) ** exponent


def _stretch_ratio(config: Config, index: int) -> float:
    """The mask ratio at the middle of a stretch."""
    return mask_ratio((index + 0.5) / config.masking.stretches, config)


def _bucket_of_stretch(config: Config, index: int, first_sample: int) -> Bucket:
    """The bucket of a stretch, without steps yet."""
    ratio = _stretch_ratio(config, index)
    (audio, audio_decoded), (video, video_decoded) = counts_at(config, ratio).values()
    return Bucket(
        first_sample=first_sample,
        last_sample=first_sample,
        mask_ratio=ratio,
        audio_tokens=audio,
        video_tokens=video,
        batch_size=_batch_size(config, audio, video, index),
        steps=0,
        audio_decoded=audio_decoded,
        video_decoded=video_decoded,
        macs_per_clip=macs_per_clip(config, audio, video).total,
    )


def _visible(config: Config, ratio: float) -> tuple[int, int]:
    """Visible (audio, video) tokens at a mask ratio."""
    multiple = config.masking.token_multiple
    return (
        visible_tokens(config.audio.num_tokens, ratio, multiple),
        visible_tokens(config.video_tokens, ratio, multiple),
    )


def _batch_size(config: Config, audio: int, video: int, index: int) -> int:
    """The batch of a stretch with so many visible tokens; for the rules, see `BatchConfig`."""
    batch = config.batch
    if batch.rule == 'listed':
        return batch.sizes[index]
    # The batch costs as much as batch.size clips do at the end ratio.
    end_cost = _clip_cost(config, *_visible(config, config.masking.end_ratio))
    clips = batch.size * (end_cost / _clip_cost(config, audio, video))
    size = batch.multiple * round(clips / batch.multiple)
    largest = batch.max_size - batch.max_size % batch.multiple
    return max(batch.multiple, min(size, largest))


def _clip_cost(config: Config, audio: int, video: int) -> int:
    """The cost of a clip with so many visible tokens, as the batch rule measures it."""
    if config.batch.rule == 'visible_tokens':
        return audio + video
    if config.batch.rule == 'macs':
        return macs_per_clip(config, audio, video).total
    return 1  # fixed


def _merge(buckets: list[Bucket]) -> list[Bucket]:
    """Joins neighbours with the same shapes."""
    merged: list[Bucket] = []
    for bucket in buckets:
        if merged and _shapes(merged[-1]) == _shapes(bucket):
            steps = merged[-1].steps + bucket.steps
            merged[-1] = dataclasses.replace(merged[-1], last_sample=bucket.last_sample, steps=steps)
        else:
            merged.append(bucket)
    return merged


def _shapes(bucket: Bucket) -> tuple[int, int, int]:
    return bucket.audio_tokens, bucket.video_tokens, bucket.batch_size


def _baseline_macs(config: Config) -> int:
    """MACs of a clip of `mavil_baseline`."""
    baseline = mavil_baseline(config)
    return macs_per_clip(baseline, *_visible(baseline, baseline.masking.end_ratio)).total
