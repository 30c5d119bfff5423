"""The reader of sound: mono, resampled, and silent where the file has none."""

from __future__ import annotations

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.packet import Packet
from jaxtyping import Int16

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import MediaError
from diffmavil_jax.data.media.packets import PADDED_FRACTION, PREROLL_S, ROUNDING_S, frames_of

# A waveform of int16 that stays within (-16, 16), -66 dB of full scale, is silent.
SILENCE_PEAK = 16

# A frame follows the one before it, by the count of samples, if its time is this late or this early at most.
_LATEST_S, _EARLIEST_S = 0.05, -0.002
# Vorbis in Matroska states times up to 21 ms late where its block size changes. No format states them early.
_MISSTATED_S = 0.025
# Samples per second. A stream that claims fewer or more is damaged, and resampling it would never end.
_RATES = (2_000, 1_000_000)
# Sound is decoded this far beyond the end of the clip, for the resampler's filter.
_BEYOND_S = 0.005


class Sound:
    """Takes packets in order until it has all sound of the clip; the methods are those of a PictureReader.

    `start` is when the clip begins, on the container's clock in seconds.
    """

    def __init__(self, start: float, spec: ClipSpec) -> None:
        self._start, self._end, self._rate = start, start + spec.seconds, spec.sample_rate
        self._waveform = spec.blank('waveform')
        self._run: _Run | None = None
        self._first: float | None = None
        self._heard = 0  # samples of the clip that come from the file
        self._untimed = False

    @property
    def done(self) -> bool:
        return self._run is not None and self._run.end >= self._end + _BEYOND_S

    @property
    def begins_late(self) -> bool:
        first = self._run.begin if self._first is None and self._run is not None else self._first
        return first is None or first > self._start + ROUNDING_S

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if self._run is None and self._is_before(packet):
            return
        for frame in frames_of(packet, forgive=after_seek and self._run is None):
            assert isinstance(frame, AudioFrame)
            if frame.time is None and self._run is None:
                self._untimed = True  # it is before the first sound that has a time
            elif frame.samples:
                self._add_frame(frame)

    def finish(self) -> Int16[np.ndarray, ' samples']:
        self._place()
        return self._waveform

    def check_length(self, *, alone: bool) -> None:
        """Checks that sound fills the clip. Call it after `finish`.

        Args:
            alone: whether there are no pictures. With pictures, gaps in the sound are silence, and it must
                only last long enough.

        Raises:
            MediaError: more than PADDED_FRACTION of it is missing.
        """
        clip_s = self._end - self._start
        heard_s = self._heard / self._rate
        lasts_s = heard_s if alone or self._run is None else self._run.end - self._start
        if lasts_s < (1 - PADDED_FRACTION) * clip_s - 0.5 / self._rate:
            if self._untimed and self._run is None:
                raise MediaError('unreadable: sound without times')
            raise MediaError(f'too short: sound for {max(0.0, min(lasts_s, clip_s)):.2f} of {clip_s:g} s')

    def _is_before(self, packet: Packet) -> bool:
        """Whether a packet is so far before the clip that it has no influence on it."""
        if packet.pts is None or packet.time_base is None:
            return False
        return float((packet.pts + (packet.duration or 0)) * packet.time_base) < self._start - PREROLL_S

    def _add_frame(self, frame: AudioFrame) -> None:
        if self._run is None or not self._run.continues(frame):
            self._place()
            time = frame.time if frame.time is not None or self._run is None else self._run.end
            assert time is not None
            self._run = _Run(frame, time)
        self._run.add(frame)

    def _place(self) -> None:
        if self._run is None:
            return
        chunk = self._run.resample(self._rate)
        if self._first is None:
            self._first = self._run.begin
        position = round((self._run.begin - self._start) * self._rate)
        low, high = max(0, position), min(len(self._waveform), position + len(chunk))
        if low < high:
            self._waveform[low:high] = chunk[low - position : high - position]
            self._heard += high - low


class _Run:
    """Contiguous sound of one format. A gap or a jump back in time begins another run."""

    def __init__(self, first: AudioFrame, begin: float) -> None:
        self.begin = self._stated = begin
        self._rate = first.sample_rate
        if not _RATES[0] <= self._rate <= _RATES[1]:
            raise MediaError(f'unreadable: sound of {self._rate} samples a second')
        self._kind = _kind(first)
        self._fifo = AudioFifo()

    @property
    def end(self) -> float:
        return self.begin + self._fifo.samples_written / self._rate

    def continues(self, frame: AudioFrame) -> bool:
        """Whether a frame belongs to this run. Corrects `begin` if the run began earlier."""
        if _kind(frame) != self._kind:
            return False
        late_s = 0.0 if frame.time is None else frame.time - self.end
        if late_s < _EARLIEST_S and self._stated - (self.begin + late_s) <= _MISSTATED_S:
            self.begin += late_s
            return True
        return _EARLIEST_S <= late_s <= _LATEST_S

    def add(self, frame: AudioFrame) -> None:
        frame = _mono(frame)
        frame.pts = None  # the fifo refuses times with gaps, however small
        self._fifo.write(frame)

    def resample(self, rate: int) -> Int16[np.ndarray, ' samples']:
        resampler = AudioResampler('s16', 'mono', rate)
        frames = [*resampler.resample(self._fifo.read()), *resampler.resample(None)]
        # A resampler that had nothing to do returns None when it is flushed.
        chunks = [
            np.frombuffer(memoryview(f.planes[0]), np.int16, f.samples) for f in frames if f is not None
        ]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.int16)


def _mono(frame: AudioFrame) -> AudioFrame:
    """The mean of all channels, unless FFmpeg takes it itself, as it does of stereo.

    Of more channels it would leave some out: the low frequencies, and those that it knows no place for.
    """
    if frame.layout.name in ('mono', 'stereo'):
        return frame
    samples = frame.to_ndarray()
    channels = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    if channels.dtype.kind in 'iu':
        full = 2.0 ** (8 * channels.dtype.itemsize - 1)
        middle = full if channels.dtype.kind == 'u' else 0.0
        channels = (channels.astype(np.float64) - middle) / full
    mixed = AudioFrame.from_ndarray(channels.mean(1, dtype=np.float32)[None], format='fltp', layout='mono')
    mixed.sample_rate = frame.sample_rate
    return mixed


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
