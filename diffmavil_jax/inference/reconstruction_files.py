"""What `diffmavil reconstruct` writes for each file: pictures to look at and sound to listen to."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
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
) -> Iterator[Written | Refusal]:
    """Writes a PNG, a film, and target and reconstruction as WAV for each file, over those of the same name.

    Both sounds are made from log-mel, so that they differ only by what the network did.

    Args:
        files: paths of media.
        run: workdir of a pretraining run.
        output: the folder to write to.
        options: what is hidden, and how it is sampled.
        start_s: where the clip begins in each file, in seconds.
        video: `gif` or `mp4`.

    Yields:
        What was written for each file, or why it can't be used.

    Raises:
        ConfigError: the run, the folder or an option can't be used.
    """
    if video not in film.FORMATS:
        raise ConfigError(f'video = {video!r}: must be one of {", ".join(film.FORMATS)}.')
    if not 0 <= start_s <= media.MAX_SECONDS:
        raise ConfigError(f'start_s = {start_s:g}: must be from 0 to {media.MAX_SECONDS:g}.')
    reconstructor = Reconstructor(run, options)
    folder = pathlib.Path(output).expanduser()
    _write(folder, {})
    with DecodePool(1) as pool:
        for path, name in zip(files, _stems(files), strict=True):
            try:
                window = reconstructor.read(pool, path, start_s)
            except media.MediaError as error:
                yield Refusal(path, str(error))
                continue
            contents = _contents(reconstructor.config, path, reconstructor(window), video, options.seed)
            yield Written(path, _write(folder, {name + end: content for end, content in contents.items()}))


def _contents(config: Config, path: str, result: Result, video: str, seed: int) -> dict[str, bytes]:
    """The contents of a clip's files, by how their names end."""
    seconds, stages = config.data.seconds, result.stages
    sheet = sheets.reconstruction_sheet(Reconstruction(id=path, seconds=seconds, **stages))
    frames = film.side_by_side(stages['video'])
    contents = {
        '.png': figures.to_png(sheet),
        f'.{video}': (film.to_gif if video == 'gif' else film.to_mp4)(frames, seconds),
    }
    for name, log_mel in (('target', stages['audio'].target), ('reconstruction', stages['audio'].prediction)):
        if np.isfinite(log_mel).all():
            rate = config.data.sample_rate
            contents[f'_{name}.wav'] = to_wav(to_waveform(log_mel, rate, result.samples, seed), rate)
    return contents


def _write(folder: pathlib.Path, contents: Mapping[str, bytes]) -> tuple[pathlib.Path, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_bytes(folder / name, content)
    except OSError as error:
        raise ConfigError(f'output = {str(folder)!r}: must be a folder to write to ({error}).') from None
    return tuple(folder / name for name in contents)


def _stems(files: Iterable[str]) -> list[str]:
    """How the names of each file's outputs begin: its own stem, numbered where an earlier file has it."""
    names: list[str] = []
    for file in files:
        stem = pathlib.Path(file).stem
        numbered = (f'{stem}_{number}' for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([stem], numbered) if name not in names))
    return names
