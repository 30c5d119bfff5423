"""Annotations of shapes can't lie: they are checked in every test."""

import jaxtyping
import numpy as np
import pytest

from diffmavil_jax.models.patches import patchify_audio, take_tokens


@pytest.mark.parametrize(
    ('tokens', 'ids'),
    [
        (np.zeros((2, 4), np.float32), np.zeros((2, 1), int)),  # an axis is missing
        (np.zeros((2, 4, 3), np.float32), np.zeros((3, 1), int)),  # of other clips
        (np.zeros((2, 4, 3), np.float32), np.zeros((2, 1), np.float32)),  # no indices
    ],
)
def test_another_shape_or_dtype_than_annotated_is_an_error(tokens, ids):
    with pytest.raises(jaxtyping.TypeCheckError):
        take_tokens(tokens, ids)


def test_what_is_annotated_passes():
    assert patchify_audio(np.zeros((1, 4, 6), np.float32), 2).shape == (1, 6, 4)
