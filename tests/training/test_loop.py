"""The loop's policy: resume, lines, checkpoints, evaluations, steps that are not finite."""

import json
import resource
import shutil
import threading

import chex
import jax
import numpy as np
import pytest

from diffmavil_jax.training import loop
from diffmavil_jax.training.checkpoint import CheckpointError
from diffmavil_jax.training.metrics import read_metrics
from diffmavil_jax.training.step_metrics import TrainingError

TOTAL = 72


def host(state):
    return jax.device_get(state)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, make_toy):
    """The final state, the lines and the directory of a run without a stop."""
    workdir = tmp_path_factory.mktemp('whole')
    state, _ = make_toy().run(workdir)
    return host(state), read_metrics(workdir), workdir


@pytest.mark.parametrize('stop_after', [2, 3, 4])
def test_stopped_and_resumed_is_bit_equal_also_across_the_bucket_boundary(
    make_toy, tmp_path, uninterrupted, stop_after
):
    """Six steps are stop_after steps, a checkpoint, and the rest; 3 is the boundary itself."""
    expected, expected_lines, _ = uninterrupted
    toy = make_toy()
    state, _ = toy.run(tmp_path, stop_after=stop_after)
    stopped_at = {2: 32, 3: 48, 4: 56}[stop_after]
    assert int(state.samples_seen) == stopped_at
    assert (tmp_path / 'checkpoints' / str(stopped_at)).is_dir()
    resumed = make_toy()
    state, _ = resumed.run(tmp_path)
    assert resumed.served[0][0] == stopped_at
    assert len(resumed.served) == 6 - stop_after
    chex.assert_trees_all_equal(host(state), expected)
    # It did learn something, else equality would mean little.
    assert np.abs(state.params['kernel'] - 0.5).max() > 0.05

    # No count is written twice, and the lines say the same as without a stop.
    lines = read_metrics(tmp_path)
    assert [line['samples'] for line in lines] == [16, 32, 48, 56, 64, 72]
    for ours, theirs in zip(lines, expected_lines, strict=True):
        for name in ('loss', 'learning_rate', 'gradient_norm', 'mask_ratio', 'batch_size', 'skipped'):
            assert ours[name] == theirs[name]
    assert [line['batch_size'] for line in lines] == [16, 16, 16, 8, 8, 8]
    assert [line['mask_ratio'] for line in lines] == [0.9] * 3 + [0.8] * 3
    assert all(line['clips_per_second'] > 0 for line in lines)


def test_a_start_after_a_kill_repeats_steps_but_no_line(make_toy, tmp_path, uninterrupted):
    """A kill leaves lines after the last checkpoint; here the checkpoints after 32 are taken away."""
    make_toy().run(tmp_path / 'run', save_every=16)
    checkpoints = tmp_path / 'run' / 'checkpoints'
    for path in checkpoints.iterdir():
        if path.name.isdigit() and int(path.name) > 32:
            shutil.rmtree(path)
    again = make_toy()
    state, _ = again.run(tmp_path / 'run')
    assert again.served[0][0] == 32
    assert [line['samples'] for line in read_metrics(tmp_path / 'run')] == [16, 32, 48, 56, 64, 72]
    chex.assert_trees_all_equal(host(state), uninterrupted[0])


def test_a_window_averages_its_steps(make_toy, tmp_path, uninterrupted):
    make_toy().run(tmp_path / 'run', log_every=48)
    lines = read_metrics(tmp_path / 'run')
    assert [line['samples'] for line in lines] == [48, 72]
    each = [line['loss'] for line in uninterrupted[1]]
    assert lines[0]['loss'] == pytest.approx(np.mean(each[:3]), rel=1e-5)
    assert lines[1]['loss'] == pytest.approx(np.mean(each[3:]), rel=1e-5)


def test_a_batch_that_is_not_on_the_device_is_refused(make_toy, tmp_path):
    toy = make_toy()
    on_device = toy.batches
    toy.batches = lambda first: ((jax.device_get(batch), ids) for batch, ids in on_device(first))
    with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
        toy.run(tmp_path)


def test_a_complete_run_starts_nothing(make_toy, tmp_path, uninterrupted):
    again = make_toy()
    state, _ = again.run(uninterrupted[2])
    assert again.served == []
    chex.assert_trees_all_equal(host(state), uninterrupted[0])


def test_told_to_stop_while_it_evaluates_it_saves_without_waiting(make_toy, tmp_path, uninterrupted):
    released = threading.Event()

    def evaluate(params):
        assert released.wait(timeout=60)
        return {'bias': 0.0}

    toy = make_toy()
    # The evaluation is due after the step after which it is told to stop.
    state, _ = toy.run(tmp_path, stop_after=2, evaluate=evaluate, evaluate_every=32)
    assert int(state.samples_seen) == 32
    assert not any(name.startswith('eval/') for line in read_metrics(tmp_path) for name in line)
    released.set()
    state, _ = make_toy().run(tmp_path)
    chex.assert_trees_all_equal(host(state), uninterrupted[0])


def test_told_to_stop_at_once_it_saves_the_beginning(make_toy, tmp_path):
    toy = make_toy()
    state, _ = toy.run(tmp_path, stop_after=0)
    assert toy.served == []
    assert int(state.samples_seen) == 0
    assert (tmp_path / 'checkpoints' / '0').is_dir()


def test_checkpoints_come_at_their_cadence_and_at_the_end(make_toy, tmp_path):
    make_toy().run(tmp_path, save_every=32)
    saved = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())
    assert saved == [32, 64, 72]


def test_the_evaluator_runs_at_its_cadence_and_its_values_are_in_the_same_line(make_toy, tmp_path):
    seen = []

    def evaluate(params):
        seen.append(np.asarray(params['kernel']).copy())
        return {'retrieval/a2v/r10': 0.25 + len(seen)}

    state, timings = make_toy().run(tmp_path, evaluate=evaluate, evaluate_every=32)
    lines = read_metrics(tmp_path)
    with_values = {
        line['samples']: line['eval/retrieval/a2v/r10'] for line in lines if any('eval' in k for k in line)
    }
    assert with_values == {32: 1.25, 64: 2.25, 72: 3.25}
    assert [line['samples'] for line in lines] == [16, 32, 48, 56, 64, 72]
    assert all('loss' in line for line in lines)
    np.testing.assert_array_equal(seen[-1], state.params['kernel'])
    assert timings.evaluation_s > 0


def test_timings_add_up_over_starts(make_toy, tmp_path):
    _, first = make_toy().run(tmp_path, stop_after=2)
    _, second = make_toy().run(tmp_path)
    assert first.compilations == 1
    assert second.compilations == 3  # the first bucket again, and the second
    assert second.train_s > first.train_s > 0
    assert 0 < second.data_wait_s <= second.train_s


def ids_of(path):
    return [json.loads(line) for line in (path / 'nonfinite.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('log_every', [8, 48])
def test_three_steps_in_a_row_that_are_not_finite_stop_the_run(make_toy, tmp_path, log_every):
    # Of the steps [16, 32), [32, 48), [48, 56) one clip each.
    toy = make_toy(nonfinite=frozenset({20, 40, 50}))
    with pytest.raises(TrainingError) as caught:
        toy.run(tmp_path, log_every=log_every)
    assert '3 steps ' in str(caught.value)
    assert 'clip 56' in str(caught.value) and 'Lower config.optimizer' in str(caught.value)
    assert str(tmp_path / 'nonfinite.jsonl') in str(caught.value)
    lines = ids_of(tmp_path)
    assert [line['samples'] for line in lines] == [32, 48, 56]
    assert lines[0]['ids'] == [f'clip {p}' for p in range(16, 32)]
    assert lines[2]['ids'] == [f'clip {p}' for p in range(48, 56)]


def test_fewer_in_a_row_are_skipped_and_said(make_toy, tmp_path):
    """Also where a line has no other step: its loss is then unknown, not a crash."""
    toy = make_toy(nonfinite=frozenset({20, 40, 60}))  # the steps up to 32, 48 and 64; 56 is fine
    state, _ = toy.run(tmp_path)
    assert int(state.samples_seen) == TOTAL
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(host(state)))
    assert [line['samples'] for line in ids_of(tmp_path)] == [32, 48, 64]
    lines = read_metrics(tmp_path)
    assert {line['samples']: line['skipped'] for line in lines} == {16: 0, 32: 1, 48: 1, 56: 0, 64: 1, 72: 0}
    assert [line['samples'] for line in lines if line.get('loss') is not None] == [16, 56, 72]


def test_a_lower_limit_stops_sooner(make_toy, tmp_path):
    toy = make_toy(nonfinite=frozenset({20}))
    with pytest.raises(TrainingError, match='1 steps '):
        toy.run(tmp_path, max_nonfinite=1)


def test_if_no_step_is_finite_the_parameters_are_to_blame(make_toy, tmp_path):
    toy = make_toy(nonfinite=frozenset({4}))  # of the first step
    with pytest.raises(TrainingError, match='the parameters that it began with, those of config.init'):
        toy.run(tmp_path, max_nonfinite=1)


def test_a_full_disk_ends_no_run_and_what_it_refused_is_saved_later(
    make_toy,
    tmp_path,
    uninterrupted,
    capsys,  # in memory, not in a file
):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    seen = []

    def evaluate(params):
        """The disk is full from the first evaluation to the third."""
        seen.append(params)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 if len(seen) < 3 else soft, hard))
        return {}

    try:
        state, _ = make_toy().run(tmp_path, save_every=16, evaluate_every=16, evaluate=evaluate)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    chex.assert_trees_all_equal(host(state), uninterrupted[0])
    assert len(seen) >= 3
    saved = {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()}
    assert saved - {32} == {48, 64, 72}  # 32 is written in the background, perhaps after the third
    lines = [line['samples'] for line in read_metrics(tmp_path)]
    assert lines == sorted(set(lines)) and lines[-1] == 72 and 16 not in lines


def test_a_last_state_that_can_not_be_saved_is_an_error(make_toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, '_LAST_SAVE_PAUSES_S', (0.0, 0.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def evaluate(params):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        return {}

    try:
        with pytest.raises(
            CheckpointError, match=r'at clip 72 could not be saved .* resumes from clip (16|32)'
        ):
            make_toy().run(tmp_path, save_every=16, evaluate_every=48, evaluate=evaluate)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
