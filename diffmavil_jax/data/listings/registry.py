"""The sources that `prepare` knows, with the defaults for their clips."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.listings import local, sounds, youtube
from diffmavil_jax.data.listings.row import Listing, Request


@dataclasses.dataclass(frozen=True)
class Source:
    """How a source is read.

    Attributes:
        read: lists its rows.
        about: one line for --help.
        modalities: of its clips.
        seconds: length of a clip; None: a clip is the whole row, however long.
    """

    read: Callable[[Request], Listing]
    about: str
    modalities: tuple[str, ...] = MODALITIES
    seconds: float | None = 10.0


_SOUND = ('audio',)

SOURCES: Mapping[str, Source] = types.MappingProxyType(
    {
        'folder': Source(local.read_folder, 'any media below a folder, cut into clips'),
        'csv': Source(local.read_csv, 'a CSV with path, and split, label(s), start_s, duration_s if known'),
        'audioset': Source(youtube.read_audioset, 'the segment CSVs, class_labels_indices.csv and the media'),
        'vggsound': Source(youtube.read_vggsound, 'vggsound.csv and the media'),
        'esc50': Source(sounds.read_esc50, 'meta/esc50.csv and audio/', _SOUND, None),
        'esc10': Source(sounds.read_esc10, 'the ten classes of ESC-50 that are ESC-10', _SOUND, None),
        'speech_commands': Source(
            sounds.read_speech_commands,
            'a folder a word, validation_list.txt, testing_list.txt',
            _SOUND,
            None,
        ),
        'spoken_digit': Source(sounds.read_spoken_digit, 'DIGIT_SPEAKER_INDEX.wav', _SOUND, None),
    }
)
