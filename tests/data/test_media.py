"""Decoding of synthetic files with known contents, and of real files against a plain, full decode."""

import concurrent.futures
import fractions
import gc
import random

import av
import numpy as np
import pytest
from av.stream import Disposition

from diffmavil_jax.data import media
from diffmavil_jax.data.media import container, decoding, pictures, wanted_pictures
from diffmavil_jax.data.take import FIXED
from tests.data.film import (
    CODECS,
    MEDIA,
    SPEC,
    STEP,
    assert_onset,
    encode_sound,
    grey,
    shown,
    tone_from,
    write,
)


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
    assert decoding._SEEK_AFTER_S < 4.25

    waveform, frames = media.decode(path, 4.25, SPEC)
    _, sequential = decoding._decode_by(
        path, 4.25, SPEC, media.BOTH, FIXED, pictures.AllPictures, by_seek=False
    )

    assert shown(frames) == [int((4.25 + (i + 0.5) / 4) * 4 + 1e-6) for i in range(8)]
    np.testing.assert_array_equal(frames, sequential)
    assert_onset(waveform, 0.25, suffix)


def test_the_main_one_of_several_streams_is_taken(tmp_path):
    """Of two films and two sounds, the default ones of the file are decoded, after a seek too."""
    path = tmp_path / 'a.mkv'
    with av.open(str(path), 'w') as target:
        small = target.add_stream('libx264', rate=4)
        small.height, small.width, small.pix_fmt = 32, 32, 'yuv420p'
        large = target.add_stream('libx264', rate=4)
        large.height, large.width, large.pix_fmt = 96, 128, 'yuv420p'
        sounds = [target.add_stream('flac', rate=48_000, layout=layout) for layout in ('stereo', 'mono')]
        for other, main in ((small, large), sounds):
            other.disposition, main.disposition = Disposition(0), Disposition.default
        for i in range(28):
            for stream, level in ((small, 250), (large, 20 + STEP * i)):
                pixels = np.full((stream.height, stream.width, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
                frame.pts, frame.time_base = i, fractions.Fraction(1, 4)
                target.mux(stream.encode(frame))
        for stream in (small, large):
            target.mux(stream.encode(None))
        encode_sound(target, sounds[0], tone_from(2.0, 7.0), 48_000, 0.0, 'stereo')
        encode_sound(target, sounds[1], tone_from(1.0, 7.0), 48_000, 0.0)
    assert_onset(media.decode(path, 0.0, SPEC)[0], 1.0, 'mkv')
    for start_s in (0.0, 4.25):
        shown_s = [start_s + (i + 0.5) / 4 for i in range(8)]
        frames = media.decode(path, start_s, SPEC, ['video'])[1]
        assert shown(frames) == [int(time * 4 + 1e-6) for time in shown_s]


def test_what_is_not_asked_for_is_not_needed(tmp_path):
    mute = write(tmp_path / 'mute.mkv', [grey(i) for i in range(16)])
    waveform, frames = media.decode(mute, 0.0, SPEC, ['video'])
    assert waveform is None and shown(frames) == list(range(1, 16, 2))
    whole = write(tmp_path / 'whole.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    both = media.decode(whole, 0.0, SPEC)
    np.testing.assert_array_equal(media.decode(whole, 0.0, SPEC, ['audio'])[0], both[0])
    np.testing.assert_array_equal(media.decode(whole.read_bytes(), 0.0, SPEC, ['video'])[1], both[1])
    for modalities in ((), ('sound',)):
        with pytest.raises(ValueError, match='modalities = .*must be'):
            media.decode(whole, 0.0, SPEC, modalities)


def test_up_to_a_tenth_of_a_clip_is_padded(tmp_path):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    waveform, frames = media.decode(path, 0.15, SPEC)
    assert shown(frames)[-1] == 15
    assert not waveform[29_650:].any() and waveform[29_000:29_500].any()
    with pytest.raises(media.MediaError, match='too short: pictures for 1.50 of 2 s'):
        media.decode(path, 0.5, SPEC)
    with pytest.raises(media.MediaError, match='too short'):
        media.decode(path, 50.0, SPEC)


def test_probe_reads_what_the_headers_say(tmp_path):
    for suffix in CODECS:
        path = write(tmp_path / f'a.{suffix}', [grey(i) for i in range(32)], tone_from(0, 3.5))
        info, loose = media.probe(path), suffix in ('avi', 'ts', 'webm', 'flv')
        assert info.has_audio and info.has_video
        assert info.duration_s == pytest.approx(3.5, abs=0.6 if loose else 0.1), suffix
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


def test_limits_hold(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2))
    with monkeypatch.context() as patch:
        patch.setattr(container, 'MAX_PIXELS', 64 * 48 - 1)
        with pytest.raises(media.MediaError, match='unreadable: '):
            media.decode(path, 0.0, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(container, 'MAX_SECONDS', 1.0)
        with pytest.raises(media.MediaError, match='unreadable: claims to last 2 s'):
            media.probe(path)
    with monkeypatch.context() as patch:
        for reader in (pictures, wanted_pictures):
            patch.setattr(reader, 'MAX_DECODED_FRAMES', 5)
        with pytest.raises(media.MediaError, match='unreadable: no keyframe in 5 frames'):
            media.decode(path, 0.0, SPEC)
    ribbon = write(tmp_path / 'b.mkv', [grey(0, 16, 640)] * 16, tone_from(0, 2))
    with pytest.raises(media.MediaError, match='pictures of 640 x 16 pixels'):
        media.decode(ribbon, 0.0, SPEC)


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


@pytest.mark.parametrize('name', ['tos_battle.webm', 'spring_0004.mp4'])
def test_nothing_waits_for_the_garbage_collector(name):
    """The collector counts Python's objects, not the megabytes of their frames."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        media.decode(MEDIA / name, 0.5, SPEC)
        with pytest.raises(media.MediaError):
            media.decode(MEDIA / name, 50.0, SPEC)
        gc.collect()
        waiting = {type(left).__name__ for left in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert waiting <= {'Graph', 'FilterContext', 'dict', 'list'}  # PyAV 19's empty resampler


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
