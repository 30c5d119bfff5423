"""Sound at its time, of the right length, in mono."""

import dataclasses

import av
import numpy as np
import pytest

from diffmavil_jax.data import media
from tests.data.film import (
    MEDIA,
    SPEC,
    encode_sound,
    grey,
    tone_from,
    write,
)


@pytest.mark.parametrize('suffix', ['mkv', 'mp4', 'mov', 'ts'])
def test_sound_that_starts_late_or_ends_early_leaves_zeros(tmp_path, suffix):
    pictures = [grey(i) for i in range(16)]
    path = write(tmp_path / f'a.{suffix}', pictures, tone_from(0, 1.4), sound_at=0.5)
    late = media.decode(path, 0.0, SPEC)[0]
    assert np.abs(late[:7_500].astype(int)).max() < 300
    assert np.argmax(np.abs(late.astype(int)) > 6_000) / 16_000 == pytest.approx(0.5, abs=0.003)
    assert np.abs(late[29_000:30_000]).max() > 10_000
    assert not late[31_200:].any()


@pytest.mark.parametrize('rate', [8_000, 16_000, 44_100])
def test_any_sample_rate_gives_the_exact_number_of_samples(tmp_path, rate):
    path = write(tmp_path / 'a.mov', [grey(0)] * 24, tone_from(0, 3.0, rate), rate=rate)
    for start_s in (0.0, 0.3333, 1.0):
        waveform = media.decode(path, start_s, SPEC)[0]
        t = np.round(start_s * 16_000) / 16_000 + np.arange(32_000) / 16_000
        # The same sine at the same phase, away from the resampler's edges.
        error = (waveform - 12_000 * np.sin(2 * np.pi * 440 * t))[1_000:-1_000]
        assert np.abs(error).max() < 300


def test_channels_are_averaged(tmp_path):
    path = tmp_path / 'a.mov'
    left, right = tone_from(0, 2.0), np.zeros(96_000, np.int16)
    with av.open(str(path), 'w') as container:
        video = container.add_stream('libx264', rate=8)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        audio = container.add_stream('pcm_s16le', rate=48_000, layout='stereo')
        for _ in range(16):
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey(0), format='rgb24')))
        container.mux(video.encode(None))
        stereo = np.stack([left, right], 1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(stereo, format='s16', layout='stereo')
        frame.sample_rate = 48_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    assert np.abs(media.decode(path, 0.0, SPEC)[0][4_000:-4_000]).max() == pytest.approx(6_000, rel=0.02)


SOUNDS = {
    'wav': 'pcm_s16le', 'flac': 'flac', 'm4a': 'aac', 'mp3': 'libmp3lame', 'opus': 'libopus',
    'ogg': 'vorbis', 'aac': 'aac', 'aiff': 'pcm_s16be', 'mka': 'flac',
}  # fmt: skip


@pytest.mark.parametrize('suffix', SOUNDS)
def test_sound_alone_is_read_from_a_path_and_from_bytes(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    formats = {'m4a': 'ipod', 'opus': 'ogg', 'aac': 'adts', 'mka': 'matroska'}
    layout = 'stereo' if suffix == 'ogg' else 'mono'  # all that the Vorbis encoder accepts
    options = {'strict': '-2'}  # FFmpeg's own Vorbis encoder is experimental
    with av.open(str(path), 'w', format=formats.get(suffix)) as target:
        stream = target.add_stream(SOUNDS[suffix], rate=48_000, layout=layout, options=options)
        encode_sound(target, stream, tone_from(4.75, 7.0), 48_000, 0.0, layout)

    info = media.probe(path)
    assert info.has_audio and not info.has_video
    assert info.duration_s == pytest.approx(7.0, abs=0.1)
    for start_s in (2.6, 4.25):  # read from the beginning, and reached by a seek
        waveform, nothing = media.decode(path, start_s, dataclasses.replace(SPEC, seconds=2.5), ['audio'])
        assert nothing is None and waveform.shape == (40_000,)
        onset = np.argmax(np.abs(waveform.astype(int)) > 6_000) / 16_000
        late = 1_024 / 48_000 if suffix == 'aac' else 0.0  # ADTS can't state the encoder's delay
        assert onset == pytest.approx(4.75 - start_s + late, abs=0.003)
        assert np.abs(waveform[-8_000:].astype(int)).max() == pytest.approx(12_000, rel=0.1)
        again, _ = media.decode(path.read_bytes(), start_s, dataclasses.replace(SPEC, seconds=2.5), ['audio'])
        np.testing.assert_array_equal(again, waveform)
    with pytest.raises(media.MediaError, match='^too short: sound for (1.0|0.9). of 2 s'):
        media.decode(path.read_bytes(), info.duration_s - 1.0, SPEC, ['audio'])
    with pytest.raises(media.MediaError, match='^no video$'):
        media.decode(path, 0.0, SPEC)


def test_a_gap_in_the_sound_stays_silent(tmp_path):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    with av.open(str(path)) as source, av.open(str(tmp_path / 'b.mkv'), 'w') as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            lost = packet.stream.type == 'audio' and packet.pts and 500 <= packet.pts < 1_000
            if packet.pts is not None and not lost:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    waveform, _ = media.decode(tmp_path / 'b.mkv', 0.0, SPEC)
    assert not waveform[9_700:14_400].any()
    whole, _ = media.decode(path, 0.0, SPEC)
    for part in (slice(1_000, 6_400), slice(17_600, 31_000)):
        np.testing.assert_allclose(waveform[part].astype(int), whole[part], atol=2)


@pytest.mark.parametrize('name', ['tos_battle.webm', 'spring_0004.mp4'])
def test_sound_does_not_depend_on_where_a_clip_begins(name):
    """Vorbis in WebM states many times 20 ms late, but the sound must be at its real time."""
    seconds = 3.4
    whole, _ = media.decode(MEDIA / name, 0.0, dataclasses.replace(SPEC, seconds=seconds), ['audio'])
    for start_s in (0.6, 1.0, 1.3, 2.5, 2.9):
        part, _ = media.decode(MEDIA / name, start_s, dataclasses.replace(SPEC, seconds=0.5), ['audio'])
        first = round(start_s * 16_000)
        likeness = {
            lag: np.corrcoef(whole[first + lag : first + lag + 8_000], part)[0, 1]
            for lag in range(-400, 401)
            if first + lag + 8_000 <= len(whole)
        }
        assert abs(max(likeness, key=likeness.get)) <= 12  # Matroska rounds to a millisecond


def test_the_last_samples_come_out_at_the_end_of_the_stream():
    path = MEDIA / 'tos_battle.webm'
    with av.open(str(path)) as container:
        stereo = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    spec = dataclasses.replace(SPEC, seconds=6.5)
    ends = {}
    for rate in (44_100, 16_000):
        waveform, _ = media.decode(path, 0.0, dataclasses.replace(spec, sample_rate=rate), ['audio'])
        ends[rate] = np.flatnonzero(waveform)[-1] + 1
        if rate == 44_100:  # as in the file
            last = waveform[ends[rate] - 200 : ends[rate]]
            np.testing.assert_allclose(last, 32_768 * stereo.mean(0)[-200:], atol=2)
    # The resampler holds back more than a millisecond.
    assert ends[16_000] / 16_000 == pytest.approx(ends[44_100] / 44_100, abs=2 / 16_000)
