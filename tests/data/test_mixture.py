"""Several datasets as one source: their clips, classes and shares."""

import collections
import itertools
import shutil

import numpy as np
import pytest

from diffmavil_jax.data.clip import NO_LABEL, DataError, Refusal
from diffmavil_jax.data.mixture import Mixture, endless
from diffmavil_jax.data.pipeline import Loader
from diffmavil_jax.data.sources import open_sources

# Grain shuffles a few clips a hundred times more slowly than many.
LENGTHS = (90, 40, 300)


class Part:
    """Clip i holds the number i, and the number of its part."""

    multi_label = False

    def __init__(self, k, length, modalities=('audio', 'video'), label_names=()):
        self.name, self.length, self.k = f'part {k}', length, k
        self.modalities, self.label_names, self.refusals = modalities, label_names, {}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(index)
        arrays = {
            'waveform': np.array([self.k, index], np.int16),
            'frames': np.full((1, 1, 1, 3), index % 256, np.uint8),
        }
        kept = [
            name
            for modality, name in zip(('audio', 'video'), arrays, strict=True)
            if modality in self.modalities
        ]
        clip = {name: arrays[name] for name in kept}
        label = index % len(self.label_names) if self.label_names else NO_LABEL
        return clip | {'label': label, 'id': str(index)}

    def refused(self):
        return list(self.refusals.values())

    def record(self, refused):
        self.refusals |= refused

    def factors(self, index):
        return {'label': self[index]['label']} if self.label_names else {}

    def labels(self, index):
        return np.array(list(self.factors(index).values()), np.int64)


def mixture(weights=(2, 1, 1)):
    return Mixture([Part(k, length) for k, length in enumerate(LENGTHS)], weights)


def order(source, first, count, seed=5, **options):
    """(position, part, number) of the clips that a host reads."""
    settings = {'threads': 2, 'prefetch_batches': 1, 'largest_batch': 8, **options}
    sizes = [8] * (count // 8)
    loaded = Loader(source, seed=seed, **settings).batches(first, sizes)
    return [
        (int(position), int(part), int(number))
        for batch, _ in loaded
        for position, (part, number) in zip(batch['position'], batch['waveform'], strict=True)
    ]


@pytest.mark.parametrize('weights', [(2, 1, 1), (1, 1, 1), (0.5, 3, 1.5)])
def test_any_stretch_holds_the_parts_by_their_weights(weights):
    parts = [part for _, part, _ in order(mixture(weights), 0, 240)]
    for start, length in [(0, 8), (3, 40), (100, 120)]:
        counts = collections.Counter(parts[start : start + length])
        for k, weight in enumerate(weights):
            assert abs(counts[k] - length * weight / sum(weights)) < 2


def test_without_weights_each_clip_weighs_the_same():
    counts = collections.Counter(part for _, part, _ in order(mixture(()), 0, 432))
    assert all(abs(counts[k] - length) <= 2 for k, length in enumerate(LENGTHS))


def test_each_part_is_shuffled_anew_in_each_of_its_own_epochs():
    clips = order(mixture((3, 2, 5)), 0, 1_200)
    for k, length in enumerate(LENGTHS):
        numbers = [number for _, part, number in clips if part == k]
        epochs = [tuple(numbers[i : i + length]) for i in range(0, len(numbers) - length + 1, length)]
        assert len(epochs) >= 2 and all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert len({*epochs, tuple(range(length))}) == len(epochs) + 1


def test_the_seed_decides_the_order():
    assert order(mixture(), 0, 80) == order(mixture(), 0, 80)
    assert order(mixture(), 0, 80, seed=6) != order(mixture(), 0, 80)


@pytest.mark.parametrize('first', [0, 1, 57])
def test_four_hosts_share_the_clips_of_one_from_any_position(first):
    alone = order(mixture(), 0, 240)[first : first + 160]
    hosts = [order(mixture(), first, 160, host=host, hosts=4) for host in range(4)]
    assert [len(host) for host in hosts] == [40] * 4
    assert sorted(itertools.chain(*hosts)) == alone


def test_one_source_keeps_the_order_that_it_has_without_a_mixture():
    assert order(Mixture([Part(0, 90)]), 0, 120) == order(Part(0, 90), 0, 120)


def test_endless_is_random_access():
    dataset = endless(mixture(), 5)
    numbers = [number for _, _, number in order(mixture(), 0, 80)]
    assert [int(dataset[i]['waveform'][1]) for i in (70, 3, 41)] == [numbers[i] for i in (70, 3, 41)]


def test_items_are_those_of_the_parts_under_their_names():
    mixed = mixture()
    assert len(mixed) == sum(LENGTHS) and mixed.name == 'part 0, part 1, part 2'
    ids = [mixed[i]['id'] for i in range(len(mixed))]
    assert ids == [f'part {k}/{i}' for k, length in enumerate(LENGTHS) for i in range(length)]
    for index in (-1, len(mixed)):
        with pytest.raises(IndexError):
            mixed[index]


def test_classes_are_those_of_all_parts_by_name():
    animals, pets = Part(0, 3, label_names=('cat', 'cow')), Part(1, 3, label_names=('dog', 'cat'))
    mixed = Mixture([animals, pets, Part(2, 1)])
    assert mixed.label_names == ('cat', 'cow', 'dog')
    names = ['cat', 'cow', 'cat', 'dog', 'cat', 'dog']
    labels = [mixed.label_names.index(name) for name in names] + [NO_LABEL]
    assert [mixed[i]['label'] for i in range(7)] == labels
    assert [mixed.factors(i)['label'] for i in range(7)] == labels
    assert mixture().factors(0) == {}


def test_a_clip_has_the_modalities_that_all_parts_have():
    mixed = Mixture([Part(0, 2), Part(1, 2, ('audio',))])
    assert mixed.modalities == ('audio',)
    assert all(set(mixed[i]) == {'waveform', 'label', 'id'} for i in range(4))
    with pytest.raises(DataError, match='part 0 has video; part 1 has audio'):
        Mixture([Part(0, 2, ('video',)), Part(1, 2, ('audio',))])


def test_parts_need_names_of_their_own():
    with pytest.raises(DataError, match='must have a name of its own: part 0, part 0'):
        Mixture([Part(0, 2), Part(0, 3)])


def test_refusals_go_to_their_part():
    class Broken(Part):
        def __getitem__(self, index):
            return super().__getitem__(3) | {'refused': {2: Refusal('2', 'silent')}}

    mixed = Mixture([Part(0, 5), Broken(1, 4)])
    mixed.record(mixed[5 + 2]['refused'])
    assert [part.refusals for part in mixed.parts] == [{}, {2: Refusal('2', 'silent')}]
    assert mixed.refused() == [Refusal('part 1/2', 'silent')]


def test_a_config_mixes_prepared_datasets(tiny, tmp_path, write_prepared, example):
    clips = [example(i) for i in range(12)]
    one = write_prepared(tmp_path, {'train': clips[:9], 'test': clips[9:]}, name='one', expected={'test': 5})
    two = write_prepared(tmp_path, {'train': clips[:4], 'eval': clips[4:]}, name='two', class_names=('dog',))
    data = {'source': 'tfds', 'path': f'{one},{two}', 'frame_size': 32, 'frames': 4, 'weights': '3,1'}
    sources = open_sources(tiny(data=data))
    assert (sources.train.name, sources.train.weights) == ('one, two', (3.0, 1.0))
    assert (len(sources.train), len(sources.held_out)) == (13, 11)
    assert sources.train.label_names == sources.held_out.label_names == ('cat', 'dog')
    assert sources.coverage == '3 of 5 evaluation clips present in one'
    ids = [clip['id'] for clip in endless(sources.train, 0)[:20]]
    assert sum(name.startswith('one/') for name in ids) == 15
    named = open_sources(tiny(data=data | {'eval_split': 'test,eval', 'weights': ''}))
    assert len(named.held_out) == 11 and named.train.weights == (9.0, 4.0)
    copies = open_sources(tiny(data=data | {'path': f'{one},{shutil.copytree(one, tmp_path / "copy")}'}))
    assert copies.train.name == f'{one}, {tmp_path / "copy"}'
