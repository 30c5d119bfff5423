"""What a run will need, printed without running it: `main.py --plan`, `--compile_for` and `--fit_batch`."""

from __future__ import annotations

from diffmavil_jax.commands.command import FAILED, fail, say
from diffmavil_jax.config.schema import Config


def print_plan(config: Config) -> int:
    """Prints the buckets, the memory of the state and the time; returns the exit code."""
    import jax

    from diffmavil_jax.aot.forecast import forecast
    from diffmavil_jax.plan.buckets import make_plan
    from diffmavil_jax.plan.table import plan_table

    jax.config.update('jax_platforms', 'cpu')  # else a plan would take an accelerator from a run
    plan = make_plan(config)
    print(plan_table(config.name, plan, config.audio.num_tokens, config.video_tokens))
    print(f'A clip is {config.data.seconds:g} s of sound with {config.data.pictures}.')
    print(forecast(config, plan))
    return 0


def print_compiled(config: Config, topology: str) -> int:
    """Compiles all buckets for chips that are not attached, and prints their needs; returns the exit code."""
    from diffmavil_jax.aot.compiled import compile_all_buckets
    from diffmavil_jax.aot.table import compile_table
    from diffmavil_jax.parallel.compiler import start_soon

    start_soon(config.compute.dtype)  # as training does
    rehearsal = compile_all_buckets(config, topology, say)
    print(compile_table(rehearsal))
    if rehearsal.fits:
        return 0
    return fail(
        f'--compile_for = {topology!r}: not every bucket fits. Lower config.batch.size or max_size, '
        'raise config.parallel.fsdp or config.batch.microbatches, or set config.compute.remat.',
        FAILED,
    )


def print_largest_batches(config: Config, gib: float, topology: str | None) -> int:
    """Prints the flags that set the largest batches for a memory; returns the exit code."""
    from diffmavil_jax.aot.fit_batch import largest_batches
    from diffmavil_jax.parallel.compiler import start_soon

    start_soon(config.compute.dtype)
    sizes = largest_batches(config, gib, topology, say)
    print(f'--config.batch.rule=listed --config.batch.sizes={",".join(map(str, sizes))}')
    return 0
