"""Wrong settings are errors that name the flag."""

import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepare.settings import Settings, usual_frames


def test_wrong_settings_are_named():
    for field, value in [
        ('seconds', 0.0), ('frames', 0), ('frame_size', 8), ('jpeg_quality', 101), ('keep', ('loud',)),
        ('modalities', ()), ('modalities', ('smell',)), ('shard_clips', 0),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f'--{field}='):
            Settings(**{field: value})


def test_pictures_are_two_a_second_for_the_stretches_that_training_takes():
    assert [usual_frames(seconds) for seconds in (10.0, 30.0, 2.0, 4.2, 3_600.0, None)] == [
        20,
        60,
        8,
        9,
        4096,
        8,
    ]
