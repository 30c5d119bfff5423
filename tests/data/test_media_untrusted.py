"""Files that were made to do harm, and others that could do it."""

import math
import random
import struct
import wave

import av
import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.media import container
from tests.data.film import MEDIA, SPEC, grey, shown, tone_from, write

PLAYLISTS = {
    'm3u8': '#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{film}\n#EXT-X-ENDLIST\n',
    'concat': "ffconcat version 1.0\nfile '{film}'\n",
    'mpd': '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{film}</BaseURL></MPD>',
    'sdp': 'v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    'm3u': '{film}\n',
}


def box(name, contents):
    return struct.pack('>I4s', 8 + len(contents), name) + contents


def children(contents):
    """The boxes of an MP4, or of one of its boxes, as (name, contents)."""
    start = 0
    while start < len(contents):
        size, name = struct.unpack_from('>I4s', contents, start)
        yield name, contents[start + 8 : start + size]
        start += size


def rewrite(contents, path, change):
    """Replaces the contents of the boxes at a path of names."""
    parts = []
    for name, inner in children(contents):
        if name == path[0]:
            inner = change(inner) if len(path) == 1 else rewrite(inner, path[1:], change)
        parts.append(box(name, inner))
    return b''.join(parts)


@pytest.mark.parametrize('kind', PLAYLISTS)
@pytest.mark.parametrize('suffix', ['', '.mp4'])
@pytest.mark.parametrize('as_bytes', [False, True])
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, kind, suffix, as_bytes):
    film = write(tmp_path / 'film.ts', [grey(0)] * 32, tone_from(0, 4))
    path = tmp_path / f'list.{kind}{suffix}'
    path.write_text(PLAYLISTS[kind].format(film=film))
    opened = []
    monkeypatch.setattr(container, '_refuse_other_files', lambda url, *_: opened.append(url))
    source = path.read_bytes() if as_bytes else path
    for read in (media.probe, lambda source: media.decode(source, 0.0, SPEC)):
        with pytest.raises(media.MediaError, match='^unreadable'):
            read(source)
    assert not opened


def test_a_movie_that_refers_to_another_file_does_not_open_it(tmp_path):
    """QuickTime's data references: the pictures of this movie are in another file."""
    raw = {'codec': 'rawvideo', 'pix_fmt': 'rgb24'}  # the index of one file fits the other
    secret = write(tmp_path / 'secret.mov', [grey(20)] * 16, tone_from(0, 2), **raw)
    film = write(tmp_path / 'film.mov', [grey(2)] * 16, tone_from(0, 2), **raw)
    name = str(secret).encode()
    alias = bytes(150) + struct.pack('>hh', 2, len(name)) + name + bytes(len(name) % 2)
    alias += struct.pack('>hh', -1, 0)
    reference = struct.pack('>II', 0, 1) + box(b'alis', bytes(4) + alias)
    path = [b'moov', b'trak', b'mdia', b'minf', b'dinf', b'dref']
    crafted = rewrite(film.read_bytes(), path, lambda _: reference)
    (tmp_path / 'crafted.mov').write_bytes(crafted)
    allow = {'enable_drefs': '1', 'use_absolute_path': '1'}
    with av.open(str(tmp_path / 'crafted.mov'), options=allow) as fooled:  # so the trap would work
        assert next(fooled.decode(video=0)).to_ndarray(format='rgb24').mean() > 150
    for source in (tmp_path / 'crafted.mov', crafted):
        try:
            frames = media.decode(source, 0.0, SPEC)[1]
        except media.MediaError:
            continue
        assert shown(frames) == [2] * 8  # its own bytes, if any


def with_duration(path, seconds):
    """A Matroska file that claims another duration: element 0x4489, a float of 8 bytes."""
    data = bytearray(path.read_bytes())
    at = data.index(b'\x44\x89\x88') + 3
    data[at : at + 8] = struct.pack('>d', seconds * 1000)
    return bytes(data)


@pytest.mark.parametrize('seconds', [math.nan, math.inf, -math.inf, 1e300, 1e7, -5.0, 0.0])
def test_no_claimed_duration_is_believed_blindly(tmp_path, seconds):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    crafted = with_duration(path, seconds)
    # The tags of the tracks are still right; without them there is only the claim.
    for source in (crafted, crafted.replace(b'DURATION', b'XXXXXXXX')):
        try:
            duration = media.probe(source).duration_s
        except media.MediaError as error:
            assert str(error).startswith('unreadable')
        else:
            assert 0 <= duration <= media.MAX_SECONDS
        assert shown(media.decode(source, 0.0, SPEC)[1]) == list(range(1, 16, 2))


def delayed(path, offset_s, from_s=-math.inf):
    """A copy of a file in which everything from `from_s` on happens later."""
    moved = path.with_name('b.mkv')
    with av.open(str(path)) as source, av.open(str(moved), 'w') as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.pts is not None:
                if packet.pts * packet.time_base >= from_s:
                    packet.pts += round(offset_s / packet.time_base)
                    packet.dts = packet.pts
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return moved


@pytest.mark.parametrize('offset_s', [1e6, 1e9, 4e11])
def test_times_far_from_zero(tmp_path, offset_s):
    """A presentation begins where its first packet is; absurd times give no clip, or the right one."""
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    moved = delayed(path, offset_s)
    try:
        waveform, frames = media.decode(moved, 0.0, SPEC)
    except media.MediaError:
        return
    assert waveform.shape == (32_000,) and frames.shape == (8, 32, 32, 3)
    assert shown(frames) == list(range(1, 16, 2))


def test_a_jump_in_the_times_leaves_a_gap_and_no_more(tmp_path):
    """From 1 s on, everything happens a day later."""
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    moved = delayed(path, 1e6, from_s=1)
    waveform, frames = media.decode(moved, 0.0, SPEC)
    assert shown(frames) == [1, 3, 5, 7, 7, 7, 7, 7]
    assert waveform[:15_000].any() and not waveform[17_000:].any()


@pytest.mark.parametrize('start_s', [math.nan, math.inf, 1e300, -1e9, -5.0])
def test_absurd_starts_are_refused(start_s):
    with pytest.raises(media.MediaError):
        media.decode(MEDIA / 'spring_0004.mp4', start_s, SPEC)


def test_bombs_of_pixels_are_refused(tmp_path):
    """A small file that claims 60,000 x 60,000 pixels."""
    data = bytearray(write(tmp_path / 'a.mkv', [grey(0)] * 16, tone_from(0, 2)).read_bytes())
    for element, size in ((b'\xb0\x81', 64), (b'\xba\x81', 48)):
        at = data.index(element + bytes([size]))
        data[at + 2] = 0xFF
    wide = data.replace(b'\xb0\x81\xff\xba\x81\xff', b'\xb0\x82\xea\x60\xba\x82\xea\x60')
    for source in (bytes(data), bytes(wide)):
        try:
            frames = media.decode(source, 0.0, SPEC)[1]
        except media.MediaError as error:
            assert str(error).startswith(('unreadable', 'too short', 'no '))
        else:
            assert frames.shape == (8, 32, 32, 3)


def test_no_bytes_are_worth_a_crash():
    rng = random.Random(0)
    for size in (0, 1, 7, 100, 5_000):
        with pytest.raises(media.MediaError, match='^unreadable'):
            media.probe(rng.randbytes(size))
    assert np.isfinite(media.probe((MEDIA / 'spring_0004.mp4').read_bytes()).duration_s)


@pytest.mark.parametrize('rate', [1, 2_000_000])
def test_sound_of_an_absurd_rate_is_refused(tmp_path, rate):
    with wave.open(str(tmp_path / 'a.wav'), 'wb') as file:
        file.setparams((1, 2, rate, 0, 'NONE', ''))
        file.writeframes(np.full(5_000_000, 1_000, np.int16))  # at 1 Hz it would be 80 billion samples
    with pytest.raises(media.MediaError, match=f'^unreadable: sound of {rate} samples a second$'):
        media.decode(tmp_path / 'a.wav', 0.0, SPEC, ['audio'])
