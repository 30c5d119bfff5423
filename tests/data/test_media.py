"""Decoding against synthetic files with known contents, and against a plain full decode of real ones."""

import concurrent.futures
import dataclasses
import fractions
import gc
import random
import struct

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media import container, decoding, pictures
from tests.data.film import CODECS, MEDIA, SPEC, STEP, encode_sound, grey, shown, tone_from, write


def assert_onset(waveform, expected_s, suffix):
    # These can't say that what the encoder puts before the sound is no part of the presentation.
    late = {'ts': 481, 'flv': 1_105}.get(suffix, 0) / 48_000
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
    assert decoding._SEEK_AFTER_S < 4.25

    waveform, frames = media.decode(path, 4.25, SPEC)
    _, sequential = decoding._decode_by(path, 4.25, SPEC, media.BOTH, pictures.AllPictures, by_seek=False)

    assert shown(frames) == [int((4.25 + (i + 0.5) / 4) * 4 + 1e-6) for i in range(8)]
    np.testing.assert_array_equal(frames, sequential)
    assert_onset(waveform, 0.25, suffix)


def test_pictures_are_picked_by_time_not_by_number(tmp_path):
    times = [0.0, 0.1, 0.2, 0.9, 1.3, 1.301, 1.302, 1.303, 1.304, 1.9]
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(10)], tone_from(0, 2), times=times, fps=1000)

    frames = media.decode(path, 0.0, SPEC)[1]

    centres = [(i + 0.5) / 4 for i in range(8)]
    assert shown(frames) == [max(k for k, t in enumerate(times) if t <= centre) for centre in centres]


@pytest.mark.parametrize('suffix', ['mp4', 'mov'])
def test_a_variable_frame_rate_is_followed_in_edited_files(tmp_path, suffix):
    times = [0.0, 0.04, 0.08, 0.7, 0.74, 1.5, 1.52, 1.9]
    path = write(
        tmp_path / f'a.{suffix}', [grey(i) for i in range(8)], tone_from(0, 2), times=times, fps=1000
    )
    centres = [(i + 0.5) / 4 for i in range(8)]
    assert shown(media.decode(path, 0.0, SPEC)[1]) == [
        max(k for k, t in enumerate(times) if t <= centre) for centre in centres
    ]


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


def box_offsets(data, name):
    """Where the contents of an MP4's boxes of that name begin."""
    found = data.find(name)
    while found >= 0:
        yield found + 4
        found = data.find(name, found + 1)


ORIENTATIONS = [
    (1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),  # turned by 0, 90, 180, 270 degrees
    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),  # and mirrored
]  # fmt: skip


@pytest.mark.parametrize('matrix', ORIENTATIONS)
def test_a_turned_or_mirrored_recording_is_shown_as_its_matrix_says(tmp_path, matrix):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 4, 3))
    path = write(tmp_path / 'a.mov', [np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)] * 16)
    data = bytearray(path.read_bytes())
    (header,) = box_offsets(data, b'tkhd')
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into('>9i', data, header + 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)

    _, frames = media.decode(bytes(data), 0.0, SPEC, ['video'])

    # ISO/IEC 14496-12, 8.3.2: (x, y) goes to (a x + c y, b x + d y); blocks are at -1.5 ... 1.5.
    expected = np.empty_like(blocks)
    for y, x in np.ndindex(4, 4):
        across = matrix[0] * (x - 1.5) + matrix[2] * (y - 1.5)
        down = matrix[1] * (x - 1.5) + matrix[3] * (y - 1.5)
        expected[round(down + 1.5), round(across + 1.5)] = blocks[y, x]
    got = frames.reshape(8, 4, 8, 4, 8, 3)[:, :, 3:5, :, 3:5].mean((2, 4))
    upright = frames_of_blocks(tmp_path, expected)
    np.testing.assert_allclose(got, np.broadcast_to(upright, got.shape), atol=3)


def frames_of_blocks(tmp_path, blocks):
    """What the coding leaves of a picture of 4 x 4 blocks that nothing turns."""
    picture = np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)
    frames = media.decode(write(tmp_path / 'b.mov', [picture] * 16), 0.0, SPEC, ['video'])[1]
    return frames.reshape(8, 4, 8, 4, 8, 3)[0, :, 3:5, :, 3:5].mean((1, 3))


def test_a_rotation_set_by_the_recorder_is_undone(tmp_path):
    sky = np.zeros((64, 64, 3), np.uint8)
    sky[:32] = 250
    upright = media.decode(write(tmp_path / 'a.mov', [sky] * 16, tone_from(0, 2)), 0.0, SPEC)[1]
    lying = write(tmp_path / 'b.mov', [np.rot90(sky, -1).copy()] * 16, tone_from(0, 2), turn=90)
    np.testing.assert_allclose(media.decode(lying, 0.0, SPEC)[1].astype(int), upright, atol=4)


def gradient(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 255 - 127 * x / width], -1).astype(np.uint8)


@pytest.mark.parametrize('height, width', [(47, 63), (63, 47), (33, 97)])
@pytest.mark.parametrize('suffix, codec', [('mkv', 'ffv1'), ('webm', 'libvpx')])
def test_odd_sizes_are_scaled_whole(tmp_path, height, width, suffix, codec):
    path = write(tmp_path / f'a.{suffix}', [gradient(height, width)] * 16, fps=8, codec=codec)
    frames = media.decode(path, 0.0, SPEC, ['video'])[1].astype(float)
    # The centre of each pixel that is left, on the picture's own axes.
    scale = min(height, width) / 32
    y, x = np.mgrid[:32, :32]
    across = (x + 0.5 - 16) * scale + width / 2 - 0.5
    down = (y + 0.5 - 16) * scale + height / 2 - 0.5
    expected = np.stack([255 * across / width, 255 * down / height, 255 - 127 * across / width], -1)
    # What is cut off is whole pixels: half of one, in levels, besides what the coding changes.
    allowed = 0.5 * scale * 255 / min(height, width) + 4
    assert np.abs(frames - expected)[:, 2:-2, 2:-2].max() < allowed


@pytest.mark.parametrize(
    'suffix, codec, pix_fmt, options',
    [
        ('mkv', 'ffv1', 'yuv420p10le', {}),
        ('mkv', 'ffv1', 'yuv444p16le', {}),
        ('mp4', 'libx265', 'yuv420p10le', {'x265-params': 'log-level=none:qp=4', 'preset': 'ultrafast'}),
        ('mkv', 'libsvtav1', 'yuv420p10le', {'crf': '10', 'preset': '12'}),
        ('mov', 'prores', 'yuv422p10le', {}),
        ('mkv', 'ffv1', 'yuva420p', {}),
        ('mkv', 'ffv1', 'gray', {}),
        ('mkv', 'ffv1', 'rgb48le', {}),
    ],
)
def test_deep_pixels_keep_their_brightness(tmp_path, suffix, codec, pix_fmt, options):
    path = write(
        tmp_path / f'a.{suffix}', [grey(i) for i in range(16)], codec=codec, pix_fmt=pix_fmt, options=options
    )
    with av.open(str(path)) as source:
        depth = source.streams.video[0].format.components[0].bits
        assert depth == (10 if '10' in pix_fmt else 16 if '16' in pix_fmt or '48' in pix_fmt else 8)
    assert shown(media.decode(path, 0.0, SPEC, ['video'])[1]) == list(range(1, 16, 2))


@pytest.mark.parametrize('space, full', [('itu709', False), ('itu709', True), ('itu601', False)])
def test_colour_is_read_as_the_stream_says(tmp_path, space, full):
    colours = np.array([[250, 30, 30], [20, 200, 40], [30, 40, 220], [200, 200, 30]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 16, 1), 64, 0)
    frame = av.VideoFrame.from_ndarray(picture, format='rgb24').reformat(
        format='yuv444p',
        dst_colorspace=getattr(Colorspace, space),
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    with av.open(str(tmp_path / 'a.mkv'), 'w') as target:
        stream = target.add_stream('ffv1', rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, 'yuv444p'
        stream.codec_context.colorspace = 1 if space == 'itu709' else 6
        stream.codec_context.color_range = 2 if full else 1
        for i in range(16):
            frame.pts, frame.time_base = i, fractions.Fraction(1, 8)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    frames = media.decode(tmp_path / 'a.mkv', 0.0, SPEC, ['video'])[1]
    got = frames[0].reshape(32, 4, 8, 3)[:, :, 2:6].mean((0, 2))
    np.testing.assert_allclose(got, colours, atol=3)


def test_the_main_one_of_several_streams_is_taken(tmp_path):
    """Of two films and two sounds it is those that the file calls its own; after a seek as well."""
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


SOUNDS = {
    'wav': 'pcm_s16le', 'flac': 'flac', 'm4a': 'aac', 'mp3': 'libmp3lame', 'opus': 'libopus',
    'ogg': 'vorbis', 'aac': 'aac', 'aiff': 'pcm_s16be', 'mka': 'flac',
}  # fmt: skip


@pytest.mark.parametrize('suffix', SOUNDS)
def test_sound_alone_is_read_from_a_path_and_from_bytes(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    formats = {'m4a': 'ipod', 'opus': 'ogg', 'aac': 'adts', 'mka': 'matroska'}
    layout = 'stereo' if suffix == 'ogg' else 'mono'  # the Vorbis encoder knows nothing else
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
        late = 1_024 / 48_000 if suffix == 'aac' else 0.0  # ADTS can't tell of the encoder's delay
        assert onset == pytest.approx(4.75 - start_s + late, abs=0.003)
        assert np.abs(waveform[-8_000:].astype(int)).max() == pytest.approx(12_000, rel=0.1)
        again, _ = media.decode(path.read_bytes(), start_s, dataclasses.replace(SPEC, seconds=2.5), ['audio'])
        np.testing.assert_array_equal(again, waveform)
    with pytest.raises(media.MediaError, match='^too short: sound for (1.0|0.9). of 2 s'):
        media.decode(path.read_bytes(), info.duration_s - 1.0, SPEC, ['audio'])
    with pytest.raises(media.MediaError, match='^no video$'):
        media.decode(path, 0.0, SPEC)


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
        patch.setattr(container, 'MAX_PIXELS', 64 * 48 - 1)
        with pytest.raises(media.MediaError, match='unreadable: '):
            media.decode(path, 0.0, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(container, 'MAX_SECONDS', 1.0)
        with pytest.raises(media.MediaError, match='unreadable: claims to last 2 s'):
            media.probe(path)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, 'MAX_DECODED_FRAMES', 5)
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


@pytest.mark.parametrize('name', ['tos_battle.webm', 'spring_0004.mp4'])
def test_sound_does_not_depend_on_where_a_clip_begins(name):
    """Vorbis in WebM states many times 20 ms late; what is heard may not follow them."""
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


@pytest.mark.parametrize('name', ['tos_battle.webm', 'spring_0004.mp4'])
def test_nothing_waits_for_the_garbage_collector(name):
    """It counts Python's objects, and knows nothing of the megabytes that frames hold."""
    gc.collect()
    media.decode(MEDIA / name, 0.5, SPEC)
    with pytest.raises(media.MediaError):
        media.decode(MEDIA / name, 50.0, SPEC)
    assert gc.collect() == 0


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
