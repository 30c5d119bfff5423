"""`diffmavil train`: what `python main.py` does, from any folder."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Sequence

ABOUT = 'Pretrains a network or trains a classifier; see `diffmavil train --help`.'

_HELP = """Pretrains DiffMAViL or MAViL, or trains a classifier.

    diffmavil train --config=diffmavil:folder --config.data.path=DIR      a preset with a variant
    diffmavil train --config=DIR/mine.py                                  a config file of yours
    diffmavil train --config=diffmavil:help                               the variants
    diffmavil train --config=... --config.batch.size=32                   changes a field of the config

In a checkout, `python main.py` does the same.
Exit codes: 0 done, or stopped and saved; 1 the run failed; 2 a wrong flag, config or data, or a workdir
that is in use.

flags:
"""


def run(arguments: Sequence[str]) -> int:
    """Does what the flags say; returns the exit code, or ends the process with it.

    Args:
        arguments: the command line after `train`, which has the flags of main.py.
    """
    started = time.time()
    # Imported here: this defines flags of absl, which other commands do not have.
    from absl import app, flags

    from diffmavil_jax.commands import config_flag
    from diffmavil_jax.commands import run as command

    if {'--help', '-h'} & set(arguments):
        print(_HELP + flags.FLAGS.module_help(command.__name__))
        return 0
    flags.mark_flag_as_required('config')
    typed = shlex.join(['diffmavil', 'train', *arguments])
    main = functools.partial(command.main, command=typed, started=started)
    return app.run(main, argv=['diffmavil train', *arguments], flags_parser=config_flag.parse)
