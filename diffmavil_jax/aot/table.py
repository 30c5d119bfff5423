"""The table that `--compile_for` prints."""

from __future__ import annotations

import math

from diffmavil_jax.aot.compiled import Compiled, Rehearsal
from diffmavil_jax.aot.hlo import COLLECTIVES, Collective
from diffmavil_jax.units import size

_RESHARDING = ('all-to-all', 'collective-permute')
_COLUMNS = (
    'mask', 'batch', 'temporaries', 'peak memory', 'of HBM', 'TFLOP', 'HBM traffic', 'sent',
    'compute', 'HBM', 'links', 'at least', 'bound by', 'fits',
)  # fmt: skip
_LEGEND = (
    'Each column is for one chip and one step. Times are what each resource needs at its full rate; a step '
    'takes at least the longest of them. FLOP count matrix products, loops as often as they run. HBM traffic '
    'is what operations read from main memory and write to it.'
)


def compile_table(run: Rehearsal) -> str:
    """The chips, what a step of each bucket needs on one of them, and the collectives that it runs."""
    chip = run.chip
    axes = ' x '.join(f'{axis} {size}' for axis, size in run.axes.items())
    lines = [('---',) * len(_COLUMNS), *(_row(bucket, run) for bucket in run.buckets)]
    text = [
        f'{run.name} on {run.topology}: {math.prod(run.axes.values())} chips ({axes}), each with',
        f'{size(chip.hbm_bytes)} of HBM, {chip.flops / 1e12:,.0f} TFLOP/s in {chip.dtype}, '
        f'{chip.hbm_bandwidth / 1e9:,.0f} GB/s to HBM, {chip.link_bandwidth / 1e9:,.0f} GB/s to other chips,',
        f'parameters of {size(run.parameters)} and an optimizer state of {size(run.optimizer)}.',
        '',
        *(f'| {" | ".join(line)} |' for line in (_COLUMNS, *lines)),
        '',
        _LEGEND,
        '',
        'Collectives of a step, with the bytes of their results on a chip:',
        *(f'- mask {b.ratio:.3f}: {_by_kind(b.collectives)}' for b in run.buckets if not b.refusal),
    ]
    moved = {_short(c.where) for b in run.buckets for c in b.collectives if c.kind in _RESHARDING}
    if moved:
        text.append('These operations move arrays to other chips: ' + '; '.join(sorted(moved)))
    return '\n'.join(text)


def _row(bucket: Compiled, run: Rehearsal) -> tuple[str, ...]:
    name = (f'{bucket.ratio:.3f}', f'{bucket.batch:,}')
    if bucket.refusal:
        return (*name, *[''] * (len(_COLUMNS) - 3), f'no: {bucket.refusal}')
    bounds = bucket.bounds(run.chip)
    slowest = max(bounds, key=bounds.__getitem__)
    return (
        *name,
        size(bucket.temporaries),
        size(bucket.peak),
        f'{bucket.peak / run.chip.hbm_bytes:.0%}',
        f'{bucket.flops / 1e12:.2f}',
        size(bucket.traffic),
        size(bucket.sent),
        *(f'{1e3 * seconds:.1f} ms' for seconds in bounds.values()),
        f'{1e3 * bounds[slowest]:.1f} ms',
        slowest,
        'yes' if bucket.fits(run.chip) else 'no',
    )


def _by_kind(collectives: tuple[Collective, ...]) -> str:
    parts = []
    for kind in COLLECTIVES:
        ours = [c for c in collectives if c.kind == kind]
        if ours:
            total = sum(c.count * c.bytes for c in ours)
            parts.append(f'{sum(c.count for c in ours)} {kind} of {size(total)} together')
    return ', '.join(parts) or 'none'


def _short(where: str) -> str:
    return '/'.join(where.split('/')[-3:]) or 'an operation without a name'
