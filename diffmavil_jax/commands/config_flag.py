"""The flag --config and its fields, for absl: what was given, and errors of one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from absl import flags

from diffmavil_jax.commands.command import WRONG, fail, one_line
from diffmavil_jax.config.renamed import flags_with_new_names
from diffmavil_jax.config.schema import field_type
from diffmavil_jax.config.tree import ConfigError

_FIELD = re.compile(r'--?(?:no)?config\.([\w.]+)')


def parse(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but an error is one line without a traceback, and names what is allowed.

    Returns:
        The arguments that are no flags. A wrong flag ends the process with exit code 2.
    """
    # In place: ml_collections looks into sys.argv for the fields that are set.
    argv[:] = flags_with_new_names(argv)
    if argv is not sys.argv:
        sys.argv[:] = argv
    try:
        return flags.FLAGS(argv)
    except OSError as error:
        sys.exit(fail(unreadable(error), WRONG))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(fail(_explain(argv[1:], error), WRONG))


def given_fields(arguments: Iterable[str]) -> set[str]:
    """The fields of the config that the command line sets, such as `batch.size`."""
    return {match[1] for argument in arguments if (match := _FIELD.match(argument))}


def unreadable(error: OSError) -> str:
    """Says that the file of --config can't be read."""
    return f'--config: must be a file such as configs/diffmavil.py. {str(error).splitlines()[-1].strip()}'


def _explain(arguments: list[str], error: Exception) -> str:
    """The best message for an error of absl's: its own words do not name what is allowed."""
    if not any(re.match(r'--?config(=|$)', argument) for argument in arguments):
        return '--config: is missing; --config=configs/diffmavil.py, for example'
    wrong = re.match(r'flag --(config\.[\w.]+)=(.*?): ', str(error), re.DOTALL)
    try:
        for argument in arguments:
            if match := _FIELD.match(argument):
                field_type(f'config.{match[1]}')
        if wrong:
            return f'{wrong[1]} = {wrong[2]!r}: must be of type {field_type(wrong[1])}.'
    except ConfigError as better:
        return str(better)
    return one_line(str(error))
