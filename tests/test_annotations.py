"""Annotated shapes and dtypes are true: every test checks them."""

import pathlib

import jaxtyping
import numpy as np
import pytest

from diffmavil_jax.models.patches import patchify_audio, take_tokens
from tests.annotations import CHECKED

PACKAGE = pathlib.Path(__file__).parents[1] / 'diffmavil_jax'


@pytest.mark.parametrize(
    ('tokens', 'ids'),
    [
        (np.zeros((2, 4), np.float32), np.zeros((2, 1), int)),  # an axis is missing
        (np.zeros((2, 4, 3), np.float32), np.zeros((3, 1), int)),  # another number of clips
        (np.zeros((2, 4, 3), np.float32), np.zeros((2, 1), np.float32)),  # indices that are no integers
    ],
)
def test_another_shape_or_dtype_than_annotated_is_an_error(tokens, ids):
    with pytest.raises(jaxtyping.TypeCheckError):
        take_tokens(tokens, ids)


def test_what_is_annotated_passes():
    assert patchify_audio(np.zeros((1, 4, 6), np.float32), 2).shape == (1, 6, 4)


def test_every_room_that_annotates_arrays_is_checked():
    annotated = [path for path in PACKAGE.rglob('*.py') if 'from jaxtyping import' in path.read_text()]
    assert {path.relative_to(PACKAGE).parts[0] for path in annotated} == set(CHECKED)
