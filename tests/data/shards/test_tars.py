"""Tars are read as streams, and their damages are named."""

import contextlib
import io
import os
import tarfile

import pytest

from diffmavil_jax.data.shards import tars
from tests.data.shards.writing import tar

FILES = [('a.wav', b'a' * 700), ('sub/b.cls', '3'), ('c.wav', b'c' * 1024)]


def read(path, wanted=lambda name, size: name.endswith('.cls')):
    """The files before whatever is wrong, and what that is."""
    found, wrong = [], ''
    try:
        with tars.open_tar(str(path), 1 << 16) as file:
            for member in tars.members(file, wanted):
                found.append(member)
    except tars.TarError as error:
        wrong = str(error)
    return found, wrong


@pytest.mark.parametrize('suffix', ['tar', 'tar.gz', 'tar.bz2', 'tar.xz'])
def test_files_are_found_with_their_places_and_wanted_bytes(tmp_path, suffix):
    path = tar(tmp_path / f'x.{suffix}', FILES, mode=f'w:{suffix[4:]}')
    found, wrong = read(path)
    assert not wrong and [member.name for member in found] == [name for name, _ in FILES]
    assert [member.data for member in found] == [None, b'3', None]
    with tars.open_tar(str(path), 1 << 16) as file:
        file.seek(found[2].begin)
        assert file.read(found[2].size) == FILES[2][1]


class Counting(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def readinto(self, buffer):
        done = super().readinto(buffer)
        Counting.count += done
        return done

    def read(self, size=-1):
        data = super().read(size)
        Counting.count += len(data)
        return data


def test_a_compressed_tar_is_read_once(tmp_path, monkeypatch):
    files = [(f'{i}.{ext}', os.urandom(3_000)) for i in range(300) for ext in ('wav', 'cls')]
    path = tar(tmp_path / 'x.tar.gz', files, mode='w:gz')
    monkeypatch.setattr(tars, 'open_file', lambda url, read_ahead: Counting(url))
    assert len(read(path)[0]) == 600
    assert Counting.count < 1.2 * path.stat().st_size


def test_links_are_no_files_and_folders_are_left_out(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        for name, kind in [('d', tarfile.DIRTYPE), ('a.wav', tarfile.SYMTYPE), ('b.wav', tarfile.FIFOTYPE)]:
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    found, wrong = read(tmp_path / 'x.tar')
    assert not wrong and [(member.name, member.is_file) for member in found] == [
        ('a.wav', False),
        ('b.wav', False),
    ]


@pytest.mark.parametrize(
    ('change', 'names', 'message'),
    [
        (lambda data: data[: 512 + 600], '', 'is cut off in a.wav'),
        (lambda data: data[:1536], 'a', 'is cut off, or has no mark of its end, after a.wav'),
        (lambda data: data[:1600], 'a', 'is cut off, or has no mark of its end, after a.wav'),
        (lambda data: data[:1536] + b'x' * 512 + data[2048:], 'a', 'is damaged after a.wav'),
        (lambda data: data + data, 'abc', 'goes on with something else after its end, after c.wav'),
        (lambda data: b'', '', 'is no tar, or is cut off or damaged, at its beginning'),
        (lambda data: b'RIFF' * 500, '', 'is no tar'),
        (lambda data: b'\x28\xb5\x2f\xfd' * 500, '', 'is compressed with Zstandard'),
    ],
)
def test_damages_are_named(tmp_path, change, names, message):
    path = tar(tmp_path / 'x.tar', FILES)
    path.write_bytes(change(path.read_bytes()))
    found, wrong = read(path)
    assert message in wrong
    assert [member.name for member in found] == [name for name, _ in FILES][: len(names)]


def test_a_damaged_compressed_tar_is_named(tmp_path):
    path = tar(tmp_path / 'x.tar.gz', FILES, mode='w:gz')
    path.write_bytes(path.read_bytes()[:-30])
    assert 'cut off or damaged' in read(path)[1]
    with contextlib.suppress(tars.TarError), tars.open_tar(str(path), 1 << 16) as file:
        assert file.tell() == 0
