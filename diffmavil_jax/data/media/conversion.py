"""Turns a decoded frame into an upright, square picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from diffmavil_jax.data.media.container import MediaError

MAX_ASPECT = 16

# These give the same pixels on every CPU, and average colour as widely as brightness.
_EXACT = (
    Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
_SHRINK, _ENLARGE = Interpolation.AREA | _EXACT, Interpolation.BILINEAR | _EXACT


class Converter:
    """Scales frames so that their shorter side has `size` pixels, and cuts out the centre."""

    def __init__(self, size: int, pixel_aspect: float) -> None:
        self._size, self._pixel_aspect = size, pixel_aspect
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, out: UInt8[np.ndarray, 'h w 3']) -> None:
        """Converts a frame into `out`.

        Raises:
            MediaError: the frame is corrupt, or one side of it is more than MAX_ASPECT times the other.
        """
        if frame.is_corrupt:
            raise MediaError('unreadable: corrupt frame')
        size, width = self._size, frame.width * self._pixel_aspect
        if not 1 / MAX_ASPECT <= width / frame.height <= MAX_ASPECT:
            raise MediaError(f'unreadable: pictures of {width:.0f} x {frame.height} pixels')
        scale = size / min(width, frame.height)
        method = _SHRINK if scale < 1 else _ENLARGE
        wide, high = max(size, round(width * scale)), max(size, round(frame.height * scale))
        # Three planes: swscale has vector code for them, and takes half the time that interleaved RGB takes.
        image = self._reformatter.reformat(frame, wide, high, 'gbrp', interpolation=method, threads=1)
        top, left = (high - size) // 2, (wide - size) // 2
        turn = _upright(frame)
        for channel, plane in zip((1, 2, 0), image.planes, strict=True):
            pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(high, plane.line_size)
            out[..., channel] = turn(pixels[top : top + size, left : left + size])


def _upright(frame: VideoFrame) -> Callable[[UInt8[np.ndarray, 'h w']], UInt8[np.ndarray, 'h w']]:
    """Turns pixels as the display matrix says: by the nearest multiple of 90 degrees, mirrored or not."""
    # Not frame.side_data: it and the frame refer to each other, so frames would pile up until a collection.
    data = SideDataContainer(frame)  # type: ignore[call-arg]
    if Type.DISPLAYMATRIX not in data:
        return lambda pixels: pixels
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift and a scale.
    a, b, _, c, d = np.frombuffer(bytes(data[Type.DISPLAYMATRIX]), np.int32, count=5).tolist()
    lying = abs(a) + abs(d) < abs(b) + abs(c)
    right, down = (c, b) if lying else (a, d)

    def turn(pixels: UInt8[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'h w']:
        pixels = pixels.T if lying else pixels
        return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]

    return turn
