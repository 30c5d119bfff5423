"""The `diffmavil` command: training, and all that comes before and after.

    diffmavil prepare --source=folder --input=DIR --output=DIR
    diffmavil train --config=diffmavil:folder --config.data.path=DIR

Exit codes: 0 done; 1 failed on the way; 2 a wrong flag, list or input; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Mapping, Sequence
from typing import NoReturn

from diffmavil_jax.commands import (
    doctor,
    embed,
    export,
    import_weights,
    prepare,
    reconstruct,
    retrieve,
    train_command,
)
from diffmavil_jax.commands.command import WRONG, Command, fail, print_any_name, run_command

COMMANDS: Mapping[str, Command] = types.MappingProxyType(
    {
        'prepare': prepare.COMMAND,
        'embed': embed.COMMAND,
        'retrieve': retrieve.COMMAND,
        'reconstruct': reconstruct.COMMAND,
        'import': import_weights.COMMAND,
        'export': export.COMMAND,
        'doctor': doctor.COMMAND,
    }
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(fail(f'{message}. See {self.prog} --help.', WRONG))


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the flags say; returns the exit code."""
    print_any_name()
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ['train']:  # its flags are those of absl
        return train_command.run(argv[1:])
    parser = _Parser(prog='diffmavil', description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.about,
            description=command.about,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_flags(sub)
    commands.add_parser('train', help=train_command.ABOUT, add_help=False)
    flags = parser.parse_args(argv)
    return run_command(COMMANDS[flags.command], flags)


if __name__ == '__main__':
    sys.exit(main())
