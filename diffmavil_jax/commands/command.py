"""What the sub-commands of `diffmavil` have in common.

What a command needs is imported by its functions: `diffmavil --help` costs milliseconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Command:
    """A sub-command: what it is for, its flags, and what it does; `run` returns the exit code."""

    about: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def fail(message: str, code: int) -> int:
    """Says what is wrong in one line; returns the exit code."""
    print(f'error: {" ".join(message.split())}', file=sys.stderr)
    return code
