"""Writes small films with known contents, and recognises them in what is decoded."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from diffmavil_jax.data.clip import ClipSpec

DATA = pathlib.Path(__file__).parent
MEDIA = DATA / 'media'
SPRING, NASA, GRID, TOS = 'spring_0004.mp4', 'nasajwst_0000.mp4', 'grid-brbk7n_0000.mp4', 'tos_battle.webm'
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
    'flv': ('flv1', 'yuv420p', 'libmp3lame'),
    '3gp': ('libx264', 'yuv420p', 'aac'),
}


def grey(index, height=48, width=64):
    return np.full((height, width, 3), 20 + STEP * index, np.uint8)


def moving(frames=16, size=64):
    """Pictures of coarse noise, all different."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (frames, 8, 8, 3), np.uint8)
    return [np.kron(coarse, np.ones((size // 8, size // 8, 1), np.uint8)) for coarse in noise]


def silence(seconds, rate=48_000):
    return np.zeros(seconds * rate, np.int16)


def tone_from(onset_s, seconds, rate=48_000):
    """A 440 Hz tone that starts at onset_s, with silence before it."""
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
    pix_fmt=None,
    codec=None,
    options=(),
):
    """Encodes pictures [n][h, w, 3] (shown at `times`, or at fps) and mono sound [samples]."""
    video_codec, usual_format, audio_codec = CODECS[path.suffix[1:]]
    video_codec = codec or video_codec
    with av.open(str(path), 'w') as container:
        if len(pictures):
            video = container.add_stream(video_codec, rate=fps, options=dict(options))
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt, video.gop_size = pix_fmt or usual_format, gop
            video.codec_context.time_base = fractions.Fraction(1, 1000 if times else fps)
            if video_codec in ('mpeg4', 'mjpeg', 'mpeg2video', 'libvpx', 'flv1'):
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


def encode_sound(container, stream, sound, rate, start_s, layout='mono'):
    """Encodes mono sound [samples]; both channels of stereo are the same."""
    packed = np.repeat(sound, 2 if layout == 'stereo' else 1)[None]
    frame = av.AudioFrame.from_ndarray(packed, format='s16', layout=layout)
    frame.sample_rate, frame.time_base = rate, fractions.Fraction(1, rate)
    frame.pts = round(start_s * rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def shown(frames):
    """Which synthetic grey each decoded picture is."""
    levels = frames.reshape(len(frames), -1).astype(float).mean(1)
    index = np.rint((levels - 20) / STEP).astype(int)
    assert np.abs(levels - 20 - STEP * index).max() < 3
    assert frames.reshape(len(frames), -1).std(1).max() < 2
    return index.tolist()


def assert_onset(waveform, expected_s, suffix):
    # These formats can't say that the encoder's padding before the sound is not part of the presentation.
    late = {'ts': 481, 'flv': 1_105}.get(suffix, 0) / 48_000
    loud = np.abs(waveform.astype(int)) > 6_000
    assert np.argmax(loud) / 16_000 == pytest.approx(expected_s + late, abs=0.003)
