"""Parameters that are read from disk are numbers."""

import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.params import check_finite, load_params
from diffmavil_jax.saved.weights import write_params


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_its_parameter(tmp_path, value):
    bias = np.ones(3, np.float32)
    bias[1] = value
    write_params(tmp_path, {'encoder_audio': {'patch_embedding': {'kernel': np.ones((2, 3)), 'bias': bias}}})
    message = rf'{tmp_path}: 1 of the 3 values of encoder_audio/patch_embedding/bias are not finite'
    with pytest.raises(ConfigError, match=message):
        load_params(tmp_path)


def test_large_and_empty_arrays_are_finite():
    check_finite({'a': np.full(3, np.finfo(np.float32).max), 'b': np.zeros((0, 2))}, 'file')
