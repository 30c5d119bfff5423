"""The two readers of pictures give the same ones, and the faster one knows when it can't."""

import dataclasses

import av
import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.media import decoding, pictures, wanted_pictures
from diffmavil_jax.data.take import FIXED
from tests.data.film import MEDIA, SPEC, tone_from, write

WANTED, ALL = wanted_pictures.WantedPictures, pictures.AllPictures
B_FRAMES = {'bf': '3'}


def read(source, start_s, reader, spec=SPEC):
    return decoding._decode_by(source, start_s, spec, ['video'], FIXED, reader, by_seek=False)[1]


def count_decoded(monkeypatch):
    """The packets that the fast reader decodes from now on, as a list that grows."""
    decoded = []
    decoder = wanted_pictures._Decoder
    original = decoder.decode

    def decode(self, packet, **options):
        decoded.append(packet)
        return original(self, packet, **options)

    monkeypatch.setattr(decoder, 'decode', decode)
    return decoded


def noise(frames, height=48, width=64):
    """Moving, detailed pictures, so that a frame decoded without what it refers to looks wrong."""
    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(0, 256, (height // 4, width // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    return [np.roll(base, (i, 2 * i), (0, 1)) for i in range(frames)]


@pytest.mark.parametrize(
    'suffix, codec, options, gop',
    [
        ('mkv', 'libx264', {'x264-params': 'bframes=3:b-pyramid=normal:open-gop=1'}, 12),
        ('mkv', 'libx264', {'x264-params': 'bframes=0'}, 100),
        ('mp4', 'libx264', {'x264-params': 'bframes=8:b-adapt=0'}, 30),
        ('mp4', 'libx265', {'x265-params': 'log-level=none:bframes=4:keyint=20', 'preset': 'fast'}, 20),
        ('ts', 'mpeg2video', B_FRAMES, 12),
        ('mp4', 'mpeg4', B_FRAMES, 12),
        ('avi', 'mpeg4', B_FRAMES, 12),
        ('webm', 'libvpx', {'auto-alt-ref': '1', 'lag-in-frames': '12', 'cpu-used': '8'}, 20),
        ('webm', 'libvpx-vp9', {'lag-in-frames': '12', 'cpu-used': '5', 'deadline': 'realtime'}, 20),
        ('mkv', 'libsvtav1', {'preset': '12'}, 20),
        ('mkv', 'ffv1', {}, 1),
        ('avi', 'mjpeg', {}, 1),
    ],
)
def test_what_is_left_out_changes_nothing(tmp_path, monkeypatch, suffix, codec, options, gop):
    decoded = count_decoded(monkeypatch)
    pix_fmt = None if codec == 'mjpeg' else 'yuv420p'
    path = write(
        tmp_path / f'a.{suffix}', noise(75), fps=25, gop=gop, codec=codec, pix_fmt=pix_fmt, options=options
    ).read_bytes()
    for start_s in (0.0, 0.37, 0.9):
        np.testing.assert_array_equal(read(path, start_s, WANTED), read(path, start_s, ALL))
    if gop == 1:
        assert len(decoded) == 3 * SPEC.frames
    with av.open(str(tmp_path / f'a.{suffix}')) as source:
        packets = sum(packet.size > 0 for packet in source.demux(video=0))
    assert len(decoded) < 3 * packets


@pytest.mark.parametrize('name', ['grid-brbk7n_0000.mp4', 'spring_0004.mp4', 'nasajwst_0000.mp4'])
def test_real_files_as_well(name):
    for start_s in (0.0, 0.5, 0.93):
        got, expected = (read(MEDIA / name, start_s, reader) for reader in (WANTED, ALL))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('reader', [WANTED, ALL])
def test_the_last_pictures_come_out_at_the_end_of_the_stream(reader):
    path = MEDIA / 'grid-swiz3n_0000.mp4'
    with av.open(str(path)) as container:
        decoded = [packet.decode() for packet in container.demux(video=0)]
    assert len(decoded[-1]) == 2, 'the decoder holds none back, so that this tests nothing'
    pictures = np.array([frame.to_ndarray(format='rgb24') for frames in decoded for frame in frames], int)
    _, height, width, _ = pictures.shape
    left = (width - height) // 2
    centres = pictures[:, :, left : left + height]
    spec = dataclasses.replace(SPEC, seconds=1.0, frame_size=height)
    distances = [np.abs(centres - frame).mean((1, 2, 3)) for frame in read(path, 2.0, reader, spec)]
    assert np.argmin(distances, axis=1).tolist() == list(range(16, 24))


def test_many_pictures_of_few_frames(tmp_path):
    path = write(tmp_path / 'a.mkv', noise(8), fps=4)
    spec = dataclasses.replace(SPEC, frames=32)
    np.testing.assert_array_equal(read(path, 0.0, WANTED, spec), read(path, 0.0, ALL, spec))


@pytest.mark.parametrize('start_s', [0.2, 4.1])
def test_where_packets_do_not_tell_all_are_decoded(tmp_path, monkeypatch, start_s):
    path = write(tmp_path / 'a.mkv', noise(160), tone_from(0, 6.5), fps=25, gop=25, codec='libx264')
    expected = media.decode(path, start_s, SPEC)
    decoded = count_decoded(monkeypatch)
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        reader = WANTED(stream, 0.0, SPEC, FIXED)
        packet = next(source.demux(stream))
        packet.pts = None
        with pytest.raises(pictures.PacketsDoNotTell):
            reader.add(packet, after_seek=False)

    def nothing_told(self, packet, *, after_seek):
        raise pictures.PacketsDoNotTell

    monkeypatch.setattr(WANTED, 'add', nothing_told)
    for got, before in zip(media.decode(path, start_s, SPEC), expected, strict=True):
        np.testing.assert_array_equal(got, before)
    assert not decoded


def test_a_seek_within_a_long_file_reads_the_same(tmp_path):
    path = write(tmp_path / 'a.mp4', noise(240), tone_from(0, 10.0), fps=24, gop=48, codec='libx264')
    for start_s in (3.1, 5.55, 7.9):
        _, frames = media.decode(path, start_s, SPEC)
        np.testing.assert_array_equal(frames, read(path, start_s, ALL))
