"""Random keys derived from (seed, stream, clip), never stored.

A clip's keys follow from its position in the order of samples seen. So what it draws depends
neither on its batch nor on the mesh, and a run resumes from the number of samples seen alone.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key


def clip_keys(seed: int, stream: str, positions: Int[Array, ' b']) -> Key[Array, ' b']:
    """One key for each clip.

    Args:
        seed: of the run.
        stream: names what the key is for, such as 'audio mask'.
        positions: samples seen before each clip.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(jnp.asarray(positions))
