"""Makes small files and lists, and prepares their rows without Beam."""

import pathlib
import wave

import numpy as np
from etils import epath

from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request
from diffmavil_jax.data.prepare import clips, work
from diffmavil_jax.data.prepare.settings import Settings
from tests.data.film import tone_from, write
from tests.data.prepare.rows import InProcess

CASES = pathlib.Path(__file__).parent.parent / 'data' / 'cases'
SOUND = Settings(modalities=('audio',), seconds=None)


def tone(path, seconds=1.0, hertz=440.0):
    """Writes a tone of 16 kHz as WAV, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * 16_000)) / 16_000
    with wave.open(str(path), 'wb') as file:
        file.setparams((1, 2, 16_000, 0, 'NONE', ''))
        file.writeframes((8_000 * np.sin(2 * np.pi * hertz * times)).astype('<i2').tobytes())
    return path


def film(path, seconds, sound_s=None, **options):
    """Writes a film of moving pictures, 8 a second; with `sound_s` it has so much sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(0).integers(0, 255, (round(8 * seconds), 4, 4, 3), np.uint8)
    pictures = [np.kron(coarse, np.ones((16, 16, 1), np.uint8)) for coarse in grey]
    sound = None if sound_s is None else tone_from(0, sound_s)
    return write(path, pictures, sound, **options)


def listed(source, root, **changes):
    return SOURCES[source].read(Request(epath.Path(root), **changes))


def outcomes(source, root, settings=SOUND, **changes):
    """What becomes of each clip that a source lists."""
    made = clips.Clips(work.Job(str(root), settings), InProcess())
    return [outcome for outcome, _ in made.of_rows(listed(source, root, **changes).rows)]
