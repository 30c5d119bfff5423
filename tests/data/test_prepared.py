import dataclasses
import io
import pathlib
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffmavil_jax import experiment
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import NO_LABEL, ClipSpec, DataError, require_modalities
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.format import Metadata, example_features
from diffmavil_jax.data.prepared.source import PreparedSource, decode_picture
from diffmavil_jax.data.sources import open_sources

SPEC = ClipSpec(sample_rate=16_000, seconds=1.0, frames=8, frame_size=32)
SMALL = {'source': 'tfds', 'seconds': 1.0, 'frames': 4, 'frame_size': 16}


def source(path, splits=('train',), spec=SPEC, max_bad_fraction=1.0):
    dataset = open_prepared(path)
    clips = sum(split.num_examples for split in dataset.splits.values())
    return PreparedSource(dataset, splits, spec, Ledger(dataset.path, clips, max_bad_fraction))


def brightness(frames):
    """Of the left half of each picture, in units of what `example` adds from one to the next."""
    return (frames[:, :, 1 : frames.shape[2] // 2 - 1].mean(axis=(1, 2, 3)) / 20).round().astype(int).tolist()


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, write_prepared, example):
    folder = tmp_path_factory.mktemp('prepared')
    clips = [example(i, label=i % 2) for i in range(6)]
    write_prepared(folder, {'train': clips[:4], 'test': clips[4:]}, expected={'train': 4, 'test': 2_000})
    return folder


class TestFormat:
    def test_metadata_survives_json_types(self):
        metadata = Metadata(
            source='esc50', modalities=('audio',), class_names=('a', 'b'), expected={'fold1': 400}
        )
        assert Metadata.from_dict(metadata.to_dict()) == metadata
        assert Metadata.from_dict(metadata.to_dict() | {'of_a_later_version': 1}) == metadata

    @pytest.mark.parametrize(
        'values', [{}, {'source': 'x', 'modalities': ['smell']}, {'source': 'x', 'modalities': []}]
    )
    def test_other_metadata_is_an_error(self, values):
        with pytest.raises(ValueError, match='modalities|metadata of a prepared dataset'):
            Metadata.from_dict(values)

    def test_tfds_reads_back_what_was_written_without_tensorflow(self, dataset, example):
        builder = tfds.builder_from_directory(dataset / 'tiny' / '1.0.0')
        read = {clip['id'].decode(): clip for clip in builder.as_data_source(split='train')}
        assert read.keys() == {f'{i}.mp4@0.000' for i in range(4)}
        for i in range(4):
            written, clip = example(i, label=i % 2), read[f'{i}.mp4@0.000']
            np.testing.assert_array_equal(clip['audio'], written['audio'])
            assert clip['audio'].dtype == np.int16
            assert list(clip['frames']) == written['frames']
            assert clip['labels'].tolist() == [i % 2]
        assert 'tensorflow' not in sys.modules

    def test_a_clip_may_have_no_sound_no_picture_and_no_label(self, example):
        features = example_features()
        empty = example(audio=np.zeros(0, np.int16), frames=[], labels=[])
        read = features.deserialize_example_np(features.serialize_example(empty))
        assert [len(read[name]) for name in ('audio', 'frames', 'labels')] == [0, 0, 0]


class TestClips:
    def test_a_clip_is_what_was_stored(self, dataset, example):
        clips = source(dataset)
        assert (
            len(clips) == 4 and clips.modalities == ('audio', 'video') and clips.label_names == ('cat', 'dog')
        )
        for i in range(4):
            clip = clips[i]
            number = int(clip['id'].split('.')[0])
            written = example(number)
            np.testing.assert_array_equal(clip['waveform'], written['audio'])
            # A decoder of its own; both follow libjpeg-turbo to the bit.
            pillow = [np.asarray(Image.open(io.BytesIO(frame))) for frame in written['frames']]
            np.testing.assert_array_equal(clip['frames'], pillow)
            assert clip['waveform'].dtype == np.int16 and clip['frames'].dtype == np.uint8
            assert clip['label'] == number % 2 and clips.labels(i).tolist() == [number % 2]
            assert clips.factors(i) == {'label': number % 2}
            assert 'refused' not in clip
        with pytest.raises(IndexError):
            clips[4]

    @pytest.mark.parametrize('seconds, samples', [(0.25, 4_000), (1.0, 16_000), (1.5, 24_000)])
    def test_sound_is_cut_or_padded_with_silence(self, dataset, seconds, samples):
        clip = source(dataset, spec=dataclasses.replace(SPEC, seconds=seconds, frames=2))[0]
        number = int(clip['id'].split('.')[0])
        expected = np.zeros(samples, np.int16)
        stored = np.arange(number, number + min(samples, 16_000))
        expected[: len(stored)] = stored
        np.testing.assert_array_equal(clip['waveform'], expected)

    @pytest.mark.parametrize(
        'seconds, frames, taken',
        [
            (1.0, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
            (1.0, 4, [1, 3, 5, 7]),
            (1.0, 2, [2, 6]),
            (1.0, 1, [4]),
            (2.0, 4, [1, 3, 5, 7]),
            (0.5, 4, [0, 1, 2, 3]),  # what is seen while something is heard
            (0.5, 2, [1, 3]),
        ],
    )
    def test_pictures_are_taken_evenly_from_the_stretch_that_is_heard(self, dataset, seconds, frames, taken):
        clip = source(dataset, spec=dataclasses.replace(SPEC, seconds=seconds, frames=frames))[0]
        assert brightness(clip['frames']) == taken

    @pytest.mark.parametrize('seconds, frames', [(1.0, 9), (0.5, 5)])
    def test_more_pictures_than_there_are_is_an_error(self, dataset, seconds, frames):
        spec = dataclasses.replace(SPEC, seconds=seconds, frames=frames)
        with pytest.raises(
            DataError, match=rf'tiny has {frames - 1} pictures in the first .*config.data.frames = {frames}'
        ):
            open_prepared(dataset).remarks(spec)

    def test_another_sample_rate_is_an_error(self, dataset):
        with pytest.raises(DataError, match='tiny has sound at 16000 Hz: config.data.sample_rate = 8000'):
            open_prepared(dataset).remarks(dataclasses.replace(SPEC, sample_rate=8_000))

    def test_padding_and_enlarging_are_remarked_upon(self, dataset):
        remarks = open_prepared(dataset).remarks(dataclasses.replace(SPEC, seconds=2.0, frame_size=64))
        assert remarks == [
            'tiny: clips of 1 s are padded with silence to 2 s',
            'tiny: pictures of 32 pixels are enlarged to 64',
        ]
        assert open_prepared(dataset).remarks(SPEC) == []

    def test_several_splits_are_read_one_after_the_other(self, dataset):
        ids = [[clips[i]['id'] for i in range(len(clips))] for clips in (
            source(dataset, ['train']), source(dataset, ['test']), source(dataset, ['test', 'train'])
        )]  # fmt: skip
        assert ids[2] == ids[1] + ids[0]

    def test_a_copy_in_another_process_reads_the_same(self, dataset):
        clips = source(dataset)
        copy = pickle.loads(pickle.dumps(clips))
        for i in range(len(clips)):
            np.testing.assert_equal(copy[i], clips[i])

    def test_several_labels_are_kept(self, tmp_path, write_prepared, example):
        clips = {'train': [example(0, labels=[0, 1])], 'test': [example(1, labels=[])]}
        path = write_prepared(tmp_path, clips, multi_label=True)
        assert source(path)[0]['label'] == NO_LABEL and source(path).factors(0) == {}
        assert source(path).labels(0).tolist() == [0, 1]
        assert source(path, ['test']).labels(0).tolist() == []


class TestPictures:
    def stored(self, size):
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        file = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
        return file.getvalue(), np.asarray(Image.open(file))

    def test_the_centre_is_cut_out_of_a_picture_that_is_little_larger(self):
        jpeg, pixels = self.stored(256)
        np.testing.assert_array_equal(decode_picture(jpeg, 256, 224), pixels[16:-16, 16:-16])

    @pytest.mark.parametrize('size', [64, 100, 128, 192, 300])
    def test_others_are_scaled_as_a_whole(self, size):
        jpeg, pixels = self.stored(256)
        whole = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        error = np.abs(decode_picture(jpeg, 256, size).astype(float) - np.asarray(whole))
        assert error.mean() < 1.5  # of 255; the decoder halves in another way than Pillow

    def test_another_size_than_the_dataset_states_is_an_error(self):
        with pytest.raises(ValueError, match='broken picture: it has 64 x 64 pixels in place of 256 x 256'):
            decode_picture(self.stored(64)[0], 256, 224)


class TestOpening:
    @pytest.mark.parametrize('below', ['', 'tiny', 'tiny/1.0.0'])
    def test_finds_the_only_dataset_in_a_folder(self, dataset, below):
        found = open_prepared(dataset / below)
        assert found.path.endswith('tiny/1.0.0') and set(found.splits) == {'train', 'test'}

    def test_no_dataset_is_an_error(self, tmp_path):
        for path in (tmp_path, tmp_path / 'nowhere'):
            with pytest.raises(DataError, match='is no prepared dataset.*diffmavil prepare'):
                open_prepared(path)

    def test_storage_without_its_package_is_an_error_that_names_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'gcsfs', None)
        with pytest.raises(DataError, match="gs://bucket/set can't be reached.*gcsfs"):
            open_prepared('gs://bucket/set')

    def test_several_datasets_are_an_error_that_names_them(self, tmp_path, write_prepared, example):
        paths = [write_prepared(tmp_path, {'train': [example()]}, name=name) for name in ('one', 'two')]
        with pytest.raises(DataError, match=f'several prepared datasets.*{paths[0]}, {paths[1]}'):
            open_prepared(tmp_path)

    def test_a_missing_shard_is_an_error(self, tmp_path, write_prepared, example):
        path = pathlib.Path(write_prepared(tmp_path, {'train': [example()]}))
        next(path.glob('*train*')).unlink()
        with pytest.raises(
            DataError, match='not complete: 1 of its shards are missing, the first is tiny-train'
        ):
            open_prepared(path)

    def test_metadata_of_something_else_is_an_error(self, tmp_path, write_prepared, example):
        path = pathlib.Path(write_prepared(tmp_path, {'train': [example()]}))
        (path / 'metadata.json').write_text('{"colour": "blue"}')
        with pytest.raises(DataError, match="can't be read as a prepared dataset: not the metadata"):
            open_prepared(path)

    @pytest.mark.parametrize('splits, what', [(['fold1'], "no split 'fold1'"), ([], 'no clip')])
    def test_a_split_that_is_not_there_is_an_error_that_lists_those_that_are(self, dataset, splits, what):
        with pytest.raises(DataError, match=rf'{what}.*splits are train \(4 clips\), test \(2 clips\)'):
            source(dataset, splits)


@pytest.fixture(scope='module')
def broken(tmp_path_factory, write_prepared, example, jpeg):
    """Ten good clips and five that can't be used, each for a reason of its own."""
    good = example()['frames']
    bad = [
        example(10, audio=np.zeros(0, np.int16)),
        example(11, frames=[]),
        example(12, frames=good[:5]),
        example(13, frames=[*good[:3], good[3][: len(good[3]) // 2], *good[4:]]),
        example(14, frames=[jpeg(0, 16)] * 8),
    ]
    clips = [example(i) for i in range(10)] + bad
    return write_prepared(tmp_path_factory.mktemp('broken'), {'train': clips})


class TestRefusals:
    def test_are_named_with_their_reasons_and_replaced_by_the_next_usable_clip(self, broken):
        clips = source(broken, max_bad_fraction=5 / 15)
        ids = [clips[i]['id'] for i in range(15)]
        refused = {refusal.path: refusal.reason for refusal in clips.refused()}
        assert list(refused) == [f'{i}.mp4@0.000' for i in range(10, 15)]
        reasons = list(refused.values())
        assert reasons[:3] == ['no audio', 'no video', 'wrong frame count: 5, needs 8']
        assert reasons[3].startswith('broken picture: ')
        assert reasons[4] == 'broken picture: it has 16 x 16 pixels in place of 32 x 32'
        assert set(ids) == {f'{i}.mp4@0.000' for i in range(10)}
        again = source(broken)
        assert [again[i]['id'] for i in reversed(range(15))] == ids[::-1], 'whatever was read before'

    def test_a_clip_says_what_it_stands_in_for(self, broken):
        clips = source(broken)
        passed = {i: refusal for k in range(15) for i, refusal in clips[k].get('refused', {}).items()}
        assert sorted(passed.values(), key=lambda refusal: refusal.path) == clips.refused()
        elsewhere = source(broken)
        elsewhere.record(passed)
        assert elsewhere.refused() == clips.refused()

    def test_too_many_are_an_error(self, broken):
        clips = source(broken, max_bad_fraction=4 / 15)
        with pytest.raises(DataError, match=r"5 of 15 clips in .* can't be used.*max_bad_fraction"):
            [clips[i] for i in range(15)]
        with pytest.raises(DataError, match="can't be used"):
            source(broken, max_bad_fraction=4 / 15).record(dict(enumerate(clips.refused())))

    def test_a_damaged_shard_is_refused_record_by_record(self, tmp_path, write_prepared, example):
        path = pathlib.Path(write_prepared(tmp_path, {'train': [example(i) for i in range(4)]}))
        whole = source(path)
        ids = [whole[i]['id'] for i in range(4)]
        shard = next(path.glob('*train*'))
        data = bytearray(shard.read_bytes())
        data[len(data) // 8] ^= 0xFF  # in one of four records, whose order in the file may vary
        shard.write_bytes(data)
        damaged = source(path)
        found = [damaged[i]['id'] for i in range(4)]
        (lost,) = set(ids) - set(found)
        k = ids.index(lost)
        assert found == [*ids[:k], ids[(k + 1) % 4], *ids[k + 1 :]]
        (refusal,) = damaged.refused()
        assert refusal.path == f'tiny train[{k}]' and refusal.reason.startswith('unreadable record: ')


class TestSources:
    def test_opens_the_splits_of_a_config_with_their_coverage(self, tiny, dataset):
        sources = open_sources(tiny(data=SMALL | {'path': str(dataset)}))
        assert (len(sources.train), len(sources.held_out)) == (4, 2)
        assert sources.coverage == '2 of 2,000 evaluation clips present' and sources.notes == ()
        clip = sources.train[0]
        assert clip['frames'].shape == (4, 16, 16, 3) and clip['waveform'].shape == (16_000,)

    def test_a_path_is_needed(self, tiny):
        with pytest.raises(ConfigError, match="config.data.path = '': must be a prepared dataset"):
            open_sources(tiny(data=SMALL))

    def test_splits_of_several_names(self, tiny, tmp_path, write_prepared, example):
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

    def test_parts_of_a_split_are_held_out_where_there_is_one_split(
        self, tiny, tmp_path, write_prepared, example
    ):
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
        self, tiny, tmp_path, write_prepared, example, modality, other
    ):
        without = {'frames': []} if modality == 'audio' else {'audio': np.zeros(0, np.int16)}
        clips = [example(i, **without) for i in range(3)]
        path = write_prepared(tmp_path, {'train': clips, 'test': clips}, modalities=(modality,))
        config = tiny(data=SMALL | {'path': path})
        sources = open_sources(config)
        has = {'audio': 'waveform', 'video': 'frames'}[modality]
        assert set(sources.train[0]) == {has, 'label', 'id'} and sources.train.refused() == []
        require_modalities([sources.train], [modality], 'An embedding')
        error = f'Pretraining needs audio and video, and tiny has no {other}: its clips have {modality} only'
        with pytest.raises(DataError, match=error):
            experiment.run_experiment(
                config, workdir=str(tmp_path / 'run'), overwrite=False, command='', started=0.0
            )
        assert not (tmp_path / 'run').exists()
