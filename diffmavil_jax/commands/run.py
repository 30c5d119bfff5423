"""The flags of `python main.py` and of `diffmavil train`, and what they do."""

from __future__ import annotations

import sys

from absl import flags, logging
from ml_collections import config_flags

from diffmavil_jax.commands import config_flag, dry_run
from diffmavil_jax.commands.command import WRONG, fail, print_any_name
from diffmavil_jax.commands.train import train
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.configs import common, finetune
from diffmavil_jax.saved.inherit import inherit
from diffmavil_jax.saved.written_config import as_begun

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'configs/diffmavil.py, mavil.py, diffmavil_cross.py or diffmavil_fast.py, with a variant:\n'
    + common.describe_variants(common.VARIANTS)
    + '\nconfigs/finetune.py, with a variant:\n'
    + common.describe_variants(finetune.VARIANTS),
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run is written; runs/NAME if not given.')
_PLAN = flags.DEFINE_bool('plan', False, 'Print the buckets, the memory of the state and the time, and exit.')
_COMPILE_FOR = flags.DEFINE_string(
    'compile_for',
    None,
    'Compile every bucket for TPUs or GPUs such as v5e:16x16 or h100:8, print what it takes, and exit.',
)
_FIT_BATCH = flags.DEFINE_float(
    'fit_batch',
    None,
    'Find the largest batch of every bucket whose step needs at most so many GiB on a device, print '
    'the flags that set them, and exit; with --compile_for, on those.',
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Start anew in a used workdir; the old run is kept aside.')


def main(argv: list[str], *, command: str, started: float) -> int:
    """Does what the flags say; returns the exit code.

    Args:
        argv: the name of the program, and arguments that are no flags, of which there may be none.
        command: what the user typed, for the report.
        started: time.time() when the process began.
    """
    print_any_name()
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file
    if len(argv) > 1:
        return fail(f'unexpected argument {argv[1]!r}: flags begin with --', WRONG)
    try:
        given = config_flag.given_fields(sys.argv[1:])
        values = config_flag.values_of_file(_CONFIG.value.to_dict(), given)
        workdir = _WORKDIR.value or f'runs/{values.get("name", Config.name)}'
        if not _OVERWRITE.value:
            values, kept = as_begun(values, given, workdir)
            if kept:
                print(
                    f'hint: the run in {workdir} began without {", ".join(kept)}, and goes on so.',
                    file=sys.stderr,
                )
        config = from_dict(inherit(values, given))
        if _PLAN.value:
            return dry_run.print_plan(config)
        if _FIT_BATCH.value is not None:
            return dry_run.print_largest_batches(config, _FIT_BATCH.value, _COMPILE_FOR.value)
        if _COMPILE_FOR.value:
            return dry_run.print_compiled(config, _COMPILE_FOR.value)
    except ConfigError as error:
        return fail(str(error), WRONG)
    except OSError as error:
        return fail(config_flag.unreadable(error), WRONG)
    return train(
        config,
        workdir=workdir,
        overwrite=_OVERWRITE.value,
        command=command,
        started=started,
    )
