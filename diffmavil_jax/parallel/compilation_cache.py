"""The cache in which compiled programs are kept between runs."""

from __future__ import annotations

import pathlib

import jax
from absl import logging


def use_compilation_cache(path: str) -> None:
    """Keeps all compiled programs in a directory, so that a second start with the same shapes compiles none.

    JAX has XLA keep beside them which kernel it found fastest for each product that it tuned on a GPU (see
    `jax_persistent_cache_enable_xla_caches`), so that another program with the same products tunes none.

    Args:
        path: the directory; empty for no cache. If it can't be written, that is logged, and there is none.
    """
    if not path:
        return
    try:
        cache = pathlib.Path(path).expanduser()
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logging.warning('No compilation cache: %s can not be written (%s).', path, error.strerror)
        return
    jax.config.update('jax_compilation_cache_dir', str(cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
