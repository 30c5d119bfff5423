"""Lists labelled sounds: ESC-50, ESC-10, Speech Commands and the spoken digits, as they are published."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings import local, paths, reading
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row

# The order in which ESC-10's own release numbers them.
ESC10_CLASSES = (
    'dog', 'rain', 'sea_waves', 'crying_baby', 'clock_tick', 'sneezing', 'helicopter', 'chainsaw', 'rooster',
    'crackling_fire',
)  # fmt: skip
SPEECH_COMMANDS_LISTS = {'validation_list.txt': 'validation', 'testing_list.txt': 'test'}

_DIGIT = re.compile(r'(?P<digit>\d)_(?P<speaker>[^_/]+)_(?P<index>\d+)\.wav', re.ASCII)
_NUM_TEST_DIGITS = 5


def read_esc50(request: Request) -> Listing:
    """`meta/esc50.csv` (filename, fold, target, category, ...) and `audio/`; splits fold1 to fold5."""
    table, lines = _esc_table(request)
    targets: dict[int, str] = {}
    for where, cells in lines:
        target = reading.whole_number(where, 'target', reading.cell(cells, 'target'))
        category = reading.cell(cells, 'category')
        if targets.setdefault(target, category) != category:
            raise DataError(f'{where}: target {target} is {category!r} here and {targets[target]!r} before.')
    if sorted(targets) != list(range(len(targets))):
        raise DataError(f'{table}: the targets of its {len(targets)} classes are not 0, 1, 2 and so on.')
    return _esc(request, lines, Classes([targets[i] for i in range(len(targets))], table.name))


def read_esc10(request: Request) -> Listing:
    """The ten classes of ESC-50's CSV, or a CSV of them alone, numbered as in ESC-10."""
    _, lines = _esc_table(request)
    ten = [(where, cells) for where, cells in lines if _in_esc10(where, cells)]
    return _esc(request, ten, Classes(ESC10_CLASSES, 'ESC-10'))


def read_speech_commands(request: Request) -> Listing:
    """A folder for each word; validation_list.txt and testing_list.txt name the files not for training."""
    everything = paths.files(request.input)
    found = [
        file
        for file in everything
        if file.lower().endswith('.wav') and file.count('/') == 1 and not file.startswith('_')
    ]  # _background_noise_ is no word
    if not found:
        raise DataError(f'No .wav in folders of --input={request.input}, as Speech Commands has them.')
    held_out = _held_out(request.input, found)
    # A file that a list names but that does not exist is listed too, so that it counts as missing.
    listed = sorted({*found, *held_out})
    words = [local.class_folder(file) for file in listed]
    names = reading.read_names(request.labels) if request.labels else sorted(set(words))
    classes = Classes(names, str(request.labels or 'the folders'))
    rows = [
        Row(file, held_out.get(file, 'train'), file, labels=classes.indices([word], file))
        for file, word in zip(listed, words, strict=True)
    ]
    unused = sum(
        local.is_media(file) and not file.startswith('_') for file in set(everything).difference(found)
    )
    notes = (f'{unused} media files are not WORD/NAME.wav and were not used',) if unused else ()
    return Listing(rows, classes.names, notes=notes)


def _held_out(root: epath.Path, found: Sequence[str]) -> dict[str, str]:
    """The split of each file that a list names, by its path on the disk.

    Raises:
        DataError: a list is missing, a line is not WORD/NAME.wav of a word that is there, or it is spelt
            otherwise than a file that is there.
    """
    there, words = paths.Paths(root), {file.partition('/')[0] for file in found}
    exact, alike = set(found), {_alike(file): file for file in found}
    lines: list[tuple[str, str, str]] = []
    for name, split in SPEECH_COMMANDS_LISTS.items():
        table = root / name
        if not table.exists():
            raise DataError(f'{table} is missing: it is part of Speech Commands.')
        for where, line in reading.read_lines(table):
            file = there.below(where, line)
            word, _, rest = file.partition('/')
            if file not in exact and (meant := alike.get(_alike(file))):
                raise DataError(f'{where}: there is no {line!r}, only {meant!r}, which would be trained on.')
            if '/' in rest or not rest.lower().endswith('.wav') or word not in words:
                raise DataError(f'{where}: {line!r}: must be WORD/NAME.wav, of a word that has a folder.')
            lines.append((where, file, split))
    paths.check_apart(lines)
    return {file: split for _, file, split in lines}


def _alike(file: str) -> str:
    """What different spellings of a file's name have in common."""
    return unicodedata.normalize('NFKC', file).casefold()


def read_spoken_digit(request: Request) -> Listing:
    """`DIGIT_SPEAKER_INDEX.wav` anywhere below the input; indices 0 to 4 are the test set, as published."""
    rows, num_other = [], 0
    for file in paths.files(request.input):
        name = _DIGIT.fullmatch(file.rpartition('/')[2])
        if name is None:
            num_other += file.endswith('.wav')
            continue
        split = 'test' if int(name['index']) < _NUM_TEST_DIGITS else 'train'
        rows.append(Row(file, split, file, labels=(int(name['digit']),)))
    if not rows:
        raise DataError(
            f'No DIGIT_SPEAKER_INDEX.wav, such as 7_jackson_32.wav, below --input={request.input}.'
        )
    notes = (
        (f'{num_other} .wav are not named DIGIT_SPEAKER_INDEX.wav and were not used',) if num_other else ()
    )
    return Listing(rows, tuple('0123456789'), notes=notes)


def _esc_table(request: Request) -> tuple[epath.Path, list[reading.Row]]:
    found = request.tables or tuple(
        path for folder in (request.input / 'meta', request.input) for path in local.tables_in(folder)
    )
    if not found:
        raise DataError(f'No meta/esc50.csv, nor another CSV, in --input={request.input}. See --csv.')
    # Other CSVs may lie beside it.
    table = next((path for path in found if 'filename' in reading.header(path)), found[0])
    return table, reading.read_table(table, ['filename', 'fold', 'category'])


def _in_esc10(where: str, cells: Mapping[str, str]) -> bool:
    text = reading.cell(cells, 'esc10', 'True')
    if text.lower() not in ('true', 'false'):
        raise DataError(f'{where}: esc10 = {text!r}: must be True, False or empty.')
    return text.lower() == 'true'


def _esc(request: Request, lines: list[reading.Row], classes: Classes) -> Listing:
    there = paths.Paths(request.input)
    rows, places = [], []
    for where, cells in lines:
        name = there.below(where, cells['filename'])
        file = name if name.startswith('audio/') else there.below(where, f'audio/{name}')
        split = f'fold{reading.whole_number(where, "fold", reading.cell(cells, "fold"))}'
        category = reading.class_name(where, reading.cell(cells, 'category'))
        rows.append(Row(file, split, file, labels=classes.indices([category], where)))
        places.append((where, file, split))
    paths.check_apart(places)
    local.check_labels([where for where, _, _ in places], rows, classes)
    unique = list(dict.fromkeys(rows))
    return Listing(unique, classes.names, notes=reading.repeated(len(rows) - len(unique)))
