"""The small network of this package, an export in bfloat16, which experiments/demo_network.py makes."""

import pathlib

DEMO = 'demo'  # as users name it
DEMO_FOLDER = pathlib.Path(__file__).parent
