"""Clips without sound or pictures among clips with both."""

import numpy as np
import pytest

from diffmavil_jax.data.clip import ClipSpec, DataError
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.data.wrappers import Completed


class Sounds:
    name, modalities, label_names, multi_label = 'sounds', ('audio',), ('a',), False

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {'waveform': np.full(16_000, index, np.int16), 'label': 0, 'id': str(index)}


def test_black_stands_in_for_pictures():
    clip = Completed(Sounds(), ClipSpec(16_000, 1.0, 4, 8))[2]
    assert clip['present'].tolist() == [1, 0]
    assert clip['frames'].shape == (4, 8, 8, 3) and not clip['frames'].any()
    assert (clip['waveform'] == 2).all()


@pytest.fixture
def mixed(tmp_path, tiny, write_prepared, example):
    """A config that mixes the generated world with sounds and with videos."""
    sounds = [example(i, samples=16_000, frames=[]) for i in range(4)]
    sounds = write_prepared(
        tmp_path,
        {'train': sounds, 'test': sounds[:1]},
        'sounds',
        frames=0,
        frame_size=0,
        modalities=('audio',),
    )
    videos = [example(i) for i in range(4)]
    videos = write_prepared(tmp_path, {'train': videos, 'test': videos[:2]}, 'videos')

    def make(*paths, **data):
        return tiny(data={'source': 'tfds', 'path': ','.join(paths), 'missing_modality': 'mask', **data})

    return make, sounds, videos


def test_a_mixture_keeps_what_each_clip_has_and_measures_those_with_both(mixed):
    make, sounds, videos = mixed
    sources = open_sources(make('generated', sounds, videos, weights='1,1,1'))
    assert sources.train.modalities == ('audio', 'video')
    assert len(sources.train) == 256 + 4 + 4
    assert [sources.train[i]['present'].tolist() for i in (0, 257, 262)] == [[1, 1], [1, 0], [1, 1]]
    assert len(sources.held_out) == 32 + 2 and 'present' not in sources.held_out[0]


def test_something_must_have_both(mixed):
    make, sounds, _ = mixed
    with pytest.raises(DataError, match='must have a dataset with sound and pictures to evaluate on'):
        open_sources(make(sounds))
