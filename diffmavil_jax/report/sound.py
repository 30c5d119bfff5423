"""Sound as a WAV file."""

from __future__ import annotations

import io
import wave

import numpy as np
from jaxtyping import Int16


def to_wav(waveform: Int16[np.ndarray, ' samples'], sample_rate: int) -> bytes:
    """A mono WAV file of 16 bits a sample."""
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(waveform.astype('<i2').tobytes())
    return buffer.getvalue()
