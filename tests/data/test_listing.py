"""Lists as they are published, the rows that are made of them, and the errors."""

import collections
import pathlib
import re

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request, Row

HERE = pathlib.Path(__file__).parent
# The first lines of the published files of AudioSet, with other ids.
SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
-_abcdefgh0, 30.000, 40.000, "/m/09x0r,/t/dd00088"
abcdefgh-_1, 0.000, 10.000, "/m/09x0r"
abcdefgh__2, 1.500, 9.000, "/m/05zppz"
"""
CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/t/dd00088,"Gush"
"""


def write(folder, **files):
    """Writes texts to files. In their names '__' stands for '/' and '.': a__b__csv is a/b.csv."""
    for name, text in files.items():
        *parents, stem, suffix = name.split('__')
        path = folder.joinpath(*parents, f'{stem}.{suffix}')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'')
    return folder


def read(source, folder, **changes):
    changes = {k: epath.Path(v) if k == 'labels' else v for k, v in changes.items()}
    return SOURCES[source].read(Request(epath.Path(folder), **changes))


def splits(listing):
    return dict(collections.Counter(row.split for row in listing.rows))


def test_audioset_as_published(tmp_path):
    write(tmp_path, eval_segments__csv=SEGMENTS, class_labels_indices__csv=CLASSES)
    touch(tmp_path, 'eval/-_abcdefgh0.mp4', 'x/Yabcdefgh-_1.wav', 'notes.txt')
    listing = read('audioset', tmp_path)
    assert listing.class_names == ('Speech', 'Male speech, man speaking', 'Gush')
    assert listing.multi_label
    assert listing.rows == [
        Row('-_abcdefgh0', 'eval', 'eval/-_abcdefgh0.mp4', 30.0, 10.0, (0, 2), is_segment=True),
        Row('abcdefgh-_1', 'eval', 'x/Yabcdefgh-_1.wav', 0.0, 10.0, (0,), is_segment=True),
        Row('abcdefgh__2', 'eval', None, 1.5, 7.5, (1,), is_segment=True),
    ]


def test_audioset_splits_are_the_names_of_its_files(tmp_path):
    write(
        tmp_path,
        balanced_train_segments__csv=SEGMENTS,
        unbalanced_train_segments__csv=SEGMENTS,
        eval_segments__csv=SEGMENTS,
    )
    labels = write(tmp_path / 'other', classes__csv=CLASSES) / 'classes.csv'
    touch(tmp_path, '-_abcdefgh0.mp4')
    listing = read('audioset', tmp_path, labels=labels)
    assert splits(listing) == {'balanced_train': 3, 'unbalanced_train': 3, 'eval': 3}


@pytest.mark.parametrize(
    'stem',
    [
        '-_abcdefgh0', 'Y-_abcdefgh0', '-_abcdefgh0_30', '-_abcdefgh0_000030', '-_abcdefgh0_30.000',
        'Y-_abcdefgh0_30000', '-_abcdefgh0_30_40', 'Y-_abcdefgh0_30.000_40.000', '-_abcdefgh0_30000_40000',
    ],
)  # fmt: skip
def test_a_segment_is_found_under_the_names_that_are_in_use(tmp_path, stem):
    write(tmp_path, eval_segments__csv=SEGMENTS, class_labels_indices__csv=CLASSES)
    touch(tmp_path, f'a/{stem}.mkv', 'abcdefgh-_1_30.mp4', 'xabcdefgh-_1.mp4')
    assert [row.file for row in read('audioset', tmp_path).rows] == [f'a/{stem}.mkv', None, None]


def test_vggsound_as_published(tmp_path):
    table = '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, burbling",train\n'
    write(tmp_path, vggsound__csv=table)
    touch(tmp_path, 'video/--0PQM4-hqg_000030.mp4')
    listing = read('vggsound', tmp_path)
    assert listing.class_names == ('people marching', 'waterfall, burbling')
    assert not listing.multi_label
    file = 'video/--0PQM4-hqg_000030.mp4'
    assert listing.rows == [
        Row('---g-f_I2yQ', 'test', None, 1.0, 10.0, (0,), is_segment=True),
        Row('--0PQM4-hqg', 'train', file, 30.0, 10.0, (1,), is_segment=True),
    ]


def test_esc_folds_and_classes():
    ten, fifty = read('esc10', HERE / 'esc10'), None
    assert splits(ten) == {'fold1': 2, 'fold2': 1, 'fold3': 1, 'fold4': 2}
    by_file = {row.file: ten.class_names[row.labels[0]] for row in ten.rows}
    assert by_file['audio/1-59324-A-21.flac'] == 'sneezing'
    assert ten.class_names[:2] == ('dog', 'rain') and len(ten.class_names) == 10
    with pytest.raises(DataError, match='its 3 classes are not 0, 1, 2'):
        fifty = read('esc50', HERE / 'esc10')
    assert fifty is None


def test_esc50_numbers_its_classes_by_target(tmp_path):
    header = 'filename,fold,target,category,esc10,src_file,take\n'
    rows = '1-9-A-1.wav,1,1,rooster,True,9,A\n5-8-B-0.wav,5,0,dog,True,8,B\n5-7-A-2.wav,5,2,pig,False,7,A\n'
    write(tmp_path, meta__esc50__csv=header + rows)
    fifty, ten = read('esc50', tmp_path), read('esc10', tmp_path)
    assert fifty.class_names == ('dog', 'rooster', 'pig')
    assert fifty.rows[1] == Row('audio/5-8-B-0.wav', 'fold5', 'audio/5-8-B-0.wav', labels=(0,))
    assert [ten.class_names[row.labels[0]] for row in ten.rows] == ['rooster', 'dog']


def test_speech_commands_as_published(tmp_path):
    touch(tmp_path, 'yes/a_nohash_0.wav', 'yes/b_nohash_0.wav', 'no/a_nohash_1.wav')
    touch(tmp_path, '_background_noise_/pink.wav', 'LICENSE', 'README.md')
    write(
        tmp_path,
        validation_list__txt='no/a_nohash_1.wav\n',
        testing_list__txt='yes/b_nohash_0.wav\nno/gone.wav\n',
    )
    listing = read('speech_commands', tmp_path)
    assert listing.class_names == ('no', 'yes')
    assert {row.file: (row.split, row.labels) for row in listing.rows} == {
        'yes/a_nohash_0.wav': ('train', (1,)),
        'no/a_nohash_1.wav': ('validation', (0,)),
        'yes/b_nohash_0.wav': ('test', (1,)),
        'no/gone.wav': ('test', (0,)),
    }
    (tmp_path / 'testing_list.txt').unlink()
    with pytest.raises(DataError, match=r'testing_list\.txt is missing'):
        read('speech_commands', tmp_path)


def test_spoken_digits():
    listing = read('spoken_digit', HERE / 'fsdd')
    assert splits(listing) == {'test': 6, 'train': 6}
    assert all(row.split == ('test' if '_4.wav' in row.file else 'train') for row in listing.rows)
    assert all(listing.class_names[row.labels[0]] == row.file.split('/')[1][0] for row in listing.rows)


def test_a_folder_holds_files_out_by_a_hash_of_their_names(tmp_path):
    touch(tmp_path, *(f'{i % 3}/{i}.mp4' for i in range(200)), '.hidden/x.mp4', 'a.txt')
    listing = read('folder', tmp_path, eval_fraction=0.25)
    assert 30 < splits(listing)['validation'] < 70
    assert len(listing.rows) == 200 and listing.class_names == ()
    (tmp_path / '0/0.mp4').unlink()
    before = {row.file: row.split for row in listing.rows}
    assert all(before[row.file] == row.split for row in read('folder', tmp_path, eval_fraction=0.25).rows)


def test_sub_folders_are_classes_only_if_requested(tmp_path):
    touch(tmp_path, 'dog/a.mp4', 'cat/b/c.mp4')
    assert [row.labels for row in read('folder', tmp_path).rows] == [(), ()]
    listing = read('folder', tmp_path, folder_labels=True)
    assert listing.class_names == ('cat', 'dog')
    assert {row.file: row.labels for row in listing.rows} == {'cat/b/c.mp4': (0,), 'dog/a.mp4': (1,)}
    touch(tmp_path, 'd.mp4')
    with pytest.raises(DataError, match=r'd\.mp4 is in no sub-folder'):
        read('folder', tmp_path, folder_labels=True)


def test_csv(tmp_path):
    table = 'path,split,label,start_s,duration_s\na/b.mp4,train,dog,1.5,4\nc.wav,test,cat,,\n'
    table += 'a/b.mp4,train,dog,1.5,4\n'
    listing = read('csv', write(tmp_path, list__csv=table))
    assert listing.rows == [
        Row('a/b.mp4', 'train', 'a/b.mp4', 1.5, 4.0, (1,)),
        Row('c.wav', 'test', 'c.wav', labels=(0,)),
    ]
    assert listing.notes == ('1 rows are repeated and were taken once',)


def test_csv_with_several_labels_in_a_given_order(tmp_path):
    table = 'path,labels\na.mp4,dog; cat\nb.mp4,\n'
    write(tmp_path, list__csv=table, names__txt='dog\nfish\ncat\n')
    listing = read('csv', tmp_path, labels=tmp_path / 'names.txt')
    assert listing.multi_label and listing.class_names == ('dog', 'fish', 'cat')
    assert [row.labels for row in listing.rows] == [(0, 2), ()]


def test_of_two_csvs_the_telling_one_is_taken(tmp_path):
    write(tmp_path, a__csv='path,transcript\na.mp4,hello\n', b__csv='path,split\na.mp4,test\n')
    assert read('csv', tmp_path).rows[0].split == 'test'
    write(tmp_path, c__csv='path,split\na.mp4,train\n')
    with pytest.raises(DataError, match=r'found b\.csv, c\.csv'):
        read('csv', tmp_path)
    assert read('csv', tmp_path, tables=(epath.Path(tmp_path / 'c.csv'),)).rows[0].split == 'train'


@pytest.mark.parametrize(
    'path',
    [
        '../a.mp4',
        '/etc/passwd',
        'a/../../b.mp4',
        '',
        '.',
        'C:/a.mp4',
        'a\\..\\b.mp4',
        'http://x/a.mp4',
        'a\0b',
    ],
)
def test_a_path_never_leads_out_of_the_input(tmp_path, path):
    (tmp_path / 'list.csv').write_text(f'path,split\n"{path}",train\n')
    with pytest.raises(DataError, match=r'list\.csv, line [12]|can\'t be read'):
        read('csv', tmp_path)
    write(tmp_path, meta__esc50__csv=f'filename,fold,target,category,esc10\n"{path}",1,0,dog,True\n')
    with pytest.raises(DataError, match=r"must be below the input|can't be read"):
        read('esc10', tmp_path)


def test_a_name_may_have_a_colon(tmp_path):
    assert read('csv', write(tmp_path, list__csv='path\n12:30.mp4\n')).rows[0].file == '12:30.mp4'


def test_links_to_folders_are_followed_and_no_file_is_listed_twice(tmp_path):
    root = touch(tmp_path / 'root', 'a/b/1.mp4')
    touch(tmp_path, 'elsewhere/2.mp4')
    (root / 'a' / 'there').symlink_to(tmp_path / 'elsewhere')
    for name, target in {'b': root / 'a' / 'b', 'loop': root, 'up': tmp_path}.items():
        (root / name).symlink_to(target)
    assert [row.file for row in read('folder', root).rows] == ['a/b/1.mp4', 'a/there/2.mp4']


@pytest.mark.parametrize(
    ('source', 'files', 'message'),
    [
        ('csv', {'l__csv': 'path,split\na.mp4,train\na.mp4,test\n'}, 'line 3: a.mp4 is in train too'),
        ('csv', {'l__csv': 'path,split\na.mp4,my split\n'}, "line 2: split = 'my split'"),
        ('csv', {'l__csv': 'path,split\na.mp4,all\n'}, "not 'all'"),
        ('csv', {'l__csv': 'path,start_s\na.mp4,-1\n'}, "line 2: start_s = '-1'"),
        ('csv', {'l__csv': 'path,duration_s\na.mp4,nan\n'}, "line 2: duration_s = 'nan'"),
        ('csv', {'l__csv': 'path,label,labels\na.mp4,a,b\n'}, 'keep one of them'),
        ('csv', {'l__csv': 'path\n'}, 'has no rows'),
        ('csv', {'l__csv': 'file\na.mp4\n'}, 'found none'),
        ('folder', {'l__csv': ''}, 'No media'),
        ('audioset', {'l__csv': ''}, 'None of balanced_train_segments.csv'),
        ('audioset', {'eval_segments__csv': SEGMENTS}, 'class_labels_indices.csv is missing'),
        ('vggsound', {'a__mp4': ''}, 'vggsound.csv is missing'),
        ('vggsound', {'vggsound__csv': 'aaaaaaaaaaa,1,dog\n', 'a__mp4': ''}, 'line 1: 3 values'),
        (
            'vggsound',
            {'vggsound__csv': '../aaaaaaaa,1,dog,test\n', 'a__mp4': ''},
            'not the id of a YouTube video',
        ),
        (
            'vggsound',
            {'vggsound__csv': 'aaaaaaaaaaa,1,dog,test\n', 'a__mp4': ''},
            'None of 1 segments has a file',
        ),
        ('vggsound', {'vggsound__csv': 'aaaaaaaaaaa,x,dog,test\n', 'a__mp4': ''}, "start seconds = 'x'"),
        ('esc50', {'a__mp4': ''}, 'No meta/esc50.csv'),
        ('esc10', {'meta__esc50__csv': 'filename,fold\n'}, "has no column 'category'"),
        (
            'esc10',
            {'meta__esc50__csv': 'filename,fold,category\na.wav,1,wolf\n'},
            "label 'wolf' is not one of the 10",
        ),
        ('esc10', {'meta__esc50__csv': 'filename,fold,category\na.wav,x,dog\n'}, "line 2: fold = 'x'"),
        ('spoken_digit', {'a__wav': ''}, 'No DIGIT_SPEAKER_INDEX.wav'),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, source, files, message):
    with pytest.raises(DataError, match=re.escape(message)):
        read(source, write(tmp_path, **files))


def test_audioset_names_what_is_wrong(tmp_path):
    write(tmp_path, class_labels_indices__csv=CLASSES)
    touch(tmp_path, '-_abcdefgh0.mp4')
    for line, message in [
        ('abcdefgh__2, 1.500, 9.000, "/m/0"', "line 1: label '/m/0' is not one of the 3"),
        ('abcdefgh__2, 9.000, 9.000, "/m/09x0r"', 'line 1: the segment ends at 9 s'),
        ('abcdefgh__2, 9.000, "/m/09x0r"', 'line 1: 3 values'),
    ]:
        write(tmp_path, eval_segments__csv=line + '\n')
        with pytest.raises(DataError, match=re.escape(message)):
            read('audioset', tmp_path)
    write(tmp_path, class_labels_indices__csv=CLASSES.replace('\n2,', '\n3,'), eval_segments__csv=SEGMENTS)
    with pytest.raises(DataError, match='its 3 classes are not 0, 1, 2'):
        read('audioset', tmp_path)


def test_a_list_that_is_not_text(tmp_path):
    (tmp_path / 'list.csv').write_bytes(b'path\n\xff\xfe\n')
    with pytest.raises(DataError, match=r"list\.csv can't be read as text in UTF-8"):
        read('csv', tmp_path)
