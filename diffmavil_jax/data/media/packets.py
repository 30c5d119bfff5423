"""What sound and pictures have in common: their tolerances, and packets that become frames."""

from __future__ import annotations

import av.error
from av.audio.frame import AudioFrame
from av.packet import Packet
from av.video.frame import VideoFrame

# Share of a clip that may be missing at its ends: sound is zero there, pictures stand still.
PADDED_FRACTION = 0.1
# Read before a clip: audio decoders need it, and streams are interleaved loosely.
PREROLL_S = 0.5
# Matroska rounds times to a millisecond: a frame that near after the wanted time is shown at it.
ROUNDING_S = 0.001


def frames_of(packet: Packet, *, forgive: bool) -> list[VideoFrame | AudioFrame]:
    """Decodes a packet; what precedes the first decodable packet after a seek is forgiven."""
    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        if forgive:
            return []
        raise
