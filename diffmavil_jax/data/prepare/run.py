"""`prepare` from beginning to end: lists a source, makes its shards, publishes the dataset."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Listing, Request
from diffmavil_jax.data.prepare.builder import REPORT, VERSION, PreparedBuilder, Runner
from diffmavil_jax.data.prepare.lock import locked
from diffmavil_jax.data.prepare.settings import SAMPLE_RATE, Settings
from diffmavil_jax.data.prepare.work import Job, Work, identity
from diffmavil_jax.data.prepared.format import Metadata

WORK = '.work'

_NAME = re.compile(r'[a-z][a-z0-9_]*')


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that is there. `report` is what its prepare_report.json says."""

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
    """Makes OUTPUT/name/VERSION, or goes on with it where an earlier run was killed.

    Args:
        source: one of SOURCES.
        request: where its lists and media are.
        settings: what a clip is.
        output: workers must be able to write there.
        name: of the dataset, in lower case.
        runner: where it runs.
        overwrite: whether another dataset in its place is removed first.
        say: takes lines about the progress.

    Raises:
        DataError: the source can't be understood, no clip of it can be used, another dataset is
            in its place, or another run is at it.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"--name={name}: must be lower-case letters, digits and '_', with a letter first.")
    listing = SOURCES[source].read(request)
    if not listing.rows:
        raise DataError(f'{source} lists no clip in --input={request.input}.')
    job = Job(str(request.input), settings)
    key = identity(listing, job, source)
    folder = output / name / VERSION
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'--output={output}: must be a folder that can be written ({error}).') from error
    with locked(output / WORK / f'{name}.lock', str(output / name), say):
        if folder.exists():
            if not overwrite:
                return _existing(folder, key)
            folder.rmtree()
        for leftover in (output / name).glob('incomplete.*'):  # TFDS's, of a killed run
            leftover.rmtree()
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
            facts={
                'dataset': name,
                'identity': key,
                'source': source,
                'input': str(request.input),
                'settings': dataclasses.asdict(settings),
                'runner': runner.name,
                'workers': runner.workers,
                'shards': work.num_shards,
                'shards_of_an_earlier_run': num_done,
                'listing_notes': list(listing.notes),
            },
            progress=lambda done, total: say(f'{done} of {total} shards done, {time.time() - started:.0f} s'),
        )
        # Nothing is downloaded, but TFDS would put its folders for that into the home directory.
        builder.download_and_prepare(download_dir=work.folder / 'downloads')
        work.remove()
        return Prepared(folder, json.loads((folder / REPORT).read_text()), was_there=False)


def _existing(folder: epath.Path, key: str) -> Prepared:
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
    """What to know before it starts."""
    yield f'{len(listing.rows)} rows in {work.num_shards} shards'
    yield from listing.notes
    if num_done:
        yield f'{num_done} shards are done already'
    for other in work.folder.parent.glob(f'{name}-*'):
        if other != work.folder:
            yield f'{other} holds unfinished work of other clips or settings; remove it if it is not wanted'


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
