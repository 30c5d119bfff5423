"""The progress line's text, and how it is printed."""

import dataclasses
import io
import math
import re

import pytest

from diffmavil_jax.training.progress import Progress, ProgressPrinter, progress_line

PROGRESS = Progress(
    samples=12_288,
    total_samples=36_000,
    loss=1.234,
    loss_parts={'audio': 0.51, 'video': 0.42, 'inter': 3.9},
    mask_ratio=0.86,
    batch_size=144,
    clips_per_second=171.0,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(**changes) -> str:
    return progress_line(dataclasses.replace(PROGRESS, **changes))


def test_the_line():
    assert line() == (
        '  34 %  12,288/36,000 clips  loss 1.234 (audio .51 video .42 inter 3.9)'
        '  mask .86  batch 144  171 clips/s  2:19 left'
    )


@pytest.mark.parametrize(
    ('samples', 'rate', 'left'),
    [
        (36_000, 171.0, '0:00 left'),
        (0, 6.0, '1:40:00 left'),
        (0, 0.1, '4 d 4:00 h left'),
        (0, 0.0, '-:-- left'),
        (0, math.inf, '-:-- left'),
        (0, math.nan, '-:-- left'),
    ],
)
def test_time_left(samples, rate, left):
    assert line(samples=samples, clips_per_second=rate).endswith('  ' + left)


def test_one_hundred_per_cent_only_at_the_end():
    assert line(samples=35_999).startswith('  99 %')
    assert line(samples=36_000).startswith(' 100 %')


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0.0, '0'), (0.051, '.051'), (-0.5, '-.5'), (12.6, '13'), (1234.0, '1234'), (math.nan, 'nan')],
)
def test_loss_parts_are_short(value, text):
    assert f'({"x"} {text})' in line(loss_parts={'x': value})


def test_without_parts_there_are_no_brackets():
    assert '(' not in line(loss_parts={})


def test_a_file_gets_a_line_per_call():
    stream = io.StringIO()
    printer = ProgressPrinter(stream)
    printer.show(PROGRESS)
    printer.show(PROGRESS)
    printer.end()
    assert stream.getvalue() == (line() + '\n') * 2


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 120 columns that understands the usual codes."""
    for name, value in {'COLUMNS': '120', 'LINES': '30', 'TERM': 'xterm', 'NO_COLOR': '1'}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def screen(text):
    """What a terminal shows of a text: ESC[1A goes up a line, ESC[2K clears it."""
    lines, row = [''], 0
    for part in re.split(r'(\r|\n|\x1b\[\??\d*[A-Za-z])', text):
        match part:
            case '\n':
                row += 1
                lines += [''] * (row + 1 - len(lines))
            case '\x1b[1A':
                row -= 1
            case '\x1b[2K':
                lines[row] = ''
            case _ if not part.startswith(('\r', '\x1b')):
                lines[row] += part
    return [line.rstrip() for line in lines]


def test_a_terminal_is_rewritten_in_place(terminal):
    printer = ProgressPrinter(terminal)
    printer.show(PROGRESS)
    printer.show(dataclasses.replace(PROGRESS, samples=36_000, loss_parts={}))
    printer.end()
    printer.end()  # nothing left to end
    print('after', file=terminal)
    bar, text, after, _ = screen(terminal.getvalue())
    assert bar == '━' * 120
    assert (text, after) == (line(samples=36_000, loss_parts={}), 'after')
    assert terminal.getvalue().rindex('\x1b[?25h') > terminal.getvalue().rindex(
        '\x1b[?25l'
    )  # the cursor is there


def test_the_bar_is_as_long_as_the_share_that_is_done(terminal):
    printer = ProgressPrinter(terminal)
    printer.show(dataclasses.replace(PROGRESS, samples=9_000))
    printer.end()
    assert screen(terminal.getvalue())[0].count('━') == 30


def test_a_line_of_a_command_has_no_bar(terminal):
    printer = ProgressPrinter(terminal)
    printer.write('  50 %  [1/2] files')
    printer.write(' 100 %  [2/2] files')
    printer.end()
    assert screen(terminal.getvalue()) == [' 100 %  [2/2] files', '']


def test_a_narrow_terminal_cuts_the_line(terminal, monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    printer = ProgressPrinter(terminal)
    printer.show(PROGRESS)
    printer.end()
    assert screen(terminal.getvalue())[1] == line()[:39] + '…'
