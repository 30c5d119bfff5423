"""Mutated lists and sets of names: each row is in the dataset, or refused by its line."""

import csv
import io
import os
import random
import re

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError, clip_id
from diffmavil_jax.data.folder_index import list_rows
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.prepare.work import Job, Work
from tests.data.film import SPEC

NAMES = [
    'a.wav', 'b c.mp4', ' d.wav', '-x.mp4', '100%s.wav', 'é.wav', 'e\u0301f.wav', 'k,l.wav', 'q"r.wav',
    'ü/m.mp4', 'a/b/c.flac', "it's.ogg", 'n\\o.wav', '$y$.mp4', '#z.wav', '[1].wav', '名.wav', 'x;y.wav',
    '{}.wav', '~.wav',
]  # fmt: skip
SPLITS, LABELS = ['train', 'test', ''], ['dog', 'playing violin, fiddle', '', '"quoted"', '5', 'naïve']
PIECES = [
    ',',
    '"',
    '\n',
    '\r\n',
    ' ',
    '.',
    './',
    '\\',
    '/',
    '..',
    ';',
    '\t',
    '\0',
    '\x0b',
    '\u2028',
    'é',
    'train',
    '#',
    "'",
]


def table(rng):
    """The text of a list that a person could have written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=rng.choice(['\n', '\r\n']))
    columns = ['path', *rng.sample(['split', 'label', 'start_s'], rng.randint(0, 3))]
    writer.writerow(columns)
    for name in rng.sample(NAMES, rng.randint(1, 6)):
        cells = {'path': name, 'split': rng.choice(SPLITS), 'label': rng.choice(LABELS)}
        writer.writerow([cells.get(column, rng.choice(['', '1.5', '0'])) for column in columns])
    return text.getvalue()


def mutated(rng, text):
    """The text with some of its characters lost, doubled, exchanged or put in."""
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(text) + 1)
        end = at + rng.choice([0, 0, 1, 1, 3, 12])
        text = text[:at] + rng.choice([*PIECES, text[at:end] * 2, '']) + text[end:]
    return text


def cells_of(text):
    """What Python's own reader takes for rows: the header, and the others by their first line."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    rows, line = [], 0
    for cells in reader:
        first, line = line + 1, reader.line_num
        if any(cell.strip() for cell in cells):
            rows.append((first, cells))
    return rows[0][1], rows[1:]


def columns(text):
    try:
        header, _ = cells_of(text)
    except csv.Error:
        return []
    return [column.strip().lower().removeprefix('\ufeff') for column in header]


def check(text, listing):
    """Each row of the text is a row of the listing, with its file and its split."""
    header, (_, rows) = columns(text), cells_of(text)
    assert header.count('path') == 1 and all(len(cells) == len(header) for _, cells in rows)
    found = {}
    for row in listing.rows:
        found.setdefault(row.file, row)
    seen = set()
    for _, cells in rows:
        cell = dict(zip(header, cells, strict=True))
        written = {cell['path'], cell['path'].strip(), cell['path'].replace('\\', '/').strip()}
        files = {os.path.normpath(path) for path in written} & found.keys()
        if not files:  # the disk has the name in another Unicode form
            files = {file for file in found if not file.isascii()}
        assert files, cell
        split = cell.get('split', '').strip()
        allowed = {split, 'held-out' if split == 'test' else split} if split else {'', 'train', 'validation'}
        assert {found[file].split for file in files} & allowed
        seen |= files
    assert seen == found.keys()


@pytest.mark.parametrize('seed', range(10))
def test_a_row_of_a_mutated_list_is_in_the_dataset_or_refused_by_its_line(tmp_path, seed):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    rng, root, refused = random.Random(seed), epath.Path(tmp_path), 0
    for _ in range(50):
        text = mutated(rng, table(rng))
        (tmp_path / 'list.csv').write_bytes(text.encode())
        for read in (lambda: SOURCES['csv'].read(Request(root)), lambda: list_rows(root, False)):
            try:
                listing = read()
            except DataError as error:
                refused += 1
                assert re.search(r'line \d+|column|found none|no rows|separated by', str(error)), error
                continue
            if any('has no column path' in note for note in listing.notes):
                assert 'path' not in columns(text)
                continue
            check(text, listing)
    assert 10 < refused < 90


def names(rng):
    """Bytes that a file may be named by; some are long, and some are no UTF-8."""
    letters = [bytes([i]) for i in range(1, 256) if i not in b'/'] + [
        b'\xc3\xa9',
        b'%',
        b'-',
        b' ',
        b'\n',
        b'"',
    ]
    stems = {b''.join(rng.choices(letters, k=rng.randint(1, 60)))[:120].lstrip(b'.') for _ in range(10)}
    stems |= {b'-x', b'x' * 251, b'%s', b'a b', b'a\nb', b'mod\xe0', b'*', b'[1]', b'$x$', b'<b>', b"'"}
    return sorted(stem + b'.mp4' for stem in stems if stem)


@pytest.mark.parametrize('seed', range(5))
def test_every_name_is_listed_and_comes_back(tmp_path, seed):
    root = tmp_path / 'media'
    (root / 'sub').mkdir(parents=True)
    written = names(random.Random(seed))
    for name in written:
        with open(os.path.join(os.fsencode(root / 'sub'), name), 'wb'):
            pass
    listing = SOURCES['folder'].read(Request(epath.Path(root)))
    assert sorted(os.fsencode(row.file) for row in listing.rows) == [b'sub/' + name for name in written]
    assert len(list_rows(epath.Path(root), True).rows) == len(written)
    ids = [clip_id(row.name, 0.0) for row in listing.rows]
    assert len(set(ids)) == len(ids)
    assert all(len(text.splitlines()) == 1 and text.encode() for text in ids)

    (tmp_path / 'work').mkdir()
    work = Work.open(
        epath.Path(tmp_path / 'work' / 'w'), listing, Job(str(root), Settings(seconds=SPEC.seconds))
    )
    again = [row for index in range(work.num_shards) for row in work.rows(index)]
    assert sorted(again, key=str) == sorted(listing.rows, key=str)
