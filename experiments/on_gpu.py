"""What a run needs and gives on this machine's GPU: python -m experiments.on_gpu --minutes=8.

Measures, in this order, as long as time is left: the device and its attention; a step of each method at
the paper's scale with 64 clips, the first with its slowest kernels; PyTorch's step of the same geometry,
eager and compiled; the demo from command to report; steps that a loader feeds from prepared shards; the
largest batch of each method. What was measured is kept below --out, and a second start goes on with the
rest.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from experiments.gpu_cells import CELLS, METHODS

_COLUMNS = ('batch', 'step ms', 'clips/s', 'MFU %', 'predicted GB', 'peak GB', 'compile s')


def main() -> None:
    """Measures what is not measured yet, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        '--minutes', type=float, default=8.0, help='in all; a cell that is over time is ended'
    )
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/on_gpu'))
    parser.add_argument('--variant', default='audioset', help='demo is for a trial on a CPU')
    parser.add_argument('--cells', nargs='*', choices=CELLS, default=list(CELLS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    for name in options.cells:
        path = options.out / f'{name.replace(" ", "_")}.json'
        left = end - time.monotonic()
        if not path.exists() and left > 0:
            print(f'{name} ...', flush=True)
            path.write_text(json.dumps(measure(name, options.variant, left), indent=1) + '\n')
    results = {
        name: json.loads(path.read_text())
        for name in CELLS
        if (path := options.out / f'{name.replace(" ", "_")}.json').exists()
    }
    text = report(results)
    (options.out / 'report.md').write_text(text + '\n')
    print(text)


def measure(name: str, variant: str, seconds: float) -> dict[str, Any]:
    """One cell in a process of its own, so that it has the whole memory; what went wrong if it failed."""
    command = [sys.executable, '-m', 'experiments.gpu_cells', name, f'--variant={variant}']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {'failed': f'ended after {seconds:.0f} s'}
    if done.returncode:
        return {'failed': done.stderr.strip()[-2_000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(results: dict[str, dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    lines = ['# On this GPU', '']
    lines += [f'- {key}: {_cell(value)}' for key, value in results.get('device', {}).items()]
    steps = {name: row for name, row in results.items() if name.startswith(('step', 'largest', 'torch'))}
    if steps:
        lines += ['', _row('', *_COLUMNS), _row(*['---'] * (1 + len(_COLUMNS)))]
        lines += [_row(name, *(_cell(row.get(c)) for c in _COLUMNS)) for name, row in steps.items()]
    lines += ['', *_comparisons(results)]
    if 'demo' in results:
        lines += ['', f'The demo: {json.dumps(results["demo"])}']
    if 'fed mavil' in results:
        lines += ['', f'Fed from prepared shards: {json.dumps(results["fed mavil"])}']
    kernels = results.get('step mavil', {}).get('kernels')
    if kernels:
        lines += ['', '| kernel of a MAViL step | ms | % | calls |', '| --- | --- | --- | --- |']
        lines += [_row(*map(_cell, kernel)) for kernel in kernels]
    failed = {name: row['failed'] for name, row in results.items() if 'failed' in row}
    lines += [f'\n{name} failed:\n```\n{words}\n```' for name, words in failed.items()]
    return '\n'.join(lines)


def _comparisons(results: dict[str, dict[str, Any]]) -> list[str]:
    """Speed beside MAViL's and PyTorch's."""
    rows = {m: row for m in METHODS if 'clips/s' in (row := results.get(f'step {m}', {}))}
    if 'mavil' not in rows:
        return []
    base, lines = rows['mavil'], []
    for method, row in rows.items():
        if method != 'mavil':
            macs, taken = (1 - row[k] / base[k] for k in ('GMAC a clip', 'step ms'))
            lines.append(
                f'- {method} saves {macs:.1%} of the multiply-accumulates and {taken:.1%} of the time a clip.'
            )
    for name in ('torch mavil', 'torch mavil compiled'):
        if 'clips/s' in results.get(name, {}):
            lines.append(f'- MAViL: {base["clips/s"] / results[name]["clips/s"]:.2f} times {name}.')
    return lines


def _row(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def _cell(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:,.4g}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
    main()
