"""Where the second recording of a glued file begins, in every format, and files that only look glued."""

import av
import numpy as np
import pytest

from diffmavil_jax.data.media import glued
from tests.data.film import DATA, MEDIA, encode_sound, grey, tone_from, write

SOUNDS = {
    'flac': 'flac',
    'ogg': 'libopus',
    'wav': 'pcm_s16le',
    'aiff': 'pcm_s16be',
    'caf': 'pcm_s16be',
    'wma': 'wmav2',
}
FILMS = ('mkv', 'webm', 'mp4', 'mov', 'avi', 'flv', 'ts')


def sound(path, format=None):
    with av.open(str(path), 'w', format=format) as target:
        stream = target.add_stream(SOUNDS[path.suffix[1:]], rate=48_000, layout='mono')
        stream.bit_rate = 64_000
        encode_sound(target, stream, tone_from(0, 3.0), 48_000, 0.0)
    return path.read_bytes()


def program_stream(path):
    with av.open(str(path), 'w', format='vob') as target:
        video = target.add_stream('mpeg2video', rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        for i in range(100):
            target.mux(video.encode(av.VideoFrame.from_ndarray(grey(i % 20), format='rgb24')))
        target.mux(video.encode(None))
    return path.read_bytes()


@pytest.fixture(scope='module', params=[*SOUNDS, *FILMS, 'vob'])
def recording(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('recording') / f'a.{request.param}'
    if request.param in SOUNDS:
        return sound(path, {'wma': 'asf'}.get(request.param))
    if request.param == 'vob':
        return program_stream(path)
    return write(path, [grey(i % 20) for i in range(32)], tone_from(0, 4.0)).read_bytes()


def test_the_second_recording_is_found(recording, tmp_path):
    assert glued.end_of_first(recording) is None
    end = glued.end_of_first(recording + recording)
    assert end is not None and 0 <= end - len(recording) <= 4 * 188  # the tables of a transport stream
    path = tmp_path / 'c'
    path.write_bytes(recording * 3)
    assert glued.end_of_first(path) == end
    path.write_bytes(recording)
    assert glued.end_of_first(path) is None  # though it was another file a moment ago


def test_real_files_are_one_recording():
    for path in (*MEDIA.iterdir(), *(DATA / 'esc10' / 'audio').iterdir(), *(DATA / 'sounds').iterdir()):
        assert glued.end_of_first(path) is None


def test_a_clock_may_wrap_around():
    assert not glued._goes_back((1 << 33) - 10, 5)
    assert not glued._goes_back(200_000, 150_000)  # half a second: packets in disorder
    assert glued._goes_back(200_000, 0)


@pytest.mark.parametrize(
    'head',
    [b'OggS', b'RIFF', b'\x1a\x45\xdf\xa3', b'\0\0\0\x08ftyp', b'fLaC', b'G' * 400, b'\0\0\1\xba', b''],
)
def test_no_bytes_are_worth_a_crash(head):
    rng = np.random.default_rng(0)
    for size in (0, 1, 12, 40, 5_000):
        glued.end_of_first(head + rng.bytes(size))
        glued.end_of_first(head + bytes(size))


def test_a_first_part_reads_like_a_file(tmp_path):
    (tmp_path / 'a').write_bytes(bytes(range(100)))
    with glued.FirstPart(open(tmp_path / 'a', 'rb', buffering=0), 40) as file:
        assert file.read(30) + file.read(30) + file.read(5) == bytes(range(40))
        assert file.seek(-4, 2) == 36 and file.read() == bytes(range(36, 40))
        file.seek(90)
        assert file.read(1) == b''
