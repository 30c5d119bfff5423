"""Pretrains DiffMAViL or MAViL.

    python main.py --config=configs/diffmavil.py            the demo: generated clips, a CPU, minutes
    python main.py --config=configs/diffmavil.py:help       what else there is
    python main.py --config=... --plan                      prints buckets, memory and time; runs nothing
    python main.py --config=... --compile_for=v5e:16x16     compiles for TPUs or GPUs that are not attached
    python main.py --config=... --config.batch.size=32      changes a field of the config

A second start in the same --workdir resumes. SIGTERM and Ctrl-C save a checkpoint and exit with 0.
Exit codes: 0 done, or stopped and saved; 1 the run failed; 2 a wrong flag, config or data, or a workdir
that is in use.
"""

from __future__ import annotations

import functools
import sys
import time

STARTED = time.time()


from absl import app, flags  # noqa: E402 - the clock starts before the imports

from diffmavil_jax.commands import config_flag, run  # noqa: E402

if __name__ == '__main__':
    flags.adopt_module_key_flags(run)
    flags.mark_flag_as_required('config')
    main = functools.partial(run.main, command='python ' + ' '.join(sys.argv), started=STARTED)
    app.run(main, flags_parser=config_flag.parse)
