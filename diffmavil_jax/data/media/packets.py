"""What the readers of sound and of pictures share: tolerances, and how a packet is decoded."""

from __future__ import annotations

import av.error
from av.audio.frame import AudioFrame
from av.packet import Packet
from av.video.frame import VideoFrame

# Share of a clip that may be missing at its ends. Sound is zero there, and the last picture is repeated.
PADDED_FRACTION = 0.1
# Read before a clip: audio decoders need it, and streams are interleaved loosely.
PREROLL_S = 0.5
# Matroska rounds times to a millisecond: a frame that begins this shortly after a wanted time is shown then.
ROUNDING_S = 0.001


def frames_of(packet: Packet, *, forgive: bool) -> list[VideoFrame | AudioFrame]:
    """Decodes a packet. With `forgive`, as after a seek, one that can't be decoded gives no frames."""
    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        if forgive:
            return []
        raise
