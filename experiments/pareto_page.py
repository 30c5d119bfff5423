"""How the results of `experiments.pareto` are shown: a table with verdicts, and quality against cost."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.intervals import half_width, spell_mean
from experiments.verdicts import by_pretraining, interval, verdict

Results = Mapping[str, Mapping[str, Any]]  # of each arm


def endpoint(
    declared: Mapping[str, Any], arm: Mapping[str, Any], seeds: list[str]
) -> Float[np.ndarray, ' n']:
    """The values of an endpoint in percent, one for each pretraining seed."""
    return 100 * by_pretraining([[arm['seeds'][s][name] for name in declared['numbers']] for s in seeds])


def rows(protocol: Mapping[str, Any], results: Results) -> list[list[str]]:
    """The header and a line for each arm; arms without results are not run."""
    reference = results.get(protocol['reference'])
    primary, secondary = protocol['primary'], protocol['secondary']
    lines = [
        [
            'arm',
            'rate, batch',
            'MACs saved',
            'time saved',
            primary['title'],
            f'difference, n, verdict at a margin of {primary["margin"]:g}',
            *(f'{other["title"]}: difference' for other in secondary),
        ]
    ]
    for name in protocol['arms']:
        arm = results.get(name)
        if arm is None or reference is None:
            lines.append([name, 'not run', *['-'] * (4 + len(secondary))])
            continue
        line = [
            name,
            f'{arm["rate"]:g}, {arm["batch"]}' + _edge(protocol, arm),
            _saved(_macs(arm), _macs(reference)),
            _saved(arm['ms_per_clip'], reference['ms_per_clip']),
            spell_mean(endpoint(primary, arm, list(arm['seeds']))),
        ]
        if arm is reference:
            lines.append([*line, f'the reference, n = {len(arm["seeds"])}', *['-'] * len(secondary)])
            continue
        both = [seed for seed in arm['seeds'] if seed in reference['seeds']]
        differences = endpoint(primary, arm, both) - endpoint(primary, reference, both)
        low, high = interval(differences)
        line.append(f'{_difference(differences)}, n = {len(both)}: {verdict(low, high, primary["margin"])}')
        for other in secondary:
            d = endpoint(other, arm, both) - endpoint(other, reference, both)
            line.append(_difference(d, comparisons=len(secondary)))
        lines.append(line)
    return lines


def table(protocol: Mapping[str, Any], results: Results) -> str:
    """The lines as Markdown."""
    header, *body = rows(protocol, results)
    lines = [header, ['---'] * len(header), *body]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def picture(protocol: Mapping[str, Any], results: Results) -> bytes:
    """PNG: the primary endpoint of each arm with its interval, against multiply-accumulates and time."""
    primary = protocol['primary']
    costs = {
        'GMAC a clip, forward': lambda arm: _macs(arm) / 1e9,
        'ms of training a clip': lambda arm: arm['ms_per_clip'],
    }
    figure = Figure(figsize=(11, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (label, cost) in zip(figure.subplots(1, 2, sharey=True), costs.items(), strict=True):
        for number, (name, arm) in enumerate(results.items()):
            if cost(arm) is None:
                continue
            values = endpoint(primary, arm, list(arm['seeds']))
            half, colour = np.nan_to_num(half_width(values)), f'C{number % 10}'
            axes.errorbar(cost(arm), values.mean(), half, fmt='o', capsize=3, color=colour, label=name)
        axes.set_xlabel(label)
        axes.spines[['top', 'right']].set_visible(False)
    figure.axes[0].set_ylabel(primary['title'])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right upper', frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    return buffer.getvalue()


def _macs(arm: Mapping[str, Any]) -> float:
    """Multiply-accumulates of a forward pass of a clip."""
    numbers = next(iter(arm['seeds'].values()))
    return numbers['macs'] / numbers['clips']


def _saved(cost: float | None, reference: float | None) -> str:
    return '-' if cost is None or reference is None else f'{100 * (1 - cost / reference):.1f} %'


def _difference(differences: Float[np.ndarray, ' n'], comparisons: int = 1) -> str:
    low, high = interval(differences, comparisons)
    ends = f' ({low:+.1f} to {high:+.1f})' if np.isfinite(low) else ''
    return f'{differences.mean():+.1f}{ends}'


def _edge(protocol: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    """A mark where a better choice may lie beyond the grid."""
    rates = protocol['tuning']['rates']
    return ' (edge of the grid)' if arm['rate'] in (min(rates), max(rates)) and len(rates) > 1 else ''
