"""Prepares a dataset from beginning to end: lists a source, makes its shards, publishes the dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Listing, Request
from diffmavil_jax.data.prepare.builder import REPORT, VERSION, PreparedBuilder, Runner
from diffmavil_jax.data.prepare.settings import SAMPLE_RATE, Settings
from diffmavil_jax.data.prepare.work import Job, Work, identity
from diffmavil_jax.data.prepared.format import Metadata
from diffmavil_jax.storage.lock import locked
from diffmavil_jax.storage.outputs import held_inputs

WORK = '.work'

_NAME = re.compile(r'[a-z][a-z0-9_]*')


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        folder: of its version.
        report: the contents of its prepare_report.json.
        was_there: whether an earlier run made it, and this one did nothing.
    """

    folder: epath.Path
    report: Mapping[str, Any]
    was_there: bool


def prepare(
    source: str,
    request: Request,
    settings: Settings,
    *,
    output: epath.Path,
    name: str,
    runner: Runner,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Prepared:
    """Makes OUTPUT/NAME/VERSION, or continues where an earlier run was killed.

    Args:
        source: one of SOURCES.
        request: where its lists and media are.
        settings: what a clip is.
        output: a folder that all workers can write to.
        name: of the dataset, in lower case.
        runner: where the work is done.
        overwrite: whether another dataset of this name is removed first.
        say: takes lines about the progress.

    Raises:
        DataError: the source can't be understood, no clip of it can be used, there is another dataset of
            this name, or another run is making it.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"--name={name}: must be lower-case letters, digits and '_', with a letter first.")
    listing = SOURCES[source].read(request)
    if not listing.rows:
        raise DataError(f'{source} lists no clip in --input={request.input}.')
    job = Job(listing.root or str(request.input), settings)
    key = identity(listing, job, source)
    folder = output / name / VERSION
    if overwrite:
        _check_removable(folder, (job.input, request.labels, *request.tables))
    _make_folder(output)
    with _alone(output, name, say):
        if folder.exists() and not overwrite:
            return _existing(folder, key)
        _clear(folder)
        work = Work.open(output / WORK / f'{name}-{key}', listing, job)
        num_done = work.num_done()
        for line in _beginning(listing, work, num_done, name):
            say(line)
        started = time.time()
        builder = PreparedBuilder(
            name=name,
            data_dir=output,
            work=work,
            metadata=_metadata(source, settings, listing),
            runner=runner,
            facts={'dataset': name, 'identity': key, 'source': source, 'input': job.input}
            | _facts(settings, runner, listing, work, num_done),
            progress=lambda done, total: say(f'{done} of {total} shards done, {time.time() - started:.0f} s'),
        )
        # Nothing is downloaded, but TFDS would make folders for downloads in the home directory.
        builder.download_and_prepare(download_dir=work.folder / 'downloads')
        work.remove()
        return Prepared(folder, json.loads((folder / REPORT).read_text()), was_there=False)


@contextlib.contextmanager
def _alone(output: epath.Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps others from preparing a dataset of this name; leaves no folder that is empty."""
    busy, advice = f'{output / name} is being prepared', 'Wait for it, or choose another --name or --output.'
    try:
        with locked(output / WORK / f'{name}.lock', busy, advice, say):
            yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # epath's error if it is not empty
            (output / WORK).rmdir()


def _check_removable(folder: epath.Path, inputs: Iterable[epath.Path | str | None]) -> None:
    """Raises DataError if --overwrite would remove what is no dataset, or what this one is made of."""
    if not folder.exists():
        return
    if not any((folder / name).exists() for name in (REPORT, 'dataset_info.json')):
        raise DataError(f'{folder} is no dataset, so --overwrite does not remove it: choose another --name.')
    for held in held_inputs(folder, filter(None, inputs)):
        raise DataError(f'{folder} is, or holds, the input {held}: choose another --name or --output.')


def _make_folder(output: epath.Path) -> None:
    try:
        (output / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'--output={output}: must be a folder that can be written ({error}).') from error


def _clear(folder: epath.Path) -> None:
    """Removes a dataset, and what TFDS left of a killed run."""
    if folder.exists():
        folder.rmtree()
    for leftover in folder.parent.glob(f'incomplete.*_{folder.name}'):
        leftover.rmtree()


def _existing(folder: epath.Path, key: str) -> Prepared:
    """The dataset that is there, if it is the same.

    Raises:
        DataError: it is another one.
    """
    try:
        report = json.loads((folder / REPORT).read_text())
    except (OSError, ValueError):
        report = {}
    if report.get('identity') != key:
        raise DataError(
            f'{folder} holds a dataset of other clips or other settings: choose another --name or --output, '
            'or give --overwrite to remove it.'
        )
    return Prepared(folder, report, was_there=True)


def _beginning(listing: Listing, work: Work, num_done: int, name: str) -> Iterator[str]:
    """Lines to print before the work starts."""
    yield f'{len(listing.rows)} rows in {work.num_shards} shards'
    yield from listing.notes
    if num_done:
        yield f'{num_done} shards are done already'
    for other in work.folder.parent.glob(f'{name}-*'):
        if other != work.folder:
            yield f'{other} holds unfinished work of other clips or settings; remove it if it is not wanted'


def _facts(settings: Settings, runner: Runner, listing: Listing, work: Work, num_done: int) -> dict[str, Any]:
    """What the report says besides counts and names."""
    return {
        'settings': dataclasses.asdict(settings),
        'runner': runner.name,
        'workers': runner.workers,
        'shards': work.num_shards,
        'shards_of_an_earlier_run': num_done,
        'listing_notes': list(listing.notes),
    }


def _metadata(source: str, settings: Settings, listing: Listing) -> Metadata:
    return Metadata(
        source=source,
        modalities=tuple(modality for modality in MODALITIES if modality in settings.modalities),
        class_names=listing.class_names,
        multi_label=listing.multi_label,
        sample_rate=SAMPLE_RATE,
        seconds=settings.seconds,
        frames=settings.frames if settings.has_video else 0,
        frame_size=settings.frame_size if settings.has_video else 0,
    )
