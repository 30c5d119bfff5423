"""The clips of a prepared dataset: what is in them, and what replaces bad ones."""

import dataclasses
import io
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from diffmavil_jax.data.clip import NO_LABEL, DataError
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource, decode_picture
from diffmavil_jax.data.take import Crop, Take, Takes, cut_picture
from tests.data.prepared.opening import SPEC, open_source


def brightness(frames):
    """The brightness of the left half of each picture, in units of the step that `example` uses."""
    return (frames[:, :, 1 : frames.shape[2] // 2 - 1].mean(axis=(1, 2, 3)) / 20).round().astype(int).tolist()


def test_a_clip_is_what_was_stored(dataset, example):
    clips = open_source(dataset)
    assert len(clips) == 4 and clips.modalities == ('audio', 'video') and clips.label_names == ('cat', 'dog')
    for i in range(4):
        clip = clips[i]
        number = int(clip['id'].split('.')[0])
        written = example(number)
        np.testing.assert_array_equal(clip['waveform'], written['audio'])
        # Another decoder; both use libjpeg-turbo, and agree to the bit.
        pillow = [np.asarray(Image.open(io.BytesIO(frame))) for frame in written['frames']]
        np.testing.assert_array_equal(clip['frames'], pillow)
        assert clip['waveform'].dtype == np.int16 and clip['frames'].dtype == np.uint8
        assert clip['label'] == number % 2 and clips.labels(i).tolist() == [number % 2]
        assert clips.factors(i) == {'label': number % 2}
        assert 'refused' not in clip
    with pytest.raises(IndexError):
        clips[4]


@pytest.mark.parametrize('seconds, samples', [(0.25, 4_000), (1.0, 16_000), (1.5, 24_000)])
def test_sound_is_cut_or_padded_with_silence(dataset, seconds, samples):
    clip = open_source(dataset, spec=dataclasses.replace(SPEC, seconds=seconds, frames=2))[0]
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
        (0.5, 4, [0, 1, 2, 3]),  # pictures from the time of the sound
        (0.5, 2, [1, 3]),
    ],
)
def test_pictures_are_taken_evenly_from_the_stretch_that_is_heard(dataset, seconds, frames, taken):
    clip = open_source(dataset, spec=dataclasses.replace(SPEC, seconds=seconds, frames=frames))[0]
    assert brightness(clip['frames']) == taken


def test_several_splits_are_read_one_after_the_other(dataset):
    def ids(*splits):
        clips = open_source(dataset, splits)
        return [clips[i]['id'] for i in range(len(clips))]

    assert ids('test', 'train') == ids('test') + ids('train')


def test_a_copy_in_another_process_reads_the_same(dataset):
    clips = open_source(dataset)
    copy = pickle.loads(pickle.dumps(clips))
    for i in range(len(clips)):
        np.testing.assert_equal(copy[i], clips[i])


def test_several_labels_are_kept(tmp_path, write_prepared, example):
    clips = {'train': [example(0, labels=[0, 1])], 'test': [example(1, labels=[])]}
    path = write_prepared(tmp_path, clips, multi_label=True)
    assert open_source(path)[0]['label'] == NO_LABEL and open_source(path).factors(0) == {}
    assert open_source(path).labels(0).tolist() == [0, 1]
    assert open_source(path, ['test']).labels(0).tolist() == []


def stored(size):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    file = io.BytesIO()
    coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
    return file.getvalue(), np.asarray(Image.open(file))


def test_the_centre_is_cut_out_of_a_picture_that_is_little_larger():
    jpeg, pixels = stored(256)
    np.testing.assert_array_equal(decode_picture(jpeg, 256, 224), pixels[16:-16, 16:-16])


@pytest.mark.parametrize('size', [64, 100, 128, 192, 300])
def test_others_are_scaled_as_a_whole(size):
    jpeg, pixels = stored(256)
    whole = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    error = np.abs(decode_picture(jpeg, 256, size).astype(float) - np.asarray(whole))
    assert error.mean() < 1.5  # of 255; the decoder halves pictures differently from Pillow


def test_another_size_than_the_dataset_states_is_an_error():
    with pytest.raises(ValueError, match='broken picture: it has 64 x 64 pixels in place of 256 x 256'):
        decode_picture(stored(64)[0], 256, 224)


@pytest.fixture(scope='module')
def broken(tmp_path_factory, write_prepared, example, jpeg):
    """Ten good clips, and five that can't be used for five reasons."""
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


def test_refusals_are_named_with_their_reasons_and_replaced_by_the_next_usable_clip(broken):
    clips = open_source(broken, max_bad_fraction=5 / 15)
    ids = [clips[i]['id'] for i in range(15)]
    refused = {refusal.path: refusal.reason for refusal in clips.refused()}
    assert list(refused) == [f'{i}.mp4@0.000' for i in range(10, 15)]
    reasons = list(refused.values())
    assert reasons[:3] == ['no audio', 'no video', 'wrong frame count: 5, needs 8']
    assert reasons[3].startswith('broken picture: ')
    assert reasons[4] == 'broken picture: it has 16 x 16 pixels in place of 32 x 32'
    assert set(ids) == {f'{i}.mp4@0.000' for i in range(10)}
    again = open_source(broken)
    assert [again[i]['id'] for i in reversed(range(15))] == ids[::-1], 'whatever was read before'


def test_a_clip_says_what_it_stands_in_for(broken):
    clips = open_source(broken)
    passed = {i: refusal for k in range(15) for i, refusal in clips[k].get('refused', {}).items()}
    assert sorted(passed.values(), key=lambda refusal: refusal.path) == clips.refused()
    elsewhere = open_source(broken)
    elsewhere.record(passed)
    assert elsewhere.refused() == clips.refused()


def test_too_many_refusals_are_an_error(broken):
    clips = open_source(broken, max_bad_fraction=4 / 15)
    with pytest.raises(DataError, match=r"5 of 15 clips in .* can't be used.*max_bad_fraction"):
        [clips[i] for i in range(15)]
    with pytest.raises(DataError, match="can't be used"):
        open_source(broken, max_bad_fraction=4 / 15).record(dict(enumerate(clips.refused())))


def test_a_damaged_shard_is_refused_record_by_record(tmp_path, write_prepared, example):
    path = pathlib.Path(write_prepared(tmp_path, {'train': [example(i) for i in range(4)]}))
    whole = open_source(path)
    ids = [whole[i]['id'] for i in range(4)]
    shard = next(path.glob('*train*'))
    data = bytearray(shard.read_bytes())
    data[len(data) // 8] ^= 0xFF  # in one of four records, whose order in the file may vary
    shard.write_bytes(data)
    damaged = open_source(path)
    found = [damaged[i]['id'] for i in range(4)]
    (lost,) = set(ids) - set(found)
    k = ids.index(lost)
    assert found == [*ids[:k], ids[(k + 1) % 4], *ids[k + 1 :]]
    (refusal,) = damaged.refused()
    assert refusal.path == f'tiny train[{k}]' and refusal.reason.startswith('unreadable record: ')


def test_a_random_take_has_sound_and_pictures_of_one_time(dataset):
    spec = dataclasses.replace(SPEC, seconds=0.5, frames=2, video_seconds=0.25)
    clips, starts, rooms = open_source(dataset, spec=spec), set(), set()
    for i in range(60):
        clip = clips.read(i % 4, Takes(1, start=True, video=True)(i))
        number = int(clip['id'].split('.')[0])
        first, shown = int(clip['waveform'][0]) - number, brightness(clip['frames'])
        np.testing.assert_array_equal(clip['waveform'], number + first + np.arange(8_000))
        assert first % 2_000 == 0 and shown[1] == shown[0] + 1  # a picture is stored every 2,000 samples
        starts.add(first // 2_000)
        rooms.add(shown[0] - first // 2_000)
    assert starts == {0, 1, 2, 3, 4} and rooms == {0, 1, 2}
    assert brightness(clips[0]['frames']) == [1, 2] and clips[0]['waveform'][0] == 0


def test_sound_alone_begins_at_any_sample(dataset):
    dataset = open_prepared(dataset)
    spec = dataclasses.replace(SPEC, seconds=0.5)
    clips = PreparedSource(dataset, ['train'], spec, Ledger(dataset.path, 6, 0.0), ('audio',))
    draw = Takes(1, start=True)
    firsts = [int(clips.read(0, draw(i))['waveform'][0]) for i in range(50)]
    assert len(set(firsts)) > 45 and min(firsts) < 500 and max(firsts) > 7_500
    assert (clips.read(0, Take(start=1 - 1e-9))['waveform'] == 8_000 + np.arange(8_000)).all()


def test_all_pictures_of_a_clip_are_cut_and_turned_alike(tmp_path, write_prepared, example):
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
    path = write_prepared(tmp_path, {'train': [example(frames=[file.getvalue()] * 8)]}, frame_size=48)
    clips = open_source(path)
    take = Take(crop=Crop(0.7, 0.9, 0.2, 0.6))
    pictures = clips.read(0, take)['frames']
    assert pictures.shape == (8, 32, 32, 3) and (pictures == pictures[0]).all()
    np.testing.assert_array_equal(pictures[0], cut_picture(np.asarray(Image.open(file)), take.crop, 32))
    turned = clips.read(0, dataclasses.replace(take, flip=True))['frames']
    np.testing.assert_array_equal(turned, pictures[:, :, ::-1])


def test_a_random_take_that_is_broken_gives_way_to_the_fixed_one_whatever_was_read_before(
    tmp_path, write_prepared, example
):
    good = example()['frames']
    last_broken = [*good[:7], b'']  # the fixed take has no need of it
    clips = [example(0, frames=last_broken), example(1), example(2, frames=[b'', *good[1:]])]
    path = write_prepared(tmp_path, {'train': clips})
    spec = dataclasses.replace(SPEC, seconds=0.5, frames=4)
    early, late = Take(start=0.0), Take(start=0.999)

    def ids(source, takes):
        return [(source.read(i, take)['id'], int(source.read(i, take)['waveform'][0])) for i, take in takes]

    order = [(i, take) for i in range(3) for take in (late, early)]
    expected = ids(open_source(path, spec=spec), order)
    source = open_source(path, spec=spec)
    numbers = {int(source[i]['id'].split('.')[0]) for i in range(3)}
    assert numbers == {0, 1}, 'the fixed take of clip 2 is broken'
    assert ids(source, order[::-1]) == expected[::-1]
    assert ('2.mp4@0.000', 2 + 8_000) in expected, 'its late take is not'
    assert ('0.mp4@0.000', 0) in expected and ('0.mp4@0.000', 8_000) not in expected
