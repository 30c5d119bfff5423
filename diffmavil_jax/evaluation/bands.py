"""Reconstruction error per frequency band, which tells details from blurs.

DiffMAViL's motivation is that diffusion strengthens high-frequency features. An
orthonormal two-dimensional DCT-II, which keeps energies (Parseval), is taken of each
masked patch and of its error. The coefficients fall into two bands by radial frequency.
Audio: the axes are time and mel, so the frequencies are modulations of the
spectrogram. Video: the axes are height and width of each frame and channel.

The transform sees one patch at a time, so all that is slower than a patch is in the low band.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float

BANDS = ('low', 'high')

# Low is below a quarter of the Nyquist frequency: periods longer than 8 pixels or bins,
# 15 of the 256 coefficients of a 16 x 16 patch. Not from the paper: any cut is a choice.
CUTOFF = 0.25


@dataclasses.dataclass(frozen=True)
class BandEnergies:
    """Sums over patches. Add those of all batches before taking ratios.

    Attributes:
        error: squared error, for each of BANDS.
        target: squared target, for each of BANDS, about zero.
        dc: sum of the zero-frequency coefficients of the targets, for each channel.
        num_dc: how many coefficients each entry of `dc` sums.
    """

    error: Float[np.ndarray, ' 2']
    target: Float[np.ndarray, ' 2']
    dc: Float[np.ndarray, ' c']
    num_dc: int

    def __add__(self, other: BandEnergies) -> BandEnergies:
        return BandEnergies(
            error=self.error + other.error,
            target=self.target + other.target,
            dc=self.dc + other.dc,
            num_dc=self.num_dc + other.num_dc,
        )

    def relative_error(self) -> dict[str, float]:
        """Error energy over target energy of each band: 0 is perfect, 1 is as good as the mean predictor.

        The mean predictor predicts one number for each channel, the mean over all targets. So
        the target energy of the low band is taken about that mean. About zero, it would grow with
        any offset of the front end, and guessing the offset alone would look like a
        reconstruction. The mean has no energy in the high band. A band without target energy is NaN.
        """
        energy = self.target - [float(np.sum(self.dc**2)) / self.num_dc, 0.0]
        # A constant target leaves rounding errors in place of zero: those of float32 squares in the
        # low band, where the mean was subtracted, and of float32 coefficients in the high band.
        defined = energy > np.array([1e-6, 1e-12]) * np.sum(self.target)
        ratio = np.divide(self.error, energy, out=np.full(2, np.nan), where=defined)
        return {band: float(r) for band, r in zip(BANDS, ratio, strict=True)}


def audio_band_energies(
    target: Float[np.ndarray, '*n p'], prediction: Float[np.ndarray, '*n p'], patch: int
) -> BandEnergies:
    """Bands of log-mel patches, each p = patch x patch values in (time, mel) order."""
    return band_energies(target, prediction, (1, patch, patch, 1))


def video_band_energies(
    target: Float[np.ndarray, '*n p'], prediction: Float[np.ndarray, '*n p'], patch_frames: int, patch: int
) -> BandEnergies:
    """Bands of tubelets, each p = patch_frames x patch x patch x 3 values in that order."""
    return band_energies(target, prediction, (patch_frames, patch, patch, 3))


def band_energies(
    target: Float[np.ndarray, '*n p'],
    prediction: Float[np.ndarray, '*n p'],
    shape: tuple[int, int, int, int],
) -> BandEnergies:
    """Bands of patches of any modality.

    Args:
        target: flattened patches; only the masked ones should be given.
        prediction: the same patches, reconstructed, in the same units.
        shape: how p unfolds: (frame, row, column, channel). Rows and columns are transformed.

    Returns:
        The sums. Values that are not finite make them NaN.

    Raises:
        ValueError: the shapes do not fit.
    """
    if target.shape != prediction.shape or target.shape[-1] != np.prod(shape):
        shapes = f'target {target.shape} and prediction {prediction.shape}'
        raise ValueError(f'{shapes} must be alike, the last axis of {" x ".join(map(str, shape))} values.')
    dtype = np.result_type(target, prediction, np.float32)
    target = np.asarray(target, dtype)
    spectrum = _dct(target, shape)
    dc = spectrum[:, :, 0, 0, :]
    return BandEnergies(
        error=_energies(_dct(np.asarray(prediction, dtype) - target, shape)),
        target=_energies(spectrum),
        dc=dc.sum(axis=(0, 1), dtype=np.float64),
        num_dc=dc.shape[0] * dc.shape[1],
    )


def low_band(rows: int, columns: int) -> Bool[np.ndarray, 'rows columns']:
    """Which DCT-II coefficients are low.

    Coefficient u of P has a frequency of u / P in units of Nyquist (u / 2P cycles per
    sample); the radius sqrt((u / rows)^2 + (v / columns)^2) is compared with CUTOFF.
    """
    u = np.arange(rows) / rows
    v = np.arange(columns) / columns
    return np.hypot(u[:, None], v[None, :]) < CUTOFF


def _dct(
    patches: Float[np.ndarray, '*n p'], shape: tuple[int, int, int, int]
) -> Float[np.ndarray, 'n t h w c']:
    return scipy.fft.dctn(patches.reshape(-1, *shape), type=2, axes=(2, 3), norm='ortho')


def _energies(spectrum: Float[np.ndarray, 'n t h w c']) -> Float[np.ndarray, ' 2']:
    # Summed in float64: over millions of values a float32 sum drifts.
    energy: Float[np.ndarray, 'h w'] = np.square(spectrum).sum(axis=(0, 1, 4), dtype=np.float64)
    low = low_band(*energy.shape)
    return np.array([energy[low].sum(), energy[~low].sum()])
