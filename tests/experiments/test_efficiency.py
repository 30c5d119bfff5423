"""`experiments.efficiency`: its rows are the published configs, and its numbers add up."""

import pytest

from configs import diffmavil, diffmavil_cross, diffmavil_fast, mavil
from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.plan.buckets import make_plan
from experiments.efficiency import FAST, TECHNIQUES, make_stages, numbers, picture, table


@pytest.fixture
def stages():
    """Of the demo, as if each step of a clip had taken 1 ms for each 100 M multiply-accumulates."""
    stages = make_stages('demo_plain')
    for stage in stages:
        stage.counted = [3.0 * bucket.macs_per_clip for bucket in stage.plan.buckets]
        stage.compile_s = 10.0
        stage.seconds = [[b.macs_per_clip * b.batch_size / 1e11] * 3 for b in stage.plan.buckets]
    return stages


def test_the_rows_go_from_mavil_by_diffmavil_to_all(stages):
    assert [stage.name for stage in stages] == [*TECHNIQUES, FAST]
    plans = {stage.name: stage.plan for stage in stages}
    published_as = {
        'MAViL': mavil,
        'adaptive batch': diffmavil,
        'cross-attention, audio': diffmavil_cross,
        FAST: diffmavil_fast,
    }
    for name, module in published_as.items():
        published = module.get_config('demo_plain')
        assert plans[name] == make_plan(from_dict(published.to_dict()))


def test_what_is_saved_is_the_share_of_mavils_at_equal_clips(stages):
    rows = numbers(stages)['rows']
    assert rows[0]['macs_saved'] == rows[0]['time_saved'] == 0
    for row, stage in zip(rows, stages, strict=True):
        assert row['time_saved'] == pytest.approx(row['macs_saved'], abs=1e-9)
        assert row['counted_macs_per_step_and_clip'] == pytest.approx(3 * row['macs_per_clip'])
        assert row['run_s'] == pytest.approx(10 + stage.plan.macs / 1e11)
    assert rows[-1]['macs_saved'] > rows[4]['macs_saved'] > 0


def test_the_table_has_times_only_where_they_were_measured(stages):
    assert table(stages).count('\n| ') == 2 + len(stages)
    assert 'time saved' in table(stages)
    assert picture(stages).startswith(b'\x89PNG')
    for stage in stages:
        stage.seconds = []
    assert 'time' not in table(stages)
    assert picture(stages).startswith(b'\x89PNG')
