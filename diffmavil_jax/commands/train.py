"""Training as a command: from a config to an exit code."""

from __future__ import annotations

import atexit
import os
import sys
import traceback

from diffmavil_jax.commands.command import FAILED, STOPPED, WRONG, fail, leave
from diffmavil_jax.config.schema import Config
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.blas import leave_cores_to_others


def train(config: Config, *, workdir: str, overwrite: bool, command: str, started: float) -> int:
    """Trains, evaluates and reports; see `experiment.run_experiment`.

    Args:
        config: the run.
        workdir: the directory of the run.
        overwrite: whether to set aside a run that is there, and start anew.
        command: what the user typed, for the report.
        started: time.time() when the process began.

    Returns:
        The exit code: 0 done, or stopped and saved; 1 the run failed; 2 a wrong config or wrong data; 130
        interrupted before it could save.
    """
    # Registered first, so that it runs last at exit: the interpreter's own end would abort the process
    # where a thread is still compiling the next bucket.
    outcome = [FAILED]
    atexit.register(lambda: leave(outcome[0]))
    try:
        outcome[0] = _train(config, workdir, overwrite, command, started)
    except BaseException:
        _leave_the_others(FAILED)
        raise
    if outcome[0]:
        _leave_the_others(outcome[0])
    return outcome[0]


def _train(config: Config, workdir: str, overwrite: bool, command: str, started: float) -> int:
    keep_freed_memory()
    leave_cores_to_others()
    # Not at the top: importing JAX takes seconds, and memory and threads have to be set up before.
    from diffmavil_jax import experiment
    from diffmavil_jax.parallel import hosts
    from diffmavil_jax.parallel.compiler import start_soon

    start_soon(config.compute.dtype)
    try:
        hosts.join(config.parallel)
        if not hosts.is_first():
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 - until the process ends
        experiment.run_experiment(
            config, workdir=workdir, overwrite=overwrite, command=command, started=started
        )
    except experiment.USER_ERRORS as error:
        return fail(str(error), WRONG)
    except experiment.RUN_ERRORS as error:
        return fail(str(error), FAILED)
    except KeyboardInterrupt:
        return fail('interrupted; the same command goes on from what was saved', STOPPED)
    hosts.leave()
    return 0


def _leave_the_others(code: int) -> None:
    """Ends a process that is one of several.

    JAX's own end would wait for the others, which wait for this one.
    """
    from diffmavil_jax.parallel import hosts

    if not hosts.is_alone():
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        leave(code)
