"""The plan: a config becomes a list of buckets with static shapes.

Everything is keyed on samples seen. A bucket is a stretch of training with one mask
ratio, hence one number of visible tokens, one batch size and one compiled step. The
trainer, the accounts, `--plan` and the tests all read this list; nothing here needs JAX.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from diffmavil_jax.config.schema import Config
from diffmavil_jax.plan.macs import (
    classifier_macs,
    decoded_tokens,
    macs_per_clip,
    mavil_baseline,
)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """One stretch of training; samples seen run from `first_sample` up to, not including, `last_sample`."""

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
    baseline: str  # what that is, in words

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
        """Share of the baseline's multiply-accumulates that the run saves at equal clips."""
        return 1 - self.macs / (self.baseline_macs_per_clip * self.total_samples)

    def batch_sizes_from(self, samples_seen: int) -> Iterator[int]:
        """The size of each batch that is still to come; whole batches have been seen."""
        while samples_seen < self.total_samples:
            size = self.buckets[self.index_at(samples_seen)].batch_size
            yield size
            samples_seen += size

    def index_at(self, samples_seen: int) -> int:
        """The bucket that trains the next batch after `samples_seen`; the last one at the end."""
        for index, bucket in enumerate(self.buckets):
            if samples_seen < bucket.last_sample:
                return index
        return len(self.buckets) - 1


def make_plan(config: Config) -> Plan:
    """The buckets of a run; a classifier's is a single one."""
    return _classification_plan(config) if config.objective == 'classification' else _curriculum_plan(config)


def _classification_plan(config: Config) -> Plan:
    finetune, batch = config.finetune, config.batch.size
    has = {m: m in finetune.modalities for m in ('audio', 'video')}
    audio = math.prod(finetune.kept_lines(config.audio.grid)) if has['audio'] else 0
    video = finetune.kept_video(config.video_tokens) if has['video'] else 0
    whole = (config.audio.num_tokens if has['audio'] else 0, config.video_tokens if has['video'] else 0)
    steps = max(1, round(config.train.samples / batch))
    bucket = Bucket(
        first_sample=0,
        last_sample=steps * batch,
        mask_ratio=1 - (audio + video) / sum(whole),
        audio_tokens=audio,
        video_tokens=video,
        batch_size=batch,
        steps=steps,
        audio_decoded=0,
        video_decoded=0,
        macs_per_clip=classifier_macs(config, audio, video),
    )
    return Plan((bucket,), classifier_macs(config, *whole), 'the same without masks')


def _curriculum_plan(config: Config) -> Plan:
    """Divides training into `masking.buckets` equal stretches with the curriculum's ratio amid each.

    Stretches are rounded to whole batches, so the total may differ from `train.samples`
    by up to half a batch. Neighbours with the same shapes become one bucket.
    """
    count = config.masking.stretches
    buckets: list[Bucket] = []
    seen = 0
    for index in range(count):
        bucket = _bucket(config, mask_ratio((index + 0.5) / count, config), seen, index)
        steps = round((config.train.samples * (index + 1) / count - seen) / bucket.batch_size)
        if index == count - 1 and not buckets:
            steps = max(1, steps)
        if steps < 1:
            continue
        seen += steps * bucket.batch_size
        buckets.append(dataclasses.replace(bucket, steps=steps, last_sample=seen))
    return Plan(tuple(_merge(buckets)), _baseline_macs(config), 'MAViL at the last mask ratio')


def visible_at_stretches(config: Config) -> list[tuple[int, int]]:
    """Visible tokens of sound and picture at each ratio of the curriculum, in order."""
    count = config.masking.stretches
    return [_visible(config, mask_ratio((index + 0.5) / count, config)) for index in range(count)]


def mask_ratio(progress: float, config: Config) -> float:
    """The curriculum's mask ratio at a share of training from 0 to 1; high first."""
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
    """How much the learning rate follows a batch that differs from `batch.size`."""
    exponent = {'none': 0.0, 'sqrt': 0.5, 'linear': 1.0}[config.batch.lr_scaling]
    return (batch_size / config.batch.size) ** exponent


def _bucket(config: Config, ratio: float, first_sample: int, index: int) -> Bucket:
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
    multiple = config.masking.token_multiple
    return (
        visible_tokens(config.audio.num_tokens, ratio, multiple),
        visible_tokens(config.video_tokens, ratio, multiple),
    )


def _batch_size(config: Config, audio: int, video: int, index: int) -> int:
    """`batch.size` clips at the end ratio; more while a clip is cheaper (rules: `BatchConfig`)."""
    batch = config.batch
    if batch.rule == 'listed':
        return batch.listed[index]
    reference = _visible(config, config.masking.end_ratio)
    growth = {
        'fixed': lambda: 1.0,
        'visible_tokens': lambda: sum(reference) / (audio + video),
        'macs': lambda: macs_per_clip(config, *reference).total / macs_per_clip(config, audio, video).total,
    }[batch.rule]()
    size = batch.multiple * round(batch.size * growth / batch.multiple)
    largest = batch.max_size - batch.max_size % batch.multiple
    return max(batch.multiple, min(size, largest))


def _merge(buckets: list[Bucket]) -> list[Bucket]:
    merged: list[Bucket] = []
    for bucket in buckets:
        shapes = (bucket.audio_tokens, bucket.video_tokens, bucket.batch_size)
        last = merged[-1] if merged else None
        if last and shapes == (last.audio_tokens, last.video_tokens, last.batch_size):
            merged[-1] = dataclasses.replace(
                last, last_sample=bucket.last_sample, steps=last.steps + bucket.steps
            )
        else:
            merged.append(bucket)
    return merged


def _baseline_macs(config: Config) -> int:
    baseline = mavil_baseline(config)
    return macs_per_clip(baseline, *_visible(baseline, baseline.masking.end_ratio)).total
