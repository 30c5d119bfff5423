"""Turns a decoded frame into an upright, square picture."""

from __future__ import annotations

import dataclasses

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from diffmavil_jax.data.media.container import MediaError
from diffmavil_jax.data.take import Take

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
    """Scales frames so that their shorter side has `size` pixels, and cuts out the centre.

    With a take that crops, its rectangle is scaled to `size` and cut out instead.
    """

    def __init__(self, size: int, pixel_aspect: float, take: Take) -> None:
        self._size, self._pixel_aspect = size, pixel_aspect
        self._crop, self._columns = take.crop, take.columns
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
        turn = _Turn.of(frame)
        x_scale = y_scale = size / min(width, frame.height)
        if self._crop is not None:
            # The whole frame is scaled as the rectangle is: swscale scales nothing less here.
            sides = (self._crop.width, self._crop.height)
            across, down = sides[::-1] if turn.lying else sides
            x_scale, y_scale = x_scale / across, y_scale / down
        method = _SHRINK if max(x_scale, y_scale) < 1 else _ENLARGE
        wide, high = max(size, round(width * x_scale)), max(size, round(frame.height * y_scale))
        # Three planes: swscale has vector code for them, and takes half the time that interleaved RGB takes.
        image = self._reformatter.reformat(frame, wide, high, 'gbrp', interpolation=method, threads=1)
        for channel, plane in zip((1, 2, 0), image.planes, strict=True):
            pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(high, plane.line_size)[:, :wide]
            out[..., channel] = self._cut(pixels, turn)[:, self._columns]

    def _cut(self, pixels: UInt8[np.ndarray, 'h w'], turn: _Turn) -> UInt8[np.ndarray, 'size size']:
        size = self._size
        if self._crop is None:
            top, left = ((length - size) // 2 for length in pixels.shape)
            return turn(pixels[top : top + size, left : left + size])
        pixels = turn(pixels)
        high, wide = pixels.shape
        top, left = round(self._crop.y * (high - size)), round(self._crop.x * (wide - size))
        return pixels[top : top + size, left : left + size]


@dataclasses.dataclass(frozen=True)
class _Turn:
    """How pixels become upright: by a multiple of 90 degrees, mirrored or not.

    Attributes:
        lying: whether rows become columns.
        down, right: the steps through rows and columns after that, 1 or -1.
    """

    lying: bool = False
    down: int = 1
    right: int = 1

    @classmethod
    def of(cls, frame: VideoFrame) -> _Turn:
        """The nearest to the display matrix of a frame."""
        # Not frame.side_data: it and the frame refer to each other, so frames would pile up until collected.
        data = SideDataContainer(frame)  # type: ignore[call-arg]
        if Type.DISPLAYMATRIX not in data:
            return cls()
        # A pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift and a scale.
        a, b, _, c, d = np.frombuffer(bytes(data[Type.DISPLAYMATRIX]), np.int32, count=5).tolist()
        lying = abs(a) + abs(d) < abs(b) + abs(c)
        right, down = (c, b) if lying else (a, d)
        return cls(lying, -1 if down < 0 else 1, -1 if right < 0 else 1)

    def __call__(self, pixels: UInt8[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'y x']:
        return (pixels.T if self.lying else pixels)[:: self.down, :: self.right]
