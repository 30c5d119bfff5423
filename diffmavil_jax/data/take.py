"""How a clip is taken from what is longer or larger than it: always alike, or drawn for each position."""

from __future__ import annotations

import dataclasses
import math
import threading
import zlib

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from diffmavil_jax.config.schema import Config

_STREAM = zlib.crc32(b'take')
# The same pixels on every CPU.
_BILINEAR = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_OF_THREAD = threading.local()


@dataclasses.dataclass(frozen=True)
class Crop:
    """A rectangle of a picture.

    Attributes:
        width, height: in lengths of the picture's shorter side.
        x, y: which share of the room beside it is on its left, and above it.
    """

    width: float
    height: float
    x: float
    y: float

    def box(self, wide: int, high: int) -> tuple[float, float, float, float]:
        """Its left, top, right and bottom in a picture of `wide` x `high` pixels."""
        side = min(wide, high)
        width, height = self.width * side, self.height * side
        left, top = self.x * (wide - width), self.y * (high - height)
        return left, top, left + width, top + height


@dataclasses.dataclass(frozen=True)
class Take:
    """What a clip is of the longer and larger thing that holds it.

    Attributes:
        start: which share of the spare time is before the clip; None: it begins where its source says.
        video: which share of the time of the sound that the pictures do not cover is before them.
        crop: of every picture; None: its centre.
        flip: whether left and right are exchanged.
    """

    start: float | None = None
    video: float = 0.5
    crop: Crop | None = None
    flip: bool = False

    @property
    def columns(self) -> slice:
        """The columns of a picture, in the order in which they are seen."""
        return slice(None, None, -1 if self.flip else 1)


# That of evaluation. Pictures of the middle are nearest to whatever is heard, and clips that begin or end
# with a fade show something there.
FIXED = Take()


@dataclasses.dataclass(frozen=True)
class Takes:
    """Draws the take of each position in the order of training, from the seed and the position alone.

    Attributes:
        seed: of the run.
        start, video: whether these are drawn.
        min_area, max_aspect: of a crop; see AugmentationConfig.
        flip: share of the clips.
    """

    seed: int
    start: bool = False
    video: bool = False
    min_area: float = 1.0
    max_aspect: float = 1.0
    flip: float = 0.0

    @classmethod
    def of(cls, config: Config) -> Takes | None:
        """Those of a run; None if it draws nothing."""
        data, augmentation = config.data, config.augmentation
        takes = cls(
            config.seed,
            augmentation.random_start,
            data.video_span < data.seconds,
            augmentation.crop_min_area,
            augmentation.crop_max_aspect,
            augmentation.flip,
        )
        return takes if takes.start or takes.video or augmentation.crops or takes.flip else None

    def __call__(self, position: int) -> Take:
        """The take of the clip at a position."""
        # All numbers are drawn, so that none depends on what else is switched on.
        draws = np.random.default_rng([self.seed, _STREAM, position]).random(7)
        start, video, area, aspect, x, y, flip = draws.tolist()
        return Take(
            start if self.start else None,
            video if self.video else FIXED.video,
            self._crop(area, aspect, x, y) if self.min_area < 1 else None,
            flip < self.flip,
        )

    def _crop(self, area: float, aspect: float, x: float, y: float) -> Crop:
        """Uniform in area and position, and in the logarithm of those aspects that fit into a square."""
        area = self.min_area + area * (1 - self.min_area)
        widest = min(math.log(self.max_aspect), -math.log(area))
        ratio = math.exp((2 * aspect - 1) * widest)
        return Crop(min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio)), x, y)


def cut_picture(
    picture: UInt8[np.ndarray, 'h w 3'], crop: Crop, size: int
) -> UInt8[np.ndarray, 'size size 3']:
    """A rectangle of a picture, to the nearest pixel, scaled to `size` pixels square."""
    high, wide, _ = picture.shape
    left, top, right, bottom = (round(edge) for edge in crop.box(wide, high))
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    frame = VideoFrame.from_ndarray(part, format='rgb24')
    if not hasattr(_OF_THREAD, 'reformatter'):
        _OF_THREAD.reformatter = VideoReformatter()
    # swscale takes a fifth of the time that Pillow takes, and least to three planes.
    image = _OF_THREAD.reformatter.reformat(frame, size, size, 'gbrp', interpolation=_BILINEAR, threads=1)
    result = np.empty((size, size, 3), np.uint8)
    for channel, plane in zip((1, 2, 0), image.planes, strict=True):
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(size, plane.line_size)
        result[..., channel] = pixels[:, :size]
    return result
