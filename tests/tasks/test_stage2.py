"""Stage 2 as a run: from a finished stage-1 run, resumed exactly, and what it refuses."""

import dataclasses
import gc
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffmavil_jax import experiment
from diffmavil_jax.aot.forecast import forecast
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.plan.macs import macs_per_clip
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.tasks import pretraining
from diffmavil_jax.tasks.stage2 import make_objective
from diffmavil_jax.units import si

pytestmark = pytest.mark.slow  # two whole runs; test_teacher.py has the objective


def live_bytes():
    """The bytes of all arrays; those that share a buffer, as an array and its shards do, count once."""
    gc.collect()
    shards = [shard.data for array in jax.live_arrays() for shard in array.addressable_shards]
    return sum({shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}.values())


def train(config, workdir):
    experiment.run_experiment(config, workdir=str(workdir), overwrite=False, command='test', started=0.0)


@pytest.fixture(scope='module')
def teacher(tiny, one_device, tmp_path_factory):
    """A finished stage-1 run."""
    workdir = tmp_path_factory.mktemp('teacher')
    config = tiny(train={'samples': 16}, masking={'curriculum': 'none'}, batch={'rule': 'fixed'})
    train(config, workdir)
    return config, workdir


@pytest.fixture(scope='module')
def student(teacher, one_device, tmp_path_factory):
    """A finished student of it, on one device."""
    config, run = teacher
    config = dataclasses.replace(
        config,
        objective='stage2',
        teacher=str(run),
        train=dataclasses.replace(config.train, samples=32),
        checkpoint=dataclasses.replace(config.checkpoint, every_samples=16),
    )
    workdir, before = tmp_path_factory.mktemp('student'), live_bytes()
    write = pretraining.report.write

    def measured(config, plan, suite, sources, trained, untrained, *rest):
        parameters = sum(array.nbytes for array in jax.tree.leaves(trained))
        (workdir / 'memory.json').write_text(json.dumps((live_bytes() - before, parameters)))
        return write(config, plan, suite, sources, trained, untrained, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining.report, 'write', measured)
        train(config, workdir)
    return config, workdir


def test_a_student_is_trained_and_the_teacher_kept(teacher, student):
    config, workdir = student
    summary = json.loads((workdir / 'report' / 'summary.json').read_text())
    assert summary['clips_seen'] == 32
    assert 'retrieval' in summary and 'probe' in summary and 'reconstruction' not in summary
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert lines[-1]['audio'] < lines[0]['audio']
    page = (workdir / 'report' / 'index.html').read_text()
    assert 'predicts the tokens of the teacher' in page
    # What the checkpoint holds of the teacher is what the teacher was.
    saved = ocp.PyTreeCheckpointer().restore(workdir / 'checkpoints' / '32' / 'state')['frozen']
    taught_by = load_params(teacher[1])[0]
    for name in saved:
        jax.tree.map(np.testing.assert_array_equal, saved[name], taught_by[name])


def test_the_report_needs_parameters_of_two_networks_and_nothing_else_of_the_state(student):
    live, parameters = json.loads((student[1] / 'memory.json').read_text())
    assert parameters < live < 2.5 * parameters  # with the optimizer there would be six


def test_a_student_resumes_exactly(student, tmp_path):
    config, workdir = student
    # Back to the checkpoint in the middle, as after a kill.
    again = tmp_path / 'run'
    shutil.copytree(workdir, again)
    shutil.rmtree(again / 'checkpoints' / '32')
    assert [path.name for path in (again / 'checkpoints').iterdir()] == ['16']
    shutil.rmtree(again / 'report')
    train(config, again)
    jax.tree.map(np.testing.assert_array_equal, load_params(again)[0], load_params(workdir)[0])


def test_its_time_is_planned_without_a_backward_pass_of_the_teacher(student):
    config, _ = student
    plan = make_plan(config)
    [bucket] = plan.buckets
    parts = dataclasses.asdict(macs_per_clip(config, bucket.audio_tokens, bucket.video_tokens))
    teacher = parts.pop('teacher')
    assert teacher > 0
    operations = 2 * plan.total_samples * (3 * sum(parts.values()) + teacher)
    assert f'Time: {si(operations)} operations' in forecast(config, plan)


def test_a_student_may_teach(student, tmp_path):
    config, workdir = student
    train(dataclasses.replace(config, teacher=str(workdir)), tmp_path / 'next')
    assert load_params(tmp_path / 'next')[1] == 32


@pytest.mark.parametrize(
    ('section', 'change', 'message'),
    [
        (
            'data',
            {'seconds': 2.0},
            r'config.data.seconds = 2.0: must be 1.0, as in the run of config.teacher',
        ),
        ('audio', {'num_frames': 64}, 'config.audio = .*num_frames.: 64.*: must be'),
    ],
)
def test_a_teacher_of_other_tokens_is_refused(student, section, change, message):
    config, _ = student
    other = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **change)})
    with pytest.raises(ConfigError, match=message):
        make_objective(other)


def test_the_teacher_and_the_objective_belong_together(tiny):
    with pytest.raises(ConfigError, match=r"config.teacher = '': must be the workdir of a run"):
        tiny(objective='stage2')
    with pytest.raises(ConfigError, match=r"config.teacher = 'x': must be .* empty with others"):
        tiny(teacher='x')
    with pytest.raises(ConfigError, match='config.diffusion.target'):
        tiny(objective='stage2', teacher='x', diffusion={'target': 'v'})
    with pytest.raises(ConfigError, match="'nowhere': must be the workdir of a run"):
        make_objective(tiny(objective='stage2', teacher='nowhere'))
