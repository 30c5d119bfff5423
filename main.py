"""Pretrains DiffMAViL or MAViL.

    python main.py --config=configs/diffmavil.py            the demo: generated clips, a CPU, minutes
    python main.py --config=configs/diffmavil.py:help       what else there is
    python main.py --config=... --plan                      prints buckets, memory and time; runs nothing
    python main.py --config=... --compile_for=v5e:16x16     compiles for TPUs or GPUs that are not attached
    python main.py --config=... --config.batch.size=32      changes a field of the config

A second start in the same --workdir resumes. SIGTERM and Ctrl-C save a checkpoint and exit with 0.
Exit codes: 0 done, or stopped and saved; 1 the run failed; 2 a wrong flag, config or data.
"""

from __future__ import annotations

import sys
import time

STARTED = time.time()


from absl import app, flags, logging  # noqa: E402 - the clock starts before the imports
from ml_collections import config_flags  # noqa: E402

from configs import common, finetune  # noqa: E402
from diffmavil_jax.commands import config_flag, dry_run  # noqa: E402
from diffmavil_jax.commands.command import WRONG, fail  # noqa: E402
from diffmavil_jax.commands.train import train  # noqa: E402
from diffmavil_jax.config.schema import from_dict  # noqa: E402
from diffmavil_jax.config.tree import ConfigError  # noqa: E402
from diffmavil_jax.saved.inherit import inherit  # noqa: E402

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


def main(argv: list[str]) -> int:
    """Does what the flags say; returns the exit code."""
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file
    if len(argv) > 1:
        return fail(f'unexpected argument {argv[1]!r}: flags begin with --', WRONG)
    try:
        given = config_flag.given_fields(sys.argv[1:])
        config = from_dict(inherit(config_flag.values_of_file(_CONFIG.value.to_dict(), given), given))
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
        workdir=_WORKDIR.value,
        overwrite=_OVERWRITE.value,
        command='python ' + ' '.join(sys.argv),
        started=STARTED,
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main, flags_parser=config_flag.parse)
