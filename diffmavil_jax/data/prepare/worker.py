"""A worker process of Beam on this machine, without Beam's chatter.

python -m diffmavil_jax.data.prepare.worker      Beam starts it, and tells it more by the environment
"""

from __future__ import annotations

import logging
import sys

if __name__ == '__main__':
    logging.disable(logging.WARNING)  # before the import, which warns of what of Google's is not there
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
