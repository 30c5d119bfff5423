"""Lists labelled sounds: ESC-50, ESC-10, Speech Commands and the spoken digits, as they are published."""

from __future__ import annotations

import re
from collections.abc import Mapping

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings import reading
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
        target = _integer(where, 'target', cells)
        if targets.setdefault(target, cells['category']) != cells['category']:
            raise DataError(
                f'{where}: target {target} is {cells["category"]!r} here and {targets[target]!r} before.'
            )
    if sorted(targets) != list(range(len(targets))):
        raise DataError(f'{table}: the targets of its {len(targets)} classes are not 0, 1, 2 and so on.')
    return _esc(lines, Classes([targets[i] for i in range(len(targets))], table.name))


def read_esc10(request: Request) -> Listing:
    """The ten classes of ESC-50's CSV, or a CSV of them alone, numbered as in ESC-10."""
    _, lines = _esc_table(request)
    return _esc(
        [(where, cells) for where, cells in lines if cells.get('esc10', 'True').lower() == 'true'],
        Classes(ESC10_CLASSES, 'ESC-10'),
    )


def read_speech_commands(request: Request) -> Listing:
    """A folder for each word; validation_list.txt and testing_list.txt name the files not for training."""
    held_out: dict[str, str] = {}
    for name, split in SPEECH_COMMANDS_LISTS.items():
        path = request.input / name
        if not path.exists():
            raise DataError(f'{path} is missing: it is part of Speech Commands.')
        held_out |= {line.strip(): split for line in reading.read_text(path).splitlines() if line.strip()}
    found = [
        file
        for file in reading.files(request.input)
        if file.endswith('.wav') and file.count('/') == 1 and not file.startswith('_')  # _background_noise_
    ]
    if not found:
        raise DataError(f'No .wav in folders of --input={request.input}, as Speech Commands has them.')
    # A file that a list names but that does not exist is listed too, so that it counts as missing.
    found = sorted({*found, *(reading.below('a list of Speech Commands', file) for file in held_out)})
    words = [file.partition('/')[0] for file in found]
    names = reading.read_names(request.labels) if request.labels else sorted(set(words))
    classes = Classes(names, str(request.labels or 'the folders'))
    rows = [
        Row(file, held_out.get(file, 'train'), file, labels=classes.indices([word], file))
        for file, word in zip(found, words, strict=True)
    ]
    return Listing(rows, classes.names)


def read_spoken_digit(request: Request) -> Listing:
    """`DIGIT_SPEAKER_INDEX.wav` anywhere below the input; indices 0 to 4 are the test set, as published."""
    rows, num_other = [], 0
    for file in reading.files(request.input):
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


def _esc_table(request: Request) -> tuple[epath.Path, list[tuple[str, Mapping[str, str]]]]:
    found = request.tables or tuple(
        path for folder in (request.input / 'meta', request.input) for path in sorted(folder.glob('*.csv'))
    )
    if not found:
        raise DataError(f'No meta/esc50.csv, nor another CSV, in --input={request.input}. See --csv.')
    return found[0], reading.read_table(found[0], ['filename', 'fold', 'category'])


def _esc(lines: list[tuple[str, Mapping[str, str]]], classes: Classes) -> Listing:
    rows = []
    for where, cells in lines:
        file = 'audio/' + reading.below(where, cells['filename'])
        split = f'fold{_integer(where, "fold", cells)}'
        rows.append(Row(file, split, file, labels=classes.indices([cells['category']], where)))
    return Listing(rows, classes.names)


def _integer(where: str, column: str, cells: Mapping[str, str]) -> int:
    text = cells.get(column, '')
    if not text.isdecimal():
        raise DataError(f'{where}: {column} = {text!r}: must be a whole number.')
    return int(text)
