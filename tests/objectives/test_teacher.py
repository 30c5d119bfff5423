"""Stage 2: the targets of the student, and no gradient to the teacher."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.network import ModelConfig
from diffmavil_jax.config.schema import Config
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.objectives.reconstruction import normalize_patches, squared_error
from diffmavil_jax.objectives.teacher import TeacherObjective

COUNTS = {'audio': TokenCounts(2, 4), 'video': TokenCounts(3, 5)}
TEACHER = Config(
    data=DataConfig(seconds=0.3, frames=4, frame_size=16),
    audio=AudioConfig(num_mel_bins=16, num_frames=24, patch=8),
    video=VideoConfig(patch=8, patch_frames=2),
    model=ModelConfig(size='demo', fusion_layers=1, decoder_width=16, decoder_layers=1, decoder_heads=2),
)
STUDENT = dataclasses.replace(TEACHER, objective='stage2', teacher='a run')


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    return {
        'waveform': rng.integers(-9_000, 9_000, (4, 4_800)).astype(np.int16),
        'frames': rng.integers(0, 256, (4, 4, 16, 16, 3)).astype(np.uint8),
        'position': np.arange(4, dtype=np.int32),
    }


@pytest.fixture(scope='module')
def objective_and_params(batch):
    """The objective, the student's parameters and the teacher's."""
    objective = TeacherObjective(STUDENT, TEACHER)
    init = jax.jit(lambda key: nn.unbox(objective.init(key, batch, COUNTS)))
    return objective, init(jax.random.key(0))['params'], init(jax.random.key(1))['frozen']


def test_the_teacher_has_the_parameters_that_a_stage_1_run_saves(objective_and_params, batch):
    _, student, teacher = objective_and_params
    stage_1 = jax.eval_shape(
        lambda: nn.unbox(PretrainingObjective(TEACHER).init(jax.random.key(0), batch, COUNTS))['params']
    )
    assert set(teacher) < set(stage_1) == set(student)
    for name, parameters in teacher.items():
        assert jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, stage_1[name])


def test_a_student_that_equals_the_teacher_has_nothing_to_learn_from_a_whole_clip(
    objective_and_params, batch
):
    objective, student, teacher = objective_and_params
    patches = to_patches(batch, STUDENT)
    targets = objective.teacher_targets(teacher, patches)
    for params, expected in (({**student, **teacher}, 0.0), (student, None)):
        tokens = objective.model.apply({'params': params}, patches, method='tokens')
        for modality in ('audio', 'video'):
            error = squared_error(normalize_patches(tokens[modality]), targets[modality])
            if expected is None:
                assert (error > 0.1).all()
            else:
                np.testing.assert_array_equal(error, expected)


def test_targets_are_of_mean_0_and_variance_1_and_depend_on_the_whole_clip(objective_and_params, batch):
    objective, _, teacher = objective_and_params
    patches = to_patches(batch, STUDENT)
    targets = objective.teacher_targets(teacher, patches)
    for x, tokens in zip(targets.values(), (6, 8), strict=True):
        assert x.shape == (4, tokens, 128) and x.dtype == jnp.float32
        np.testing.assert_allclose(x.mean(axis=-1), 0, atol=1e-5)
        np.testing.assert_allclose(x.var(axis=-1, ddof=1), 1, atol=1e-3)
    louder = patches | {'audio': patches['audio'].at[:, -1].add(1.0)}
    changed = objective.teacher_targets(teacher, louder)
    assert jnp.abs(changed['video'] - targets['video']).max() > 1e-4  # after fusion


def test_the_loss_regresses_the_targets_of_the_decoded_tokens(objective_and_params, batch):
    objective, student, teacher = objective_and_params
    loss, metrics = objective.loss(student, batch, COUNTS, frozen=teacher)
    patches = to_patches(batch, STUDENT)
    views = objective.views(patches, jnp.asarray(batch['position']), COUNTS)
    predictions = objective.model.apply({'params': student}, views).predictions
    targets = objective.teacher_targets(teacher, patches)
    weights = {'audio': 1.0, 'video': 1.0, 'inter': 0.1, 'intra': 0.01}
    for modality in ('audio', 'video'):
        picked = np.stack([x[i] for x, i in zip(targets[modality], views[modality].decoded, strict=True)])
        expected = np.square(np.asarray(predictions[modality]) - picked).mean()
        np.testing.assert_allclose(metrics[modality][0] / metrics[modality][1], expected, rtol=1e-5)
    total = sum(weight * metrics[name][0] / metrics[name][1] for name, weight in weights.items())
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_no_gradient_reaches_the_teacher(objective_and_params, batch):
    objective, student, teacher = objective_and_params

    def loss(params, frozen):
        return objective.loss(params, batch, COUNTS, frozen=frozen)[0]

    to_student, to_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(student, teacher)
    assert all((x == 0).all() for x in jax.tree.leaves(to_teacher))
    assert any((x != 0).any() for x in jax.tree.leaves(to_student))


def test_a_teacher_may_have_another_width(batch):
    small = dataclasses.replace(STUDENT, model=dataclasses.replace(STUDENT.model, size='Ti'))
    objective = TeacherObjective(small, TEACHER)
    variables = jax.eval_shape(lambda: nn.unbox(objective.init(jax.random.key(0), batch, COUNTS)))
    kernel = variables['params']['decoder_audio']['prediction']['kernel']
    assert kernel.shape == (16, 128)  # the teacher's width
    assert variables['params']['encoder_audio']['class_token'].shape == (1, 1, 192)
