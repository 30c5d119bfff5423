"""The plan: buckets without gaps, static shapes, and everything keyed on samples seen."""

import itertools

import pytest

from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.plan.buckets import (
    counts_at,
    learning_rate_scale,
    make_plan,
    mask_ratio,
    visible_tokens,
)
from diffmavil_jax.plan.macs import macs_per_clip
from diffmavil_jax.plan.table import plan_rows, plan_table

# The paper's shapes: 512 audio and 784 video tokens, ViT-B.
PAPER = {
    'data': {'source': 'tfds', 'seconds': 10.0, 'frames': 8, 'frame_size': 224},
    'audio': {'num_frames': 1024, 'num_mel_bins': 128},
    'train': {'samples': 100_000},
    'batch': {'size': 512, 'max_size': 2048, 'rule': 'visible_tokens', 'multiple': 8},
}


def paper(**changes) -> Config:
    values = {name: dict(part) for name, part in PAPER.items()}
    for name, change in changes.items():
        values[name] = values.get(name, {}) | change
    return from_dict(values)


CASES = {
    'default': {},
    'cosine': {'masking': {'curriculum': 'cosine', 'buckets': 7}},
    'fixed': {'masking': {'curriculum': 'none'}, 'batch': {'rule': 'fixed'}},
    'macs': {'batch': {'rule': 'macs'}},
    'odd total': {'train': {'samples': 77_777}},
    'coarse tokens': {'masking': {'token_multiple': 16, 'buckets': 9}},
    'rising': {'masking': {'start_ratio': 0.8, 'end_ratio': 0.9}},
    'rising, cosine, macs': {
        'masking': {'start_ratio': 0.6, 'end_ratio': 0.9, 'curriculum': 'cosine', 'buckets': 7},
        'batch': {'rule': 'macs'},
    },
    'one bucket': {'masking': {'buckets': 1}},
    'more buckets than steps': {'train': {'samples': 3_000}, 'masking': {'buckets': 20}},
}


@pytest.mark.parametrize('case', CASES)
def test_buckets_have_no_gaps_and_hold_whole_batches_of_integers(case):
    config = paper(**CASES[case])
    plan = make_plan(config)
    assert plan.buckets[0].first_sample == 0
    for before, after in itertools.pairwise(plan.buckets):
        assert before.last_sample == after.first_sample
        # Neighbours with the same shapes are merged.
        assert (before.audio_tokens, before.video_tokens, before.batch_size) != (
            after.audio_tokens,
            after.video_tokens,
            after.batch_size,
        )
    for bucket in plan.buckets:
        assert bucket.steps >= 1
        assert bucket.last_sample - bucket.first_sample == bucket.steps * bucket.batch_size
        assert bucket.batch_size % config.batch.multiple == 0
        assert bucket.batch_size <= config.batch.max_size
        for tokens, decoded, total in (
            (bucket.audio_tokens, bucket.audio_decoded, 512),
            (bucket.video_tokens, bucket.video_decoded, 784),
        ):
            assert type(tokens) is int
            assert type(decoded) is int
            assert 1 <= tokens < total
            assert decoded == total - tokens
        assert type(bucket.batch_size) is int
        assert bucket.macs_per_clip == macs_per_clip(config, bucket.audio_tokens, bucket.video_tokens).total
    largest = max(bucket.batch_size for bucket in plan.buckets)
    assert abs(plan.total_samples - config.train.samples) <= largest / 2
    assert plan.total_steps == sum(bucket.steps for bucket in plan.buckets)


def test_ratios_fall_from_near_09_to_near_08_evenly_around_their_mean():
    plan = make_plan(paper())
    ratios = [bucket.mask_ratio for bucket in plan.buckets]
    assert ratios == pytest.approx([0.89, 0.87, 0.85, 0.83, 0.81])
    shares = [(b.last_sample - b.first_sample) / plan.total_samples for b in plan.buckets]
    assert sum(r * s for r, s in zip(ratios, shares, strict=True)) == pytest.approx(0.85, abs=1e-3)
    assert [b.audio_tokens for b in plan.buckets] == [56, 67, 77, 87, 97]  # (1 - ratio) * 512
    assert [b.video_tokens for b in plan.buckets] == [86, 102, 118, 133, 149]  # (1 - ratio) * 784


def test_curricula():
    linear, cosine, none = (paper(masking={'curriculum': c}) for c in ('linear', 'cosine', 'none'))
    for config in (linear, cosine):
        assert mask_ratio(0.0, config) == pytest.approx(0.9)
        assert mask_ratio(0.5, config) == pytest.approx(0.85)
        assert mask_ratio(1.0, config) == pytest.approx(0.8)
    assert mask_ratio(0.25, linear) == pytest.approx(0.875)
    assert mask_ratio(0.25, cosine) == pytest.approx(0.9 - 0.1 * (1 - 2**-0.5) / 2)
    assert [mask_ratio(p, none) for p in (0.0, 0.3, 1.0)] == [0.8, 0.8, 0.8]
    (bucket,) = make_plan(none).buckets
    assert (bucket.mask_ratio, bucket.audio_tokens, bucket.video_tokens, bucket.batch_size) == (
        0.8,
        102,
        157,
        512,
    )


def test_the_rule_fixed_keeps_the_batch():
    assert {b.batch_size for b in make_plan(paper(batch={'rule': 'fixed'})).buckets} == {512}


def test_the_rule_visible_tokens_keeps_batch_times_visible_tokens():
    config = paper(batch={'multiple': 1})
    reference = 512 * (102 + 157)
    plan = make_plan(config)
    for b in plan.buckets:
        tokens = b.audio_tokens + b.video_tokens
        assert abs(b.batch_size * tokens - reference) <= tokens / 2
    sizes = [b.batch_size for b in plan.buckets]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.7 * sizes[-1]


def test_the_rule_macs_keeps_the_macs_of_a_step():
    config = paper(batch={'rule': 'macs', 'multiple': 1})
    reference = 512 * macs_per_clip(config, 102, 157).total
    plan = make_plan(config)
    for b in plan.buckets:
        assert abs(b.batch_size * b.macs_per_clip - reference) <= b.macs_per_clip / 2
    assert plan.buckets[0].batch_size > plan.buckets[-1].batch_size > 512


def test_batches_are_whole_multiples_below_the_limit():
    plan = make_plan(paper(batch={'size': 520, 'multiple': 40, 'max_size': 650}))
    sizes = [b.batch_size for b in plan.buckets]
    assert all(size % 40 == 0 for size in sizes)
    assert sizes[0] == 640  # without the limit it would be above 900
    assert sizes[-1] >= 520


def test_neighbours_with_the_same_shapes_become_one(tiny):
    # 4 audio and 8 video tokens: most ratios round to the same numbers.
    plan = make_plan(tiny(masking={'buckets': 12}, batch={'rule': 'fixed'}, train={'samples': 9_600}))
    shapes = [(b.audio_tokens, b.video_tokens) for b in plan.buckets]
    assert len(shapes) == len(set(shapes)) < 6
    assert plan.total_samples == 9_600
    assert plan.buckets[0].steps > 100


def test_visible_tokens_are_multiples_and_leave_one_to_see_and_one_to_mask():
    assert visible_tokens(512, 0.8, 1) == 102
    assert visible_tokens(512, 0.8, 16) == 96
    assert visible_tokens(512, 0.8, 128) == 128
    assert visible_tokens(10, 0.999, 1) == 1
    assert visible_tokens(10, 0.999, 4) == 4
    assert visible_tokens(10, 0.001, 1) == 9
    plan = make_plan(paper(masking={'token_multiple': 16}))
    assert all(b.audio_tokens % 16 == b.video_tokens % 16 == 0 for b in plan.buckets)


def test_counts_at_decode_a_share_of_what_is_masked():
    assert counts_at(paper(), 0.8) == {'audio': (102, 410), 'video': (157, 627)}
    half = paper(model={'audio_decoder': 'cross', 'video_decoder': 'cross', 'decoded_fraction': 0.5})
    assert counts_at(half, 0.8) == {'audio': (102, 205), 'video': (157, 314)}


def test_batch_sizes_from_continues_at_any_whole_batch():
    plan = make_plan(paper(train={'samples': 20_000}))
    sizes = list(plan.batch_sizes_from(0))
    assert sizes == [b.batch_size for b in plan.buckets for _ in range(b.steps)]
    starts = [0, *itertools.accumulate(sizes)]
    assert starts[-1] == plan.total_samples
    for index, start in enumerate(starts):
        assert list(plan.batch_sizes_from(start)) == sizes[index:]


def test_index_at_is_the_bucket_of_the_next_batch():
    plan = make_plan(paper())
    for index, bucket in enumerate(plan.buckets):
        assert plan.index_at(bucket.first_sample) == index
        assert plan.index_at(bucket.last_sample - 1) == index
    assert plan.index_at(plan.total_samples) == len(plan.buckets) - 1


@pytest.mark.parametrize(('rule', 'scale'), [('none', 1.0), ('sqrt', 2.0), ('linear', 4.0)])
def test_the_learning_rate_follows_the_batch(rule, scale):
    config = paper(batch={'lr_scaling': rule})
    assert learning_rate_scale(2_048, config) == pytest.approx(scale)
    assert learning_rate_scale(512, config) == 1.0


@pytest.mark.parametrize('samples', [1, 7, 500, 513])
def test_a_tiny_total_is_still_one_step(samples):
    plan = make_plan(paper(train={'samples': samples}))
    assert plan.total_steps >= 1
    assert plan.total_samples == sum(plan.batch_sizes_from(0))
    assert plan.total_samples <= 1_024


@pytest.mark.parametrize('curriculum', ['linear', 'cosine'])
@pytest.mark.parametrize('rule', ['visible_tokens', 'macs'])
def test_a_rising_ratio_is_the_falling_one_from_its_end(curriculum, rule):
    def plan(start, end):
        masking = {'start_ratio': start, 'end_ratio': end, 'curriculum': curriculum}
        return make_plan(paper(masking=masking, batch={'rule': rule}))

    rising, falling = plan(0.8, 0.9), plan(0.9, 0.8)
    tokens = [(b.audio_tokens, b.video_tokens) for b in rising.buckets]
    assert tokens == [(b.audio_tokens, b.video_tokens) for b in reversed(falling.buckets)]
    sizes = [b.batch_size for b in rising.buckets]
    assert tokens == sorted(tokens, reverse=True) and sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert sizes[-1] <= 512  # batch.size is that of the end ratio
    assert rising.saved == pytest.approx(falling.saved, abs=0.02)


def test_a_rising_run_goes_on_where_it_stopped():
    plan = make_plan(paper(masking={'start_ratio': 0.8, 'end_ratio': 0.9}))
    sizes, seen = list(plan.batch_sizes_from(0)), 0
    for index, size in enumerate(sizes):
        if index % 40 == 0:
            assert list(plan.batch_sizes_from(seen)) == sizes[index:]
        seen += size
    assert seen == plan.total_samples


def test_saved_is_against_mavil_at_equal_clips():
    mavil = paper(
        diffusion={'enabled': False},
        model={'video_decoder': 'self'},
        masking={'curriculum': 'none'},
        batch={'rule': 'fixed'},
    )
    assert make_plan(mavil).saved == pytest.approx(0.0, abs=1e-12)
    plan = make_plan(paper())
    clips = sum(b.steps * b.batch_size * b.macs_per_clip for b in plan.buckets)
    assert plan.macs == clips
    assert plan.baseline_macs_per_clip == make_plan(mavil).buckets[0].macs_per_clip
    assert plan.saved == pytest.approx(1 - clips / (plan.total_samples * plan.baseline_macs_per_clip))
    assert 0.2 < plan.saved < 0.6


def test_the_table_shows_each_bucket_and_the_total():
    config = paper()
    plan = make_plan(config)
    lines = plan_table('some name', plan, 512, 784).splitlines()
    assert lines[0].startswith('some name: 5 buckets')
    assert {'512', '784'} <= set(lines[0].replace(',', ' ').split())
    assert lines[1].split('  ')[0].strip() == 'first sample'
    for line, bucket, row in zip(lines[2:7], plan.buckets, plan_rows(plan), strict=True):
        cells = line.split()
        assert cells[:7] == [
            f'{bucket.first_sample:,}',
            f'{bucket.last_sample:,}',
            f'{bucket.steps:,}',
            f'{bucket.batch_size:,}',
            f'{bucket.mask_ratio:.3f}',
            str(bucket.audio_tokens),
            str(bucket.video_tokens),
        ]
        assert row['saved'] == pytest.approx(1 - bucket.macs_per_clip / plan.baseline_macs_per_clip)
        assert line.endswith(f'{100 * row["saved"]:.1f} %')
        assert row['macs'] == bucket.macs_per_clip * bucket.steps * bucket.batch_size
    assert lines[7].split()[:3] == ['total', f'{plan.total_samples:,}', f'{plan.total_steps:,}']
    assert lines[7].endswith(f'{100 * plan.saved:.1f} %')
    assert 'G a clip' in lines[8]
