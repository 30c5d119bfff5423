"""What `diffmavil reconstruct` writes for each file: pictures to look at and sound to listen to."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from diffmavil_jax.atomic import write_bytes
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import Refusal
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.evaluation.listening import to_waveform
from diffmavil_jax.inference.reconstruct import Options, Reconstructor, Result
from diffmavil_jax.report import figures, film, sheets
from diffmavil_jax.report.content import Reconstruction
from diffmavil_jax.report.sound import to_wav
from diffmavil_jax.storage.outputs import check_files
from diffmavil_jax.storage.paths import local_path

_STEM_BYTES = 220  # a name may have 255


@dataclasses.dataclass(frozen=True)
class Written:
    """The files that were written for a file."""

    path: str
    files: tuple[pathlib.Path, ...]


def reconstruct(
    files: Sequence[str],
    run: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Options,
    *,
    start_s: float = 0.0,
    video: str = 'gif',
    overwrite: bool = False,
) -> Iterator[Written | Refusal]:
    """Writes a PNG, a film, and target and reconstruction as WAV for each file.

    Both sounds are made from log-mel, so that they differ only by what the network did.

    Args:
        files: paths of media.
        run: workdir of a pretraining run.
        output: the folder to write to.
        options: what is hidden, and how it is sampled.
        start_s: where the clip begins in each file, in seconds.
        video: `gif` or `mp4`.
        overwrite: whether files of the same name are replaced; an input never is.

    Yields:
        What was written for each file, or why it can't be used.

    Raises:
        ConfigError: the run, the folder or an option can't be used, or a file is in the way.
    """
    if video not in film.FORMATS:
        raise ConfigError(f'video = {video!r}: must be one of {", ".join(film.FORMATS)}.')
    if not 0 <= start_s <= media.MAX_SECONDS:
        raise ConfigError(f'start_s = {start_s:g}: must be from 0 to {media.MAX_SECONDS:g}.')
    folder = local_path(output, f'--output={output}')
    stems = _stems(files)
    outputs = [folder / f'{stem}{end}' for stem in stems for end in _ends(video)]
    check_files(outputs, inputs=files, overwrite=overwrite, flag=f'--output={output}')
    reconstructor = Reconstructor(run, options)
    _write(folder, {}, overwrite=overwrite)
    with DecodePool(1) as pool:
        for path, name in zip(files, stems, strict=True):
            try:
                window = reconstructor.read(pool, path, start_s)
            except media.MediaError as error:
                yield Refusal(path, str(error))
                continue
            contents = _contents(reconstructor.config, path, reconstructor(window), video, options.seed)
            named = {name + end: content for end, content in contents.items()}
            yield Written(path, _write(folder, named, overwrite=overwrite))


def _ends(video: str) -> tuple[str, ...]:
    """How the names of all files end that may be written for one."""
    return '.png', f'.{video}', '_target.wav', '_reconstruction.wav'


def _contents(config: Config, path: str, result: Result, video: str, seed: int) -> dict[str, bytes]:
    """The contents of a clip's files, by how their names end."""
    seconds, stages = config.data.seconds, result.stages
    sheet = sheets.reconstruction_sheet(Reconstruction(id=path, seconds=seconds, **stages))
    frames = film.side_by_side(stages['video'])
    contents = {
        '.png': figures.to_png(sheet),
        f'.{video}': (film.to_gif if video == 'gif' else film.to_mp4)(frames, config.data.video_span),
    }
    for name, log_mel in (('target', stages['audio'].target), ('reconstruction', stages['audio'].prediction)):
        if np.isfinite(log_mel).all():
            rate = config.data.sample_rate
            contents[f'_{name}.wav'] = to_wav(to_waveform(log_mel, rate, result.samples, seed), rate)
    return contents


def _write(
    folder: pathlib.Path, contents: Mapping[str, bytes], *, overwrite: bool
) -> tuple[pathlib.Path, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_bytes(folder / name, content, overwrite=overwrite)
    except OSError as error:
        raise ConfigError(f'output = {str(folder)!r}: must be a folder to write to ({error}).') from None
    return tuple(folder / name for name in contents)


def _stems(files: Iterable[str]) -> list[str]:
    """How the names of each file's outputs begin: its own stem, numbered where an earlier file has it."""
    names: dict[str, str] = {}
    for file in files:
        stem = _shortened(pathlib.Path(file).stem)
        numbered = (f'{stem}_{number}' for number in itertools.count(2))
        name = next(name for name in itertools.chain([stem], numbered) if _folded(name) not in names)
        names[_folded(name)] = name
    return list(names.values())


def _folded(name: str) -> str:
    """The same for all names that some file system takes for one."""
    return unicodedata.normalize('NFC', name).casefold()


def _shortened(stem: str) -> str:
    """A stem that leaves room for a number and an end."""
    while len(os.fsencode(stem)) > _STEM_BYTES:
        stem = stem[:-1]
    return stem
