"""What all commands have in common: how they are described, how they fail and how they end.

Commands import what they need inside functions, so that `diffmavil --help` costs milliseconds.
"""

from __future__ import annotations

import argparse
import atexit
import dataclasses
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# Exit codes besides 0.
FAILED, WRONG, STOPPED = 1, 2, 130


@dataclasses.dataclass(frozen=True)
class Command:
    """A sub-command of `diffmavil`.

    Attributes:
        about: what it is for, in one sentence.
        add_flags: adds its flags to a parser.
        run: does what the flags say; returns the exit code. What `user_errors` lists is caught by others.
        when_stopped: what it says after Ctrl-C.
    """

    about: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    when_stopped: str = 'stopped'


def run_command(command: Command, flags: argparse.Namespace) -> int:
    """Runs a command. A wrong input and Ctrl-C become one line and an exit code."""
    try:
        return command.run(flags)
    except user_errors() as error:
        return fail(one_line(str(error)), WRONG)
    except KeyboardInterrupt:
        if 'jax' in sys.modules:
            # The interpreter's own end crashes now and then where a computation was interrupted.
            atexit.register(leave, STOPPED)
        return fail(command.when_stopped, STOPPED)


def user_errors() -> tuple[type[Exception], ...]:
    """The errors that a user can mend: a wrong config, flag, file or dataset."""
    from diffmavil_jax.config.tree import ConfigError
    from diffmavil_jax.data.clip import DataError

    return ConfigError, DataError


def fail(message: str, code: int) -> int:
    """Says on standard error what is wrong; returns the exit code."""
    print(f'error: {message}', file=sys.stderr)
    return code


def one_line(message: str) -> str:
    """A message of a library, which may have several lines, as one."""
    return ' '.join(filter(None, map(str.strip, message.splitlines())))


def print_any_name() -> None:
    """Lets standard output take file names that are not UTF-8: they are escaped, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def say(text: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(text, flush=True)


def leave(code: int) -> NoReturn:
    """Ends the process at once: no thread is waited for, and no exit handler runs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def hide_warnings() -> None:
    """Hides the warnings of Orbax, which are about what is not needed here."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
