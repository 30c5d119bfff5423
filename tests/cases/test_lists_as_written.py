"""A list is read as it is written, by every source alike, or refused by its line."""

import re
import unicodedata

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.folder_index import list_rows
from diffmavil_jax.data.wrappers import Targets
from tests.cases.making import film, listed, tone


def write(root, text, name='list.csv'):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def splits(listing):
    return {row.file: row.split for row in listing.rows}


# Speech Commands: a list holds files out of training.


@pytest.fixture
def words(tmp_path):
    for name in ('yes/a.wav', 'yes/b.wav', 'no/a.wav', 'no/b.wav'):
        tone(tmp_path / name, 0.1)
    write(tmp_path, '', 'validation_list.txt')
    return tmp_path


@pytest.mark.parametrize(
    'line', ['yes/b.wav', './yes/b.wav', 'yes//b.wav', 'yes\\b.wav', '.\\yes\\b.wav', '{root}/yes/b.wav']
)
def test_a_held_out_file_is_found_however_it_is_written(words, line):
    write(words, line.format(root=words) + '\r\n', 'testing_list.txt')
    found = splits(listed('speech_commands', words))
    assert found == {'yes/a.wav': 'train', 'yes/b.wav': 'test', 'no/a.wav': 'train', 'no/b.wav': 'train'}


@pytest.mark.parametrize(
    'line',
    [
        'b.wav', 'yes/B.wav', 'Yes/b.wav', 'speech/yes/b.wav', 'yes/b', 'yes b.wav', '../yes/b.wav',
        '/data/yes/b.wav', 'yes/b.wav,test', 'yess/b.wav',
    ],
)  # fmt: skip
def test_a_held_out_file_that_is_not_found_is_an_error(words, line):
    write(words, f'no/b.wav\n\n{line}\n', 'testing_list.txt')
    with pytest.raises(DataError, match=r'testing_list\.txt, line 3: '):
        listed('speech_commands', words)


def test_a_held_out_file_is_in_one_list(words):
    write(words, 'yes/b.wav\nyes/b.wav\n', 'testing_list.txt')
    assert splits(listed('speech_commands', words))['yes/b.wav'] == 'test'
    write(words, './yes/b.wav\n', 'validation_list.txt')
    with pytest.raises(DataError, match=r'testing_list\.txt, line 1: yes/b\.wav is in validation too'):
        listed('speech_commands', words)


@pytest.mark.parametrize('disk', ['NFC', 'NFD'])
@pytest.mark.parametrize('text', ['NFC', 'NFD'])
def test_two_spellings_of_a_letter_are_one_name(tmp_path, disk, text):
    tone(tmp_path / 'où' / unicodedata.normalize(disk, 'café.wav'), 0.1)
    name = unicodedata.normalize(text, 'où/café.wav')
    write(tmp_path, f'path,split\n{name},test\n')
    (row,) = listed('csv', tmp_path).rows
    assert (tmp_path / row.file).exists()
    other = unicodedata.normalize('NFD' if text == 'NFC' else 'NFC', name)
    write(tmp_path, f'path,split\n{name},test\n{other},train\n')
    with pytest.raises(DataError, match='line 3: .* is in test too'):
        listed('csv', tmp_path)


def test_a_sub_folder_may_have_the_name_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tone(tmp_path / 'a' / 'a' / 'b.wav', 0.1)
    tone(tmp_path / 'a' / 'b.wav', 0.1)
    write(tmp_path, f'path\na/b.wav\n{tmp_path}/a/b.wav\n', 'a/list.csv')
    assert [row.file for row in list_rows(epath.Path('a'), False).rows] == ['a/b.wav', 'b.wav']


# Cells.

TABLES = {
    'csv': ('list.csv', 'path,split,label\na.wav,train,{}\n', 2),
    'esc10': ('meta/esc50.csv', 'filename,fold,category\na.wav,1,{}\n', 2),
    'vggsound': ('vggsound.csv', '-XxUW9gW6mc,60,wind,train\n-XxUW9gW6md,60,{},train\n', 2),
    'audioset': ('eval_segments.csv', '# YTID\n-XxUW9gW6mc, 0, 10, {}\n', 2),
}  # fmt: skip


@pytest.mark.parametrize('source', TABLES)
@pytest.mark.parametrize('cell', ['dog, barking', 'dog,', None, '"dog'])
def test_a_row_with_more_or_fewer_cells_is_refused_by_its_line(tmp_path, source, cell):
    name, text, line = TABLES[source]
    (tmp_path / 'meta').mkdir()
    write(tmp_path, 'index,mid,display_name\n0,dog,Dog\n', 'class_labels_indices.csv')
    tone(tmp_path / 'audio' / 'a.wav', 0.1)
    text = text.replace(',{}', '').replace(', {}', '') if cell is None else text.format(cell)
    write(tmp_path, text, name)
    with pytest.raises(DataError, match=rf'line {line}: '):
        listed(source, tmp_path)
    if source == 'csv':
        with pytest.raises(DataError, match=rf'line {line}: '):
            list_rows(epath.Path(tmp_path), False)


def test_the_message_says_what_to_do(tmp_path):
    write(tmp_path, 'path,split,label\na.wav,train,playing violin, fiddle\n')
    message = (
        'list.csv, line 2: 4 values, not 3: path, split, label. A value that has a comma must be in quotes'
    )
    with pytest.raises(DataError, match=re.escape(message)):
        listed('csv', tmp_path)


@pytest.mark.parametrize(
    'text',
    [
        'path,split\na.wav,train\nb.wav,\n',
        'path\na.wav\nb.wav\n',
        'path,split,label,start_s\na.wav,train,,\nb.wav, ,x, \n',
    ],
)
def test_an_empty_cell_means_the_default_in_every_reader(tmp_path, text):
    write(tmp_path, text)
    for name in 'ab':
        tone(tmp_path / f'{name}.wav', 0.1)
    assert set(splits(listed('csv', tmp_path)).values()) <= {'train', 'validation'}
    rows = list_rows(epath.Path(tmp_path), False).rows
    assert [row.file for row in rows] == ['a.wav', 'b.wav'] and rows[1].split == ''
    header = 'filename,fold,category,esc10\n'
    (tmp_path / 'meta').mkdir()
    write(tmp_path, header + '1.wav,1,dog,\n2.wav,1,dog,False\n', 'meta/esc50.csv')
    assert [row.file for row in listed('esc10', tmp_path).rows] == ['audio/1.wav']
    write(tmp_path, header + '1.wav,1,dog,yes\n', 'meta/esc50.csv')
    with pytest.raises(DataError, match="line 2: esc10 = 'yes'"):
        listed('esc10', tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path,label\na.wav,dog\n./a.wav,cat\n', 'line 3: a.wav is cat here and dog before'),
        ('path,split\na.wav,train\n./a.wav,test\n', 'line 3: a.wav is in train too'),
        ('path,path\na.wav,b.wav\n', "has the column 'path' twice"),
        ('path;split\na.wav;train\n', "its columns are separated by ';'"),
        ('path\tsplit\na.wav\ttrain\n', "its columns are separated by '\\t'"),
        ('path,label\na.wav,"dog\nb.wav,cat"\n', 'line 2: label = '),
        ('path,start_s\na.wav,1_0\n', "line 2: start_s = '1_0'"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, text, message):
    write(tmp_path, text)
    for read in (lambda: listed('csv', tmp_path), lambda: list_rows(epath.Path(tmp_path), False)):
        with pytest.raises(DataError, match=re.escape(message)):
            read()


def test_repeated_rows_count_once(tmp_path):
    write(tmp_path, 'path,label\na.wav,x\n./a.wav, x\n')
    assert len(listed('csv', tmp_path).rows) == 1
    film(tmp_path / '-XxUW9gW6mc.mkv', 1.0)
    write(tmp_path, '-XxUW9gW6mc,60,wind,train\n' * 2, 'vggsound.csv')
    listing = listed('vggsound', tmp_path)
    assert len(listing.rows) == 1 and listing.notes == ('1 rows are repeated and were taken once',)
    write(tmp_path, '-XxUW9gW6mc,60,wind,train\n-XxUW9gW6mc,60,wind,test\n', 'vggsound.csv')
    with pytest.raises(DataError, match='line 2: -XxUW9gW6mc from 60 s is in train too'):
        listed('vggsound', tmp_path)


@pytest.mark.parametrize('other', [b'Datum;Bemerkung\n1.2.2024;sch\xf6n\n', b'\x00\x01\xff', b'', b'a,b\n"x'])
def test_a_csv_that_is_no_list_stops_nothing(tmp_path, other):
    write(tmp_path, other, 'notes.csv')
    tone(tmp_path / 'a.wav', 0.1)
    listing = list_rows(epath.Path(tmp_path), False)
    assert [row.file for row in listing.rows] == ['a.wav']
    assert listing.notes == ('notes.csv has no column path, so it is no list',)
    write(tmp_path, 'path,split\na.wav,test\n')
    assert [row.split for row in list_rows(epath.Path(tmp_path), False).rows] == ['held-out']
    assert splits(listed('csv', tmp_path)) == {'a.wav': 'test'}
    (tmp_path / 'meta').mkdir()
    write(tmp_path, other, 'meta/a.csv')
    write(tmp_path, 'filename,fold,category\n1.wav,1,dog\n', 'meta/esc50.csv')
    assert len(listed('esc10', tmp_path).rows) == 1


def test_a_list_from_a_spreadsheet(tmp_path):
    """UTF-16 with its mark, columns in capitals, CRLF, and a row of commas at the end."""
    text = 'Path,Split,Label\r\nété.wav,test,"a, b"\r\n,,\r\n'
    write(tmp_path, text.encode('utf-16'))
    (row,) = listed('csv', tmp_path).rows
    assert (row.file, row.split) == ('été.wav', 'test')
    assert listed('csv', tmp_path).class_names == ('a, b',)


def test_a_file_that_is_listed_as_held_out_never_trains(tmp_path, open_folder):
    """Though it is the only usable one, and other rows leave the split to the hash of the name."""
    film(tmp_path / 'a.mkv', 1.0, sound_s=1.0)
    write(tmp_path, 'broken', 'b.mkv')
    write(tmp_path, 'path,split\na.mkv,test\nb.mkv,\n')
    with pytest.raises(DataError, match='no usable training clip'):
        open_folder(tmp_path, eval_fraction=0.0, max_bad_fraction=1.0)


def test_training_on_a_folder_reads_several_labels_as_prepare_does(tmp_path, open_folder):
    for name in 'ab':
        film(tmp_path / f'{name}.mkv', 1.0, sound_s=1.0)
    write(tmp_path, 'path,split,labels\na.mkv,train,dog;cat\nb.mkv,test,\n')
    sources = open_folder(tmp_path)
    assert sources.train.multi_label and sources.train.label_names == ('cat', 'dog')
    assert sources.train.labels(0).tolist() == [0, 1] and sources.eval.labels(0).tolist() == []
    assert sources.train[0]['label'] == -1
    assert Targets(sources.train, ('audio',))[0]['target'].tolist() == [1, 1]
