"""How many threads NumPy's matrix products take."""

from __future__ import annotations

import os


def leave_cores_to_others() -> None:
    """Gives NumPy's OpenBLAS half of the machine's cores. Call it before anything imports NumPy.

    By default it starts one thread for each core, and a thread that waits for another spins. Where
    another process, XLA or a thread that reads clips has one of the cores, all wait for that one and
    use up the others. Nothing changes where OPENBLAS_NUM_THREADS is set.
    """
    os.environ.setdefault('OPENBLAS_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // 2)))
