"""What is due after a step, and that nothing is when no multiple was reached."""

import pytest

from diffmavil_jax.config.training import CheckpointConfig, TrainConfig
from diffmavil_jax.training.cadence import Cadence, Due, due_after

CADENCE = Cadence(
    TrainConfig(samples=100, log_every_samples=8), CheckpointConfig(every_samples=32, every_minutes=60.0), 48
)


@pytest.mark.parametrize(
    ('before', 'seen', 'expected'),
    [
        (0, 7, Due(log=False, evaluate=False, save=False)),
        (7, 8, Due(log=True, evaluate=False, save=False)),
        (8, 15, Due(log=False, evaluate=False, save=False)),
        (24, 40, Due(log=True, evaluate=False, save=True)),  # passes 32
        (40, 48, Due(log=True, evaluate=True, save=False)),
        (32, 100, Due(log=True, evaluate=True, save=True)),
    ],
)
def test_something_is_due_in_the_step_that_reaches_or_passes_a_multiple(before, seen, expected):
    due = due_after(before, seen, 1_000, CADENCE)
    assert due == expected
    assert due.nothing == (due == Due(log=False, evaluate=False, save=False))


def test_after_the_last_step_everything_is_due():
    assert due_after(96, 97, 97, CADENCE) == Due(log=True, evaluate=True, save=True)


def test_an_evaluation_may_be_due_without_a_line_of_its_own_cadence():
    rare = Cadence(TrainConfig(samples=100, log_every_samples=1_000), CADENCE.checkpoint, 48)
    due = due_after(40, 48, 1_000, rare)
    assert due == Due(log=False, evaluate=True, save=False)
    assert not due.nothing
