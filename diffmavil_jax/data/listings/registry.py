"""The sources that `prepare` knows, with the defaults for their clips."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.listings import local, parquet, paths, sounds, webdataset, youtube
from diffmavil_jax.data.listings.row import Listing, Request


@dataclasses.dataclass(frozen=True)
class Source:
    """How a source is read.

    Attributes:
        reader: lists its rows.
        about: one line for --help.
        modalities: of its clips.
        seconds: length of a clip; None: a clip is the whole row, however long.
        offered: finds out the modalities, where they differ from one input to another.
    """

    reader: Callable[[Request], Listing]
    about: str
    modalities: tuple[str, ...] = MODALITIES
    seconds: float | None = 10.0
    offered: Callable[[Request], tuple[str, ...]] | None = None

    def default_modalities(self, request: Request) -> tuple[str, ...]:
        """What a clip must have, if the user does not say it.

        Raises:
            DataError: that of `read`.
        """
        if self.offered is None:
            return self.modalities
        with paths.said(request.input):
            return self.offered(request)

    def read(self, request: Request) -> Listing:
        """The rows of the source.

        Raises:
            DataError: a list can't be understood, or a file or folder can't be read.
        """
        with paths.said(request.input):
            return self.reader(request)


_SOUND = ('audio',)

SOURCES: Mapping[str, Source] = types.MappingProxyType(
    {
        'folder': Source(local.read_folder, 'any media below a folder, cut into clips'),
        'csv': Source(local.read_csv, 'a CSV with path, and split, label(s), start_s, duration_s if known'),
        'webdataset': Source(
            webdataset.read_webdataset, 'tars of media with .cls, .json or .txt, as video2dataset writes them'
        ),
        'parquet': Source(
            parquet.read_parquet,
            'Parquet files with a column audio or video, as on Hugging Face',
            offered=parquet.offered,
        ),
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
