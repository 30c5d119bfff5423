"""How fast data is decoded and read, and steps are made: python -m experiments.throughput TABLE [--help].

Each table is a program of its own, because they need different packages:
    decode     clips from video files, against torchcodec, decord and opencv, where installed
    labels     of prepared shards, and how often a clip is decoded
    memory     of the process and its decoding workers over many clips
    prepare    `diffmavil prepare` against decoding alone
    start      from command to first step, and the step at which the bucket changes
    step       the train step of each bucket, of MAViL and of DiffMAViL, on any device
    streaming  prepared shards into host batches, with the share of each stage
"""

from __future__ import annotations

import argparse
import runpy
import sys

TABLES = {
    'decode': 'experiments.decoding',
    'labels': 'experiments.labelling',
    'memory': 'experiments.decoding_memory',
    'prepare': 'experiments.preparing',
    'start': 'experiments.starting',
    'step': 'experiments.stepping',
    'streaming': 'experiments.streaming',
}


def main() -> None:
    """Runs the program of one table with the rest of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, add_help=len(sys.argv) < 3
    )
    parser.add_argument('table', choices=TABLES)
    table = parser.parse_known_args()[0].table
    sys.argv = [f'experiments.throughput {table}', *(a for a in sys.argv[1:] if a != table)]
    runpy.run_module(TABLES[table], run_name='__main__')


if __name__ == '__main__':
    main()
