"""A clip in motion, as GIF or MP4: the target, what the encoder sees, and the reconstruction."""

from __future__ import annotations

import fractions
import io

import av
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from PIL import Image

from diffmavil_jax.report.content import Frames, Stages
from diffmavil_jax.report.figures import BACKGROUND, GAPS, MASKED

FORMATS = ('gif', 'mp4')
_LEAST_SIDE = 192  # pixels; smaller frames are enlarged, each pixel to a square


def side_by_side(stages: Stages) -> UInt8[np.ndarray, 'T h w 3']:
    """Target, visible part and reconstruction; without a known target, the reconstruction alone."""
    shown = [stages.target, stages.masked, stages.prediction]
    if not np.isfinite(stages.target).any():
        shown = shown[2:]
    factor = -(-_LEAST_SIDE // stages.target.shape[1])
    pictures = [_enlarged(frames, factor) for frames in shown]
    count, height, width, _ = pictures[0].shape
    gap = np.broadcast_to(to_rgb(BACKGROUND), (count, height, max(1, width // GAPS), 3))
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    sheet = np.concatenate(parts, axis=2)
    # The pixel format yuv420p of an MP4 needs even sides.
    sheet = np.pad(sheet, ((0, 0), (0, height % 2), (0, sheet.shape[2] % 2), (0, 0)), mode='edge')
    return np.round(255 * sheet).astype(np.uint8)


def to_gif(frames: UInt8[np.ndarray, 'T h w 3'], seconds: float) -> bytes:
    """A GIF that repeats every `seconds`; the format rounds the time of a frame to 0.01 s."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    duration_ms = round(1000 * seconds / len(frames))
    first.save(buffer, 'GIF', save_all=True, append_images=others, duration=duration_ms, loop=0)
    return buffer.getvalue()


def to_mp4(frames: UInt8[np.ndarray, 'T h w 3'], seconds: float) -> bytes:
    """An MP4 in H.264 that lasts `seconds`."""
    buffer = io.BytesIO()
    rate = fractions.Fraction(len(frames) / seconds).limit_denominator(1000)
    with av.open(buffer, 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return buffer.getvalue()


def _enlarged(frames: Frames, factor: int) -> Float[np.ndarray, 'T height width 3']:
    known = np.where(np.isfinite(frames), np.clip(frames, 0, 1), to_rgb(MASKED))
    return known.repeat(factor, axis=1).repeat(factor, axis=2)
