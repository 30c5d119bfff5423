"""The format of prepared datasets: what is written is read back, by TFDS too."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffmavil_jax.data.prepared.format import Metadata, example_features


def test_metadata_survives_json_types():
    metadata = Metadata(
        source='esc50', modalities=('audio',), class_names=('a', 'b'), expected={'fold1': 400}
    )
    assert Metadata.from_dict(metadata.to_dict()) == metadata
    assert Metadata.from_dict(metadata.to_dict() | {'of_a_later_version': 1}) == metadata


@pytest.mark.parametrize(
    'values', [{}, {'source': 'x', 'modalities': ['smell']}, {'source': 'x', 'modalities': []}]
)
def test_other_metadata_is_an_error(values):
    with pytest.raises(ValueError, match='modalities|metadata of a prepared dataset'):
        Metadata.from_dict(values)


def test_tfds_reads_back_what_was_written_without_tensorflow(dataset, example):
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


def test_a_clip_may_have_no_sound_no_picture_and_no_label(example):
    features = example_features()
    empty = example(audio=np.zeros(0, np.int16), frames=[], labels=[])
    read = features.deserialize_example_np(features.serialize_example(empty))
    assert [len(read[name]) for name in ('audio', 'frames', 'labels')] == [0, 0, 0]
