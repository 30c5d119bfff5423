"""Which splits are trained on and which are held out, of one dataset or of several."""

import numpy as np
import pytest

from diffmavil_jax import experiment
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError, require_modalities
from diffmavil_jax.data.sources import open_sources

SMALL = {'source': 'tfds', 'seconds': 1.0, 'frames': 4, 'frame_size': 16}


def test_opens_the_splits_of_a_config_with_their_coverage(tiny, dataset):
    sources = open_sources(tiny(data=SMALL | {'path': str(dataset)}))
    assert (len(sources.train), len(sources.held_out)) == (4, 2)
    assert sources.coverage == '2 of 2,000 evaluation clips present' and sources.notes == ()
    clip = sources.train[0]
    assert clip['frames'].shape == (4, 16, 16, 3) and clip['waveform'].shape == (16_000,)


def test_a_path_is_needed(tiny):
    with pytest.raises(ConfigError, match="config.data.path = '': must be a prepared dataset"):
        open_sources(tiny(data=SMALL))


def test_splits_of_several_names(tiny, tmp_path, write_prepared, example):
    path = write_prepared(tmp_path, {f'fold{k}': [example(k)] * k for k in (1, 2, 3)})
    data = SMALL | {'path': path, 'train_split': 'fold1, fold3', 'eval_split': 'fold2'}
    sources = open_sources(tiny(data=data))
    assert (len(sources.train), len(sources.held_out), sources.coverage) == (4, 2, '')
    has = r'fold1 \(1 clips\), fold2 \(2 clips\), fold3 \(3 clips\)'
    for change, error in (
        ({'train_split': 'train'}, f"train_split = 'train': .* has none of these splits. .* has {has}"),
        ({'train_split': 'fold1,fold9'}, f"no dataset has the split 'fold9'. .* has {has}"),
        ({'eval_split': ''}, f"eval_split = '': .* has none of validation, test, eval .* has {has}"),
    ):
        with pytest.raises(DataError, match=error):
            open_sources(tiny(data=data | change))


def test_parts_of_a_split_are_held_out_where_there_is_one_split(tiny, tmp_path, write_prepared, example):
    path = write_prepared(tmp_path, {'train': [example(i) for i in range(10)]})
    parts = {'train_split': 'train[:70%]', 'eval_split': 'train[70%:]'}
    sources = open_sources(tiny(data=SMALL | {'path': path} | parts))
    ids = [[part[i]['id'] for i in range(len(part))] for part in (sources.train, sources.held_out)]
    assert [len(part) for part in ids] == [7, 3] and len({*ids[0], *ids[1]}) == 10
    for change, error in (
        ({'eval_split': 'train[60%:]'}, r"'train\[:70%\]' and eval_split = 'train\[60%:\]' share clips"),
        ({'eval_split': 'train'}, "eval_split = 'train' share clips"),
        ({'eval_split': 'train[90%'}, r'train\[90% of .*'),
        ({'eval_split': 'train[:0%]'}, r'no clip in train\[:0%\]'),
    ):
        with pytest.raises(DataError, match=error):
            open_sources(tiny(data=SMALL | {'path': path} | parts | change))


@pytest.mark.parametrize('modality, other', [('audio', 'video'), ('video', 'audio')])
def test_one_modality_is_enough_for_a_source_and_not_for_pretraining(
    tiny, tmp_path, write_prepared, example, modality, other
):
    without = {'frames': []} if modality == 'audio' else {'audio': np.zeros(0, np.int16)}
    clips = [example(i, **without) for i in range(3)]
    path = write_prepared(tmp_path, {'train': clips, 'test': clips}, modalities=(modality,))
    config = tiny(data=SMALL | {'path': path})
    sources = open_sources(config)
    has = {'audio': 'waveform', 'video': 'frames'}[modality]
    assert set(sources.train[0]) == {has, 'label', 'labels', 'id'} and sources.train.refused() == []
    require_modalities([sources.train], [modality], 'An embedding')
    error = f'Pretraining needs audio and video, and tiny has no {other}: its clips have {modality} only'
    with pytest.raises(DataError, match=error):
        experiment.run_experiment(
            config, workdir=str(tmp_path / 'run'), overwrite=False, command='', started=0.0
        )
    assert not (tmp_path / 'run').exists()


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
