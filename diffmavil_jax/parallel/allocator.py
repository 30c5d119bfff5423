"""Settings of the host's memory allocator."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of returning it to the system.

    CPU: XLA allocates its temporaries anew at each step. glibc maps large blocks afresh, so that
    each step pays a page fault for every 4 KB of them, which takes up to half of its time.
    Call it before JAX starts. Resident memory then stays at its peak.

    Returns:
        False if the C library is not glibc; nothing is changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20, _M_ARENA_MAX: 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
