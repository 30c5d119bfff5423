"""Wrong settings are errors that name the flag."""

import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepare.settings import Settings


def test_wrong_settings_are_named():
    for field, value in [
        ('seconds', 0.0), ('frames', 0), ('frame_size', 8), ('jpeg_quality', 101), ('keep', ('loud',)),
        ('modalities', ()), ('modalities', ('smell',)), ('shard_clips', 0),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f'--{field}='):
            Settings(**{field: value})
