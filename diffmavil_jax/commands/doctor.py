"""`diffmavil doctor`: what a bug report needs to say of a machine."""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from diffmavil_jax.commands.command import FAILED, Command, say
from diffmavil_jax.config.schema import Config

_STEPS_S = 5.0


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--no-step', action='store_true', help='compile and run no training step')


def _run(flags: argparse.Namespace) -> int:
    checks: dict[str, Callable[[], Mapping[str, Any]]] = {
        'Software': _software,
        'Devices': _devices,
        'Decoders': _decoders,
        'Memory and disk': _room,
    }
    if not flags.no_step:
        checks['A step of the demo'] = _step
    worked = [_print(title, check) for title, check in checks.items()]
    return 0 if all(worked) else FAILED


def _print(title: str, check: Callable[[], Mapping[str, Any]]) -> bool:
    """Prints what a check found; returns whether it came to its end. One that fails ends no other."""
    say(f'\n## {title}\n')
    try:
        for name, value in check().items():
            say(f'- {name}: {value}')
    except Exception as error:  # whatever is wrong with a machine is what a report is for
        say(f'- FAILED: {type(error).__name__}: {error}')
        return False
    return True


def _software() -> Mapping[str, Any]:
    from diffmavil_jax.saved.workdir import software

    names = ('JAX_PLATFORMS', 'XLA_FLAGS', 'CUDA_VISIBLE_DEVICES')
    return software() | {name: os.environ[name] for name in names if name in os.environ}


def _devices() -> Mapping[str, Any]:
    import jax

    from diffmavil_jax.models.attention import choose
    from diffmavil_jax.units import size

    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get('bytes_limit')
    attention, reason = choose('auto', 'bfloat16')
    return {
        'devices': f'{jax.device_count()} x {device.device_kind} ({jax.default_backend()})',
        'memory of each': size(memory) if memory else 'not told',
        'attention in bfloat16': f'{attention}: {reason}',
        'hosts': jax.process_count(),
    }


def _decoders() -> Mapping[str, Any]:
    import av
    import numpy as np
    import simplejpeg

    picture = np.zeros((16, 16, 3), np.uint8)
    decoded = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(picture))
    wanted = ('h264', 'hevc', 'vp9', 'av1', 'mpeg4', 'aac', 'opus', 'mp3', 'vorbis', 'flac', 'wmav2')
    found = [name for name in wanted if name in av.codecs_available]
    libraries = ', '.join(f'{name} {".".join(map(str, v))}' for name, v in av.library_versions.items())
    return {
        'FFmpeg': libraries,
        'codecs': ', '.join(found),
        'missing codecs': ', '.join(set(wanted) - set(found)) or 'none',
        'JPEG': 'works' if decoded.shape == picture.shape else 'wrong shape',
    }


def _room() -> Mapping[str, Any]:
    from diffmavil_jax.config.training import ParallelConfig
    from diffmavil_jax.units import size

    cache = pathlib.Path(ParallelConfig().compilation_cache).expanduser()
    kept = [path.stat().st_size for path in cache.rglob('*') if path.is_file()] if cache.exists() else []
    pages = 'SC_PHYS_PAGES' in os.sysconf_names
    return {
        'cores': os.cpu_count(),
        'memory': size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')) if pages else 'not told',
        'free disk here': size(shutil.disk_usage('.').free),
        'free disk for temporary files': size(shutil.disk_usage(tempfile.gettempdir()).free),
        'compilation cache': f'{cache}, {len(kept):,} files, {size(sum(kept))}',
    }


def _step() -> Mapping[str, Any]:
    from diffmavil_jax.config.schema import from_dict
    from diffmavil_jax.configs import diffmavil

    return time_steps(from_dict(diffmavil.get_config('demo').to_dict()))


def time_steps(config: Config) -> Mapping[str, Any]:
    """Compiles the step of a run's first bucket, and runs it on its clips, for some seconds at most."""
    import jax

    from diffmavil_jax.data.sources import open_sources
    from diffmavil_jax.models.attention import for_this_machine
    from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
    from diffmavil_jax.parallel.mesh import make_mesh
    from diffmavil_jax.plan.buckets import make_plan
    from diffmavil_jax.tasks.program import make_batches, make_program
    from diffmavil_jax.tasks.registry import make_task
    from diffmavil_jax.units import duration

    config, _ = for_this_machine(config)
    use_compilation_cache(config.parallel.compilation_cache)
    plan, mesh = make_plan(config), make_mesh(config.parallel, jax.devices()[:1])
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(config, plan, open_sources(config), pathlib.Path(folder))
    program = make_program(config, task, plan, mesh)
    began = time.perf_counter()
    compiled, state = program.lower(0).compile(), program.init()
    compile_s = time.perf_counter() - began
    bucket = plan.buckets[0]
    batches, losses, taken_s = make_batches(config, task, plan, mesh)(0), [], []
    began = time.perf_counter()
    for batch, _ in itertools.islice(batches, bucket.steps):
        state, metrics = compiled(state, batch)
        value, count = jax.device_get(metrics['loss'])
        losses.append(float(value / count))
        taken_s.append(time.perf_counter() - began)
        if taken_s[-1] > _STEPS_S:
            break
    clips_per_second = bucket.batch_size * len(losses) / taken_s[-1]
    return {
        'compiled in': duration(compile_s),
        'speed': f'{clips_per_second:,.0f} clips/s in batches of {bucket.batch_size}',
        'loss': f'{losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses):,} steps',
    }


COMMAND = Command(
    'Prints what a bug report should say: versions, devices, decoders, memory, and a step of the demo.',
    _add_flags,
    _run,
)
