"""Pictures: which ones, upright, of the right shape and colour."""

import dataclasses
import fractions
import struct

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.take import Crop, Take
from tests.data.film import (
    SPEC,
    grey,
    shown,
    tone_from,
    write,
)


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
    """Offsets of the contents of all boxes with a name in an MP4."""
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
    """The decoded colours of an upright picture of 4 x 4 blocks."""
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
    # The centre of each pixel that is left, in the coordinates of the whole picture.
    scale = min(height, width) / 32
    y, x = np.mgrid[:32, :32]
    across = (x + 0.5 - 16) * scale + width / 2 - 0.5
    down = (y + 0.5 - 16) * scale + height / 2 - 0.5
    expected = np.stack([255 * across / width, 255 * down / height, 255 - 127 * across / width], -1)
    # Whole pixels are cut off, so half a pixel is allowed, in levels, and some noise of the coding.
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


def test_pictures_that_begin_late_are_too_short(tmp_path):
    times = [0.5 + i / 8 for i in range(16)]
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], tone_from(0, 2.5), times=times)
    with pytest.raises(media.MediaError, match='too short: pictures for 1.50 of 2 s'):
        media.decode(path, 0.0, SPEC)
    assert shown(media.decode(path, 0.35, SPEC)[1])[0] == 0


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


@pytest.mark.parametrize('turn', [0, 90])
@pytest.mark.parametrize('crop', [Crop(0.75, 0.6, 0.25, 1.0), Crop(0.5, 0.7, 1.0, 0.3)])
def test_a_rectangle_is_cut_out_where_the_take_says(tmp_path, crop, turn):
    upright = gradient(120, 200)
    stored = np.rot90(upright, -1).copy() if turn else upright
    path = write(tmp_path / 'a.mov', [stored] * 16, fps=8, turn=turn, options={'crf': '4'})
    frames = media.decode(path, 0.0, SPEC, ['video'], Take(crop=crop))[1].astype(float)
    left, top, right, bottom = crop.box(200, 120)
    across = left + (np.arange(32) + 0.5) * (right - left) / 32 - 0.5
    down = top + (np.arange(32) + 0.5) * (bottom - top) / 32 - 0.5
    pixel = max(right - left, bottom - top) / 32
    for axis, (place, size) in enumerate(((across, 200), (down, 120))):
        error = np.abs(
            frames[..., axis]
            - (255 * place / size)[(None, slice(None)) if axis == 0 else (slice(None), None)]
        )
        assert error[:, 2:-2, 2:-2].max() < pixel * 255 / size + 4
    turned = media.decode(path, 0.0, SPEC, ['video'], Take(crop=crop, flip=True))[1]
    np.testing.assert_array_equal(turned, frames[:, :, ::-1])


def test_pictures_of_a_part_are_from_that_stretch(tmp_path):
    path = write(tmp_path / 'a.mkv', [grey(i) for i in range(16)], fps=8)
    part = dataclasses.replace(SPEC, frames=4, video_seconds=0.5)
    for video, expected in ((0.0, [0, 1, 2, 3]), (0.5, [6, 7, 8, 9]), (1.0, [12, 13, 14, 15])):
        assert shown(media.decode(path, 0.0, part, ['video'], Take(video=video))[1]) == expected
