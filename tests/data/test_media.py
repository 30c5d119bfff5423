"""Decoding against synthetic files with known contents, and against a plain full decode of real ones."""

import concurrent.futures
import fractions
import pathlib
import random

import av
import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec

MEDIA = pathlib.Path(__file__).parent / 'media'
SPEC = ClipSpec(sample_rate=16_000, seconds=2.0, frames=8, frame_size=32)
STEP = 7  # grey levels between consecutive synthetic frames

# Suffix, video codec, its pixel format, audio codec.
CODECS = {
    'mkv': ('ffv1', 'yuv420p', 'flac'),
    'mp4': ('mpeg4', 'yuv420p', 'aac'),
    'mov': ('libx264', 'yuv420p', 'pcm_s16le'),
    'avi': ('mjpeg', 'yuvj420p', 'pcm_s16le'),
    'ts': ('mpeg2video', 'yuv420p', 'mp2'),
    'webm': ('libvpx', 'yuv420p', 'libopus'),
}


def grey(index, height=48, width=64):
    return np.full((height, width, 3), 20 + STEP * index, np.uint8)


def tone_from(onset_s, seconds, rate=48_000):
    """A 440 Hz tone that starts at onset_s, silence before it."""
    t = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * np.pi * 440 * (t - onset_s)) * 12_000 * (t >= onset_s)).astype(np.int16)


def write(
    path,
    pictures=(),
    sound=None,
    *,
    times=None,
    fps=8,
    rate=48_000,
    sound_at=0.0,
    gop=12,
    sar=None,
    turn=None,
):
    """Encodes pictures [n][h, w, 3] (shown at `times`, or at fps) and mono sound [samples]."""
    video_codec, pix_fmt, audio_codec = CODECS[path.suffix[1:]]
    with av.open(str(path), 'w') as container:
        if len(pictures):
            video = container.add_stream(video_codec, rate=fps)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt, video.gop_size = pix_fmt, gop
            video.codec_context.time_base = fractions.Fraction(1, 1000 if times else fps)
            if video_codec in ('mpeg4', 'mjpeg', 'mpeg2video', 'libvpx'):
                video.bit_rate = 4_000_000
            if sar:
                video.codec_context.sample_aspect_ratio = sar
            if turn:
                video.set_display_rotation(turn)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout='mono')
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            frame.pts = round(times[i] * 1000) if times else i
            frame.time_base = video.codec_context.time_base
            container.mux(video.encode(frame))
        if len(pictures):
            container.mux(video.encode(None))
        if sound is not None:
            encode_sound(container, audio, sound, rate, sound_at)
    return path


def encode_sound(container, stream, sound, rate, start_s):
    fifo_frame = av.AudioFrame.from_ndarray(sound[None], format='s16', layout='mono')
    fifo_frame.sample_rate, fifo_frame.time_base = rate, fractions.Fraction(1, rate)
    fifo_frame.pts = round(start_s * rate)
    container.mux(stream.encode(fifo_frame))
    container.mux(stream.encode(None))


def shown(frames):
    """Which synthetic grey each decoded picture is."""
    levels = frames.reshape(len(frames), -1).astype(float).mean(1)
    index = np.rint((levels - 20) / STEP).astype(int)
    assert np.abs(levels - 20 - STEP * index).max() < 3
    assert frames.reshape(len(frames), -1).std(1).max() < 2
    return index.tolist()


def assert_onset(waveform, expected_s, suffix):
    # MPEG-TS begins with the encoder's delay of 481 samples, which is part of the presentation.
    late = 481 / 48_000 if suffix == 'ts' else 0.0
    loud = np.abs(waveform.astype(int)) > 6_000
    assert np.argmax(loud) / 16_000 == pytest.approx(expected_s + late, abs=0.003)


@pytest.mark.parametrize('suffix', CODECS)
@pytest.mark.parametrize('start_s', [0.0, 1.25])
def test_frames_and_sound_are_those_of_their_times(tmp_path, suffix, start_s):
    path = write(
        tmp_path / f'a.{suffix}', [grey(i) for i in range(33)], tone_from(start_s + 0.75, 3.3), fps=10
    )

    waveform, frames = media.decode(path, start_s, SPEC)

    assert (waveform.dtype, waveform.shape) == (np.int16, (32_000,))
    assert (frames.dtype, frames.shape) == (np.uint8, (8, 32, 32, 3))
    assert shown(frames) == [int((start_s + (i + 0.5) / 4) * 10) for i in range(8)]
    assert_onset(waveform, 0.75, suffix)
    assert np.abs(waveform[:11_000]).max() < 300
    assert np.abs(waveform[-8_000:]).max() == pytest.approx(12_000, rel=0.1)


@pytest.mark.parametrize('suffix', CODECS)
@pytest.mark.parametrize('gop', [5, 100])
def test_a_seek_changes_nothing(tmp_path, suffix, gop):
    path = write(tmp_path / f'a.{suffix}', [grey(i) for i in range(28)], tone_from(4.5, 7.0), fps=4, gop=gop)
    assert media._SEEK_AFTER_S < 4.25

    waveform, frames = media.decode(path, 4.25, SPEC)
    _, sequential = media._decode_from(path, 4.25, SPEC, seek=False)

    assert shown(frames) == [int((4.25 + (i + 0.5) / 4) * 4 + 1e-6) for i in range(8)]
    np.testing.assert_array_equal(frames, sequential)
    assert_onset(waveform, 0.25, suffix)


def test_pictures_are_picked_by_time_not_by_number(tmp_path):
    times = [0.0, 0.1, 0.2, 0.9, 1.3, 1.301, 1.302, 1.303, 1.304, 1.9]
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(10)], tone_from(0, 2), times=times, fps=1000)

    frames = media.decode(path, 0.0, SPEC)[1]

    centres = [(i + 0.5) / 4 for i in range(8)]
    assert shown(frames) == [max(k for k, t in enumerate(times) if t <= centre) for centre in centres]


def test_sound_that_starts_late_or_ends_early_leaves_zeros(tmp_path):
    pictures = [grey(i) for i in range(16)]
    late = media.decode(write(tmp_path / 'a.mkv', pictures, tone_from(0, 1.4), sound_at=0.5), 0.0, SPEC)[0]
    assert not late[:7_980].any()
    assert_onset(late, 0.5, 'mkv')
    assert np.abs(late[29_000:30_000]).max() > 10_000
    assert not late[30_500:].any()


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


def three_stripes(height, width, side):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :side, 0] = picture[:, -side:, 0] = 250
    picture[:, side:-side, 1] = 250
    return picture


def test_the_centre_is_cut_out_and_pixel_aspect_undone(tmp_path):
    wide = write(tmp_path / 'wide.mkv', [three_stripes(64, 128, 32)] * 16, tone_from(0, 2))
    frames = media.decode(wide, 0.0, SPEC)[1].astype(int)
    assert frames[:, :, 3:-3, 1].min() > 235 and frames[:, :, 3:-3, 0].max() < 20

    squeezed = write(
        tmp_path / 'sar.mov', [three_stripes(64, 64, 16)] * 16, tone_from(0, 2), sar=fractions.Fraction(2)
    )
    np.testing.assert_allclose(media.decode(squeezed, 0.0, SPEC)[1][:, :, 3:-3], frames[:, :, 3:-3], atol=6)


def test_scaling_down_averages_pixels(tmp_path):
    checks = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((2, 2)))[..., None] * np.full(3, 200)
    path = write(tmp_path / 'a.mkv', [checks.astype(np.uint8)] * 16, tone_from(0, 2))
    frames = media.decode(path, 0.0, ClipSpec(16_000, 2.0, 2, 16))[1].astype(int)
    assert np.abs(frames - 100).max() < 6  # 8 x 8 pixels each, half of them bright


def test_a_rotated_recording_stands_upright(tmp_path):
    sky = np.zeros((64, 64, 3), np.uint8)
    sky[:32] = 250
    upright = media.decode(write(tmp_path / 'a.mov', [sky] * 16, tone_from(0, 2)), 0.0, SPEC)[1]
    lying = write(tmp_path / 'b.mov', [np.rot90(sky, -1).copy()] * 16, tone_from(0, 2), turn=90)
    np.testing.assert_allclose(media.decode(lying, 0.0, SPEC)[1].astype(int), upright, atol=4)


def test_up_to_a_tenth_of_a_clip_is_padded(tmp_path):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    waveform, frames = media.decode(path, 0.15, SPEC)
    assert shown(frames)[-1] == 15
    assert not waveform[29_650:].any() and waveform[29_000:29_500].any()
    with pytest.raises(media.MediaError, match='too short: pictures for 1.50 of 2 s'):
        media.decode(path, 0.5, SPEC)
    with pytest.raises(media.MediaError, match='too short'):
        media.decode(path, 50.0, SPEC)


def test_pictures_that_begin_late_are_too_short(tmp_path):
    times = [0.5 + i / 8 for i in range(16)]
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2.5), times=times)
    with pytest.raises(media.MediaError, match='too short: pictures for 1.50 of 2 s'):
        media.decode(path, 0.0, SPEC)
    assert shown(media.decode(path, 0.35, SPEC)[1])[0] == 0


def test_probe_reads_what_the_headers_say(tmp_path):
    for suffix in CODECS:
        path = write(tmp_path / f'a.{suffix}', [grey(i) for i in range(32)], tone_from(0, 3.5))
        info = media.probe(path)
        assert info.has_audio and info.has_video
        assert info.duration_s == pytest.approx(3.5, abs=0.6 if suffix in ('avi', 'ts', 'webm') else 0.1), (
            suffix
        )
    assert media.probe(MEDIA / 'grid-brbk7n_0000.mp4').duration_s == pytest.approx(3.0, abs=0.05)


def test_what_is_missing_is_named(tmp_path):
    pictures = [grey(i) for i in range(16)]
    mute = write(tmp_path / 'mute.mkv', pictures)
    blind = write(tmp_path / 'blind.mkv', sound=tone_from(0, 2))
    silent = write(tmp_path / 'silent.mkv', pictures, np.full(96_000, media.SILENCE_PEAK - 2, np.int16))
    assert not media.probe(mute).has_audio and media.probe(mute).has_video
    assert not media.probe(blind).has_video and media.probe(blind).has_audio
    for path, reason in ((mute, 'no audio'), (blind, 'no video'), (silent, 'silent')):
        with pytest.raises(media.MediaError, match=f'^{reason}$'):
            media.decode(path, 0.0, SPEC)


def test_cover_art_is_no_video(tmp_path):
    path = write(tmp_path / 'a.mkv', [grey(3)], tone_from(0, 2))
    covered = tmp_path / 'cover.mp4'
    with av.open(str(covered), 'w') as container, av.open(str(path)) as source:
        audio = container.add_stream('aac', rate=48_000, layout='mono')
        cover = container.add_stream('mjpeg', rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(3), format='rgb24')))
        for frame in source.decode(audio=0):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    assert not media.probe(covered).has_video


def test_broken_files_are_unreadable(tmp_path):
    whole = (MEDIA / 'spring_0004.mp4').read_bytes()
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'garbage.mp4').write_bytes(random.Random(0).randbytes(5_000))
    (tmp_path / 'headless.mp4').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.mp4').write_text('not a film\n' * 100)
    for name in ('empty.mp4', 'garbage.mp4', 'text.mp4', 'absent.mp4', '.'):
        for read in (media.probe, lambda path: media.decode(path, 0.0, SPEC)):
            with pytest.raises(media.MediaError, match='^unreadable: ') as caught:
                read(tmp_path / name)
            assert str(tmp_path) not in str(caught.value)
    with pytest.raises(media.MediaError):
        media.decode(tmp_path / 'headless.mp4', 2.0, SPEC)


def test_damaged_files_raise_media_errors_or_give_whole_clips(tmp_path):
    for name in ('spring_0004.mp4', 'tos_battle.webm'):
        whole = (MEDIA / name).read_bytes()
        for seed in range(6):
            rng, damaged = random.Random(seed), bytearray(whole)
            for _ in range(50):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            path = tmp_path / name
            path.write_bytes(damaged)
            try:
                waveform, frames = media.decode(path, 1.0, SPEC)
            except media.MediaError:
                continue
            assert waveform.shape == (32_000,) and frames.shape == (8, 32, 32, 3)


@pytest.mark.parametrize('name', ['list.m3u8', 'list.mp4'])
@pytest.mark.parametrize(
    'text',
    [
        '#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{film}\n#EXT-X-ENDLIST\n',
        "ffconcat version 1.0\nfile '{film}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{film}</BaseURL></MPD>',
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path, name, text):
    film = write(tmp_path / 'film.ts', [grey(0)] * 32, tone_from(0, 4))
    (tmp_path / name).write_text(text.format(film=film))
    with pytest.raises(media.MediaError, match='^unreadable'):
        media.probe(tmp_path / name)
    with pytest.raises(media.MediaError, match='^unreadable'):
        media.decode(tmp_path / name, 0.0, SPEC)


def test_limits_hold(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    with monkeypatch.context() as patch:
        patch.setattr(media, 'MAX_PIXELS', 64 * 48 - 1)
        with pytest.raises(media.MediaError, match='unreadable: '):
            media.decode(path, 0.0, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(media, 'MAX_SECONDS', 1.0)
        with pytest.raises(media.MediaError, match='unreadable: claims to last 2 s'):
            media.probe(path)
    with monkeypatch.context() as patch:
        patch.setattr(media, 'MAX_DECODED_FRAMES', 5)
        with pytest.raises(media.MediaError, match='unreadable: no keyframe in 5 frames'):
            media.decode(path, 0.0, SPEC)
    ribbon = write(tmp_path / 'b.mkv', [grey(0, 16, 640)] * 16, tone_from(0, 2))
    with pytest.raises(media.MediaError, match='pictures of 640 x 16 pixels'):
        media.decode(ribbon, 0.0, SPEC)


def test_packets_that_yield_no_frame_are_noticed(tmp_path):
    path = write(tmp_path / 'a.webm', [grey(i) for i in range(16)], tone_from(0, 2))
    with av.open(str(path)) as source, av.open(str(tmp_path / 'b.webm'), 'w') as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.pts is None:
                continue
            stream = streams[packet.stream_index]
            if packet.stream.type == 'video' and 0.5 <= packet.pts * packet.time_base < 1.5:
                data = bytearray(packet)
                data[0] &= ~0x10  # VP8's show_frame
                hidden = av.Packet(bytes(data))
                for field in ('pts', 'dts', 'time_base', 'duration', 'is_keyframe'):
                    setattr(hidden, field, getattr(packet, field))
                packet = hidden
            packet.stream = stream
            target.mux(packet)
    assert shown(media.decode(path, 0.0, SPEC)[1]) == [1, 3, 5, 7, 9, 11, 13, 15]
    with pytest.raises(media.MediaError, match='wrong frame count: 8 of 16'):
        media.decode(tmp_path / 'b.webm', 0.0, SPEC)


@pytest.mark.parametrize('name', ['spring_0004.mp4', 'grid-swiz3n_0000.mp4', 'tos_battle.webm'])
def test_real_files_agree_with_a_full_decode(name):
    start_s = 0.9
    waveform, frames = media.decode(MEDIA / name, start_s, SPEC)

    with av.open(str(MEDIA / name)) as container:
        pictures = [(f.time, f.to_ndarray(format='rgb24')) for f in container.decode(video=0)]
    for i, frame in enumerate(frames):
        wanted = start_s + (i + 0.5) / 4
        picture = [p for time, p in pictures if time <= wanted + 1e-3][-1]
        scale = picture.shape[0] / 32
        left = (round(picture.shape[1] / scale) - 32) // 2
        square = picture[:, round(left * scale) : round((left + 32) * scale)].astype(float)
        blocks = [np.array_split(rows, 4, axis=1) for rows in np.array_split(square, 4)]
        expected = np.array([[b.mean((0, 1)) for b in row] for row in blocks])
        got = frame.reshape(4, 8, 4, 8, 3).mean((1, 3))
        np.testing.assert_allclose(got, expected, atol=4)

    with av.open(str(MEDIA / name)) as container:
        sounds = list(container.decode(audio=0))
    rate = sounds[0].sample_rate
    mono = np.concatenate([f.to_ndarray().reshape(-1, f.samples).mean(0) for f in sounds])
    edges = np.rint((start_s - sounds[0].time + np.arange(41) * 0.05) * rate).astype(int)
    loudness = [np.sqrt(np.mean(mono[low:high] ** 2)) for low, high in zip(edges, edges[1:], strict=False)]
    got = np.sqrt(np.mean((waveform / 32_768.0).reshape(40, 800) ** 2, axis=1))
    np.testing.assert_allclose(got, loudness, rtol=0.15, atol=0.1 * max(loudness))


def test_threads_get_what_one_thread_gets():
    jobs = [
        (MEDIA / name, start)
        for name in ('spring_0004.mp4', 'nasajwst_0000.mp4')
        for start in (0.0, 1.0, 2.0)
    ] * 2
    alone = [media.decode(path, start, SPEC) for path, start in jobs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: media.decode(*job, SPEC), jobs))
    for (wave_1, frames_1), (wave_2, frames_2) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(wave_1, wave_2)
        np.testing.assert_array_equal(frames_1, frames_2)
