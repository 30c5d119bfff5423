"""The generated world: struck, bouncing objects, rendered and synthesised from one random state.

An object falls, bounces off the floor a few times and sounds at each impact. Sound and picture share factors,
from easy to hard:

| factor     | seen as                                  | heard as                              | grade  |
|------------|------------------------------------------|---------------------------------------|--------|
| pitch      | hue (red is low) and size (large is low) | fundamental, 150 to 1,200 Hz          | easy   |
| impacts    | bounces, and a flash that lights the scene | onsets at the same moments          | medium |
| shape      | disc, square, triangle, cross            | ratios of the partials                | hard   |
| material   | texture: plain, stripes, checks, rings   | damping and brightness of the partials | hard  |

`difficulty` chooses which of them are tied. `easy` ties all of them; in `medium` hue and size do not follow
pitch; in `hard` the impacts are not simultaneous either. Horizontal position and drift, rotation, background,
gain, and noise in both modalities are random and have no counterpart in the other modality. A clip is a pure
function of (seed, index).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import Clip, ClipSpec, Refusal
from diffmavil_jax.data.take import FIXED, Take, cut_picture

SHAPES = ('disc', 'square', 'triangle', 'cross')
MATERIALS = ('rubber', 'wood', 'glass', 'metal')  # plain, stripes, checks, rings

# Frequencies of the partials over the fundamental: a circular membrane, a string, a stopped pipe, a free bar.
_RATIOS = np.array(
    [
        [1.0, 1.593, 2.136, 2.296, 2.653, 2.918],
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, 3.0, 5.0, 7.0, 9.0, 11.0],
        [1.0, 2.756, 5.404, 8.933, 13.34, 18.64],
    ]
)
_DECAY_SECONDS = np.array([0.12, 0.3, 0.7, 1.6])  # time to fall by 60 dB
_ROLLOFF = np.array([2.0, 1.3, 0.7, 0.2])  # partial n has amplitude n ** -rolloff
_LOWEST_HZ, _OCTAVES = 150.0, 3.0
_FLASH_SECONDS = 0.12
_MIN_GAP, _MAX_GAP = 0.25, 0.8  # seconds between impacts; a bounce of _MAX_GAP fills the frame
_BLOCK = 64  # samples; see _strike


@dataclasses.dataclass(frozen=True)
class Factors:
    """The random state of one clip. Numbers are in [0, 1] unless a comment says otherwise."""

    pitch: float
    hue: float
    size: float
    seen_impacts: tuple[float, ...]  # seconds
    heard_impacts: tuple[float, ...]  # seconds
    strengths: tuple[float, ...]
    seen_shape: int
    seen_material: int


class GeneratedWorld:
    """A source of `length` generated clips (a ClipSource); see the docstring of the module.

    The label is the class 4 * shape + material.
    """

    name = 'the generated world'
    modalities = MODALITIES
    multi_label = False
    label_names = tuple(f'{shape} {material}' for shape in SHAPES for material in MATERIALS)

    def __init__(self, spec: ClipSpec, *, seed: int, length: int, difficulty: str = 'easy') -> None:
        self._spec = spec
        self._seed = seed
        self._length = length
        self._difficulty = difficulty

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        """A clip has no more time than its own; its pictures are rendered whole, and cut."""
        rng = self._rng(index)
        factors = _draw_factors(rng, self._spec.seconds, self._difficulty)
        return {
            'waveform': _synthesise(rng, factors, self._spec),
            'frames': _taken(_render(rng, factors, self._spec, self._spec.video_start(take)), take),
            'label': _label(factors),
            'id': f'generated/{self._seed}/{index}',
        }

    def refused(self) -> list[Refusal]:
        return []

    def record(self, refused: Mapping[int, Refusal]) -> None:
        """Does nothing: no clip of this world is refused."""

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The factors of item `index`: label, hue, size, pitch [1], impacts [frames], shape, material.

        `impacts` is 1 in each of `frames` equal intervals of the pictures that holds an impact, else 0.
        """
        drawn = _draw_factors(self._rng(index), self._spec.seconds, self._difficulty)
        times = np.asarray(drawn.seen_impacts)
        begin = self._spec.video_start(FIXED)
        span = (begin, begin + self._spec.video_span)
        counts, _ = np.histogram(times, bins=self._spec.frames, range=span)
        return {
            'label': _label(drawn),
            'hue': np.array([drawn.hue]),
            'size': np.array([drawn.size]),
            'pitch': np.array([drawn.pitch]),
            'impacts': (counts > 0).astype(np.float64),
            'shape': drawn.seen_shape,
            'material': drawn.seen_material,
        }

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        return np.array([_label(_draw_factors(self._rng(index), self._spec.seconds, self._difficulty))])

    def _rng(self, index: int) -> np.random.Generator:
        if not 0 <= index < self._length:
            raise IndexError(f'clip {index} of {self._length}')
        return np.random.default_rng([self._seed, index])


def _label(factors: Factors) -> int:
    return len(MATERIALS) * factors.seen_shape + factors.seen_material


def _draw_factors(rng: np.random.Generator, seconds: float, difficulty: str) -> Factors:
    pitch, other_pitch = rng.uniform(size=2)
    jitter = 0.03 * rng.standard_normal(2)
    seen_pitch = pitch if difficulty == 'easy' else other_pitch
    heard, others = _draw_impacts(rng, seconds), _draw_impacts(rng, seconds)
    return Factors(
        pitch=pitch,
        hue=float(np.clip(seen_pitch + jitter[0], 0, 1)),
        size=float(np.clip(1 - seen_pitch + jitter[1], 0, 1)),
        seen_impacts=others if difficulty == 'hard' else heard,
        heard_impacts=heard,
        strengths=tuple(rng.uniform(0.6, 1.0, size=max(len(heard), len(others)))),
        seen_shape=int(rng.integers(len(SHAPES))),
        seen_material=int(rng.integers(len(MATERIALS))),
    )


def _draw_impacts(rng: np.random.Generator, seconds: float) -> tuple[float, ...]:
    """Times of the impacts in seconds, with random gaps; the first is within one bounce of the start."""
    gaps = rng.uniform(_MIN_GAP, _MAX_GAP, size=1 + int(seconds / _MIN_GAP))
    gaps[0] = rng.uniform(0.05, min(_MAX_GAP, seconds / 2))
    times = np.cumsum(gaps)
    # The last impact leaves room for some of its sound.
    return tuple(times[times <= max(seconds - 0.1, times[0])])


def _synthesise(rng: np.random.Generator, factors: Factors, spec: ClipSpec) -> Int16[np.ndarray, ' samples']:
    strike = _strike(rng, factors, spec)
    waveform = 0.002 * rng.standard_normal(spec.num_samples, dtype=np.float32)
    for time, strength in zip(factors.heard_impacts, factors.strengths, strict=False):
        start = round(time * spec.sample_rate)
        waveform[start:] += np.float32(strength) * strike[: spec.num_samples - start]
    gain = rng.uniform(0.3, 0.9) / max(1.0, float(np.abs(waveform).max()))
    return np.round(waveform * np.float32(32_767 * gain)).astype(np.int16)


def _strike(rng: np.random.Generator, factors: Factors, spec: ClipSpec) -> Float[np.ndarray, ' samples']:
    """The sound of one impact: damped partials of peak amplitude about 1.

    exp(s * n) for n = a * BLOCK + b is the product of two short tables, so that a strike is
    one small matrix product instead of a sine and an exponential for each sample and partial.
    """
    fundamental = _LOWEST_HZ * 2 ** (_OCTAVES * factors.pitch)
    hz = fundamental * _RATIOS[factors.seen_shape]
    hz = hz[hz < 0.475 * spec.sample_rate]
    order = np.arange(1, len(hz) + 1)
    decay_seconds = _DECAY_SECONDS[factors.seen_material] * rng.uniform(0.8, 1.25) / (1 + 0.15 * order)
    amplitude = order ** -(_ROLLOFF[factors.seen_material] * rng.uniform(0.85, 1.15))
    phase = rng.uniform(0, 2 * np.pi, size=len(hz))

    exponent = (-np.log(1e3) / decay_seconds + 2j * np.pi * hz) / spec.sample_rate
    num_blocks = -(-spec.num_samples // _BLOCK)
    coarse = np.exp(np.outer(np.arange(num_blocks) * _BLOCK, exponent))
    fine = (amplitude / amplitude.sum() * np.exp(1j * phase))[:, None] * np.exp(
        np.outer(exponent, np.arange(_BLOCK))
    )
    left = np.concatenate([coarse.real, -coarse.imag], axis=1).astype(np.float32)
    right = np.concatenate([fine.real, fine.imag], axis=0).astype(np.float32)
    return (left @ right).reshape(-1)[: spec.num_samples]


def _taken(frames: UInt8[np.ndarray, 't h w 3'], take: Take) -> UInt8[np.ndarray, 't h w 3']:
    if take.crop is not None:
        frames = np.stack([cut_picture(frame, take.crop, len(frame)) for frame in frames])
    return frames[:, :, take.columns]


def _render(
    rng: np.random.Generator, factors: Factors, spec: ClipSpec, start_s: float
) -> UInt8[np.ndarray, 't h w 3']:
    times = start_s + (np.arange(spec.frames) + 0.5) * spec.video_span / spec.frames
    radius = 0.14 + 0.12 * factors.size  # of the frame's side
    height, flash = _bounce(times, factors)
    x = rng.uniform(0.3, 0.7) + rng.uniform(-0.1, 0.1) * (times - times.mean())
    y = 1.0 - radius - (1.0 - 2.0 * radius) * height
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.0, 1.0) * times
    u, v = _local_coordinates(spec.frame_size, x, y, angle, radius)

    softness = 2.0 / (radius * spec.frame_size)
    inside = np.clip(0.5 - _signed_distance(factors.seen_shape, u, v) / softness, 0, 1)
    light = (0.75 + 0.25 * flash).astype(np.float32)[:, None, None]
    paint = light * inside * _texture(factors.seen_material, u, v)
    lit_by_flash = (0.4 * flash).astype(np.float32)[:, None, None]
    grey = (_backdrop(rng, spec.frame_size) + lit_by_flash) * (1 - inside)
    grey += 0.01 * rng.standard_normal(u.shape, dtype=np.float32)
    frames = np.empty((*u.shape, 3), np.uint8)
    for channel, tint in enumerate(_rgb(factors.hue)):
        frames[..., channel] = np.clip(255 * (grey + tint * paint) + 0.5, 0, 255)
    return frames


def _bounce(
    times: Float[np.ndarray, ' t'], factors: Factors
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
    """Height above the floor (1 touches the top) and the flash's brightness, at each time."""
    impacts = np.asarray(factors.seen_impacts)
    bounds = np.concatenate([[impacts[0] - _MAX_GAP], impacts, [impacts[-1] + _MAX_GAP]])
    segment = np.clip(np.searchsorted(bounds, times, side='right') - 1, 0, len(bounds) - 2)
    begin, end = bounds[segment], bounds[segment + 1]
    height = np.clip(4 * (times - begin) * (end - times) / _MAX_GAP**2, 0, 1)
    since = times[:, None] - impacts
    strengths = np.asarray(factors.strengths[: len(impacts)])
    glow = np.where(since >= 0, strengths * np.exp(-np.maximum(since, 0) / _FLASH_SECONDS), 0)
    return height, glow.max(axis=1)


def _local_coordinates(
    side: int,
    x: Float[np.ndarray, ' t'],
    y: Float[np.ndarray, ' t'],
    angle: Float[np.ndarray, ' t'],
    radius: float,
) -> tuple[Float[np.ndarray, 't h w'], Float[np.ndarray, 't h w']]:
    """Centres of the pixels in the coordinates of the object: rotated, in units of its radius."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    dx = ((centres - x[:, None]) / radius).astype(np.float32)[:, None, :]
    dy = ((centres - y[:, None]) / radius).astype(np.float32)[:, :, None]
    cos = np.cos(angle).astype(np.float32)[:, None, None]
    sin = np.sin(angle).astype(np.float32)[:, None, None]
    return cos * dx + sin * dy, cos * dy - sin * dx


def _signed_distance(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline, negative inside. The shapes have the same area: shape says nothing of size."""
    if SHAPES[shape] == 'disc':
        return np.sqrt(u * u + v * v) - np.float32(0.9)
    if SHAPES[shape] == 'square':
        return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.8)
    if SHAPES[shape] == 'triangle':
        return np.maximum(np.abs(u) * np.float32(0.866) + v * np.float32(0.5), -v) - np.float32(0.7)
    narrow, wide = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return np.maximum(narrow - np.float32(0.36), wide - np.float32(1.06))


def _texture(material: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Brightness of the object's surface."""
    frequency = np.float32(6.0)
    if MATERIALS[material] == 'rubber':
        return np.ones_like(u)
    if MATERIALS[material] == 'wood':
        wave = np.sin(frequency * u)
    elif MATERIALS[material] == 'glass':
        wave = np.sin(frequency * u) * np.sin(frequency * v)
    else:
        wave = np.cos(frequency * np.sqrt(u * u + v * v))
    return np.where(wave > 0, np.float32(1.0), np.float32(0.4))


def _rgb(hue: float) -> Float[np.ndarray, '3']:
    """A saturated colour, from red (0) to violet (1)."""
    offset = (np.array([5.0, 3.0, 1.0]) + 4.8 * hue) % 6.0
    return (1.0 - np.clip(np.minimum(offset, 4.0 - offset), 0.0, 1.0)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _ramp(side: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    return line[:, None], line[None, :]


def _backdrop(rng: np.random.Generator, side: int) -> Float[np.ndarray, 'h w']:
    down, right = _ramp(side)
    level, slope_down, slope_right = rng.uniform([0.15, -0.1, -0.1], [0.35, 0.1, 0.1])
    return np.float32(level) + np.float32(slope_down) * down + np.float32(slope_right) * right
