"""Pretrains DiffMAViL or MAViL.

    python main.py --config=configs/diffmavil.py            the demo: generated clips, a CPU, minutes
    python main.py --config=configs/diffmavil.py:help       what else there is
    python main.py --config=... --plan                      prints buckets, memory and time; runs nothing
    python main.py --config=... --compile_for=v5e:16x16     compiles for TPUs that are not attached
    python main.py --config=... --config.batch.size=32      changes a field of the config

A second start in the same --workdir resumes. SIGTERM and Ctrl-C save a checkpoint and exit with 0.
Exit codes: 0 done, or stopped and saved; 1 the run failed; 2 a wrong flag, config or data.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import time
import traceback

STARTED = time.time()


from absl import app, flags, logging  # noqa: E402 - the clock of the whole run starts before the imports
from ml_collections import config_flags  # noqa: E402

from configs import common, finetune  # noqa: E402
from diffmavil_jax.config.schema import Config, field_type, from_dict  # noqa: E402
from diffmavil_jax.config.tree import ConfigError  # noqa: E402
from diffmavil_jax.parallel.allocator import keep_freed_memory  # noqa: E402
from diffmavil_jax.plan.buckets import make_plan  # noqa: E402
from diffmavil_jax.plan.table import plan_table  # noqa: E402
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
    'compile_for', None, 'Compile every bucket for TPUs such as v5e:16x16, print what it takes, and exit.'
)
_FIT_BATCH = flags.DEFINE_float(
    'fit_batch',
    None,
    'Find the largest batch of every bucket whose step needs at most so many GiB on a device, print '
    'the flags that set them, and exit; with --compile_for, on those TPUs.',
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Start anew in a used workdir; the old run is kept aside.')


def main(argv: list[str]) -> int:
    """Runs what the flags say; returns the exit code."""
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file that it writes
    if len(argv) > 1:
        return _fail(f'unexpected argument {argv[1]!r}: flags begin with --', 2)
    try:
        config = from_dict(inherit(_CONFIG.value.to_dict(), _given()))
        if _PLAN.value:
            return _plan(config)
        if _FIT_BATCH.value is not None:
            return _fit_batch(config, _FIT_BATCH.value, _COMPILE_FOR.value)
        if _COMPILE_FOR.value:
            return _compile_for(config, _COMPILE_FOR.value)
    except ConfigError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(_unreadable(error), 2)
    return _run(config)


def _plan(config: Config) -> int:
    import jax

    from diffmavil_jax.aot.forecast import forecast

    jax.config.update('jax_platforms', 'cpu')  # a plan leaves accelerators to those who train
    plan = make_plan(config)
    print(plan_table(config.name, plan, config.audio.num_tokens, config.video_tokens))
    print(forecast(config, plan))
    return 0


def _compile_for(config: Config, topology: str) -> int:
    from diffmavil_jax.aot import compiled
    from diffmavil_jax.aot.table import compile_table

    rehearsal = compiled.compile_all_buckets(config, topology, say=lambda text: print(text, flush=True))
    print(compile_table(rehearsal))
    if rehearsal.fits:
        return 0
    return _fail(
        f'--compile_for = {topology!r}: not every bucket fits. Lower config.batch.size or max_size, '
        'raise config.parallel.fsdp or config.batch.parts, or set config.model.remat.',
        1,
    )


def _fit_batch(config: Config, gib: float, topology: str | None) -> int:
    from diffmavil_jax.aot import fit_batch

    fitted = fit_batch.largest_batches(config, gib, topology, say=lambda text: print(text, flush=True))
    print(f'--config.batch.rule=listed --config.batch.sizes={",".join(str(size) for size in fitted)}')
    return 0


def _given() -> set[str]:
    """The fields of the config that the command line changes, such as `batch.size`."""
    given = (re.match(r'--?(?:no)?config\.([\w.]+)', argument) for argument in sys.argv[1:])
    return {match[1] for match in given if match}


def _run(config: Config) -> int:
    # Registered first, so that it is the last thing at exit: the interpreter's own end would abort
    # the process where a thread is still compiling the next bucket.
    outcome = [1]
    atexit.register(lambda: _leave(outcome[0]))
    try:
        outcome[0] = _train(config)
    except BaseException:
        _leave_the_others(1)
        raise
    if outcome[0]:
        _leave_the_others(outcome[0])
    return outcome[0]


def _leave_the_others(code: int) -> None:
    """Ends a process of several at once: JAX's own end would wait for the others, which wait for this one."""
    from diffmavil_jax.parallel import hosts

    if not hosts.is_alone():
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        _leave(code)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(config: Config) -> int:
    keep_freed_memory()
    # Not at the top: it loads JAX, which a plan or a wrong config need not wait for.
    from diffmavil_jax import experiment
    from diffmavil_jax.parallel import hosts

    try:
        hosts.join(config.parallel)
        if not hosts.is_first():
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 - until the process ends
        experiment.run(
            config,
            workdir=_WORKDIR.value or f'runs/{config.name}',
            overwrite=_OVERWRITE.value,
            command='python ' + ' '.join(sys.argv),
            started=STARTED,
        )
    except experiment.USER_ERRORS as error:
        return _fail(str(error), 2)
    except experiment.RUN_ERRORS as error:
        return _fail(str(error), 1)
    hosts.leave()
    return 0


def _parse_flags(argv: list[str]) -> list[str]:
    """Like absl's, but an error is one line without a traceback, and names what is allowed."""
    try:
        return flags.FLAGS(argv)
    except OSError as error:
        sys.exit(_fail(_unreadable(error), 2))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(_fail(_explain(argv, error), 2))


def _unreadable(error: OSError) -> str:
    return f'--config: must be a file such as configs/diffmavil.py. {str(error).splitlines()[-1].strip()}'


def _explain(argv: list[str], error: Exception) -> str:
    if not any(re.match(r'--?config(=|$)', argument) for argument in argv[1:]):
        return '--config: is missing; --config=configs/diffmavil.py, for example'
    wrong = re.match(r'flag --(config\.[\w.]+)=(.*?): ', str(error), re.DOTALL)
    try:
        for argument in argv[1:]:
            if field := re.match(r'--?(?:no)?(config\.[\w.]+)', argument):
                field_type(field[1])
        if wrong:
            return f'{wrong[1]} = {wrong[2]!r}: must be of type {field_type(wrong[1])}.'
    except ConfigError as better:
        return str(better)
    return ' '.join(str(error).split())


def _fail(message: str, code: int) -> int:
    print(f'error: {message}', file=sys.stderr)
    return code


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main, flags_parser=_parse_flags)
