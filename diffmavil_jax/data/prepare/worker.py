"""A worker process of Beam on this machine, without Beam's warnings.

Beam runs `python -m diffmavil_jax.data.prepare.worker`, and passes the rest in environment variables.
"""

from __future__ import annotations

import logging
import sys

if __name__ == '__main__':
    logging.disable(logging.WARNING)  # before the import, which warns of missing Google packages
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
