"""The scores of a pretraining run for its report: the cards at the top and the tables below."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from diffmavil_jax.evaluation.held_out import FEATURES
from diffmavil_jax.report.content import Headline, Row, Table
from diffmavil_jax.units import Unit, is_number, spell

Summary = Mapping[str, Any]

HEADLINES_NOTE = (
    'Untrained is the same network before training; raw stands for features that are computed from pixels '
    'and log-mel values without a network.'
)
RESULTS = (
    'All scores are measured on held-out clips. Trained is this network, untrained the same network before '
    'training; raw features are computed from pixels and log-mel values without a network, and chance is the '
    'result of guessing. The best value of a row is in bold.'
)

# Columns of the tables, and the prefixes of their names in a summary.
_COLUMNS = {'Trained': '', 'Untrained': 'untrained.', 'Raw features': 'raw.', 'Chance': 'chance.'}
_DIRECTIONS = {'a2v': 'Sound to picture', 'v2a': 'Picture to sound'}
_MODALITIES = {'audio': 'Sound', 'video': 'Picture'}
_FROM = {'audio': 'from sound', 'video': 'from picture', 'fused': 'from both'}


def lookup(summary: Summary, name: str) -> Any:
    """The value under a dotted name, in a nested or a flat mapping; None if absent."""
    if name in summary:
        return summary[name]
    head, _, rest = name.partition('.')
    inner = summary.get(head)
    return lookup(inner, rest) if rest and isinstance(inner, Mapping) else None


def headlines(summary: Summary) -> list[Headline]:
    """The cards at the top of the page; a card whose number the summary lacks is left out."""
    cards = [
        _compared(summary, 'Sound finds its picture, top 10', 'retrieval.a2v.r10'),
        _compared(summary, 'Picture finds its sound, top 10', 'retrieval.v2a.r10'),
        _compared(summary, 'Linear probe, sound and picture', 'probe.fused.top1'),
    ]
    if is_number(saved := lookup(summary, 'macs.saved_fraction')):
        what = 'saved' if saved >= 0 else 'added'
        detail = f'of the MACs of {lookup(summary, "macs.reference")}, at equal clips'
        cards.append(Headline(f'Training compute {what}', spell(abs(saved), 'percent'), detail))
    if is_number(clips := lookup(summary, 'clips_seen')):
        total = lookup(summary, 'time.total_s')
        detail = f'in {spell(total, "seconds")}' if is_number(total) else ''
        cards.append(Headline('Clips seen', spell(clips), detail))
    return [card for card in cards if card is not None]


def tables(summary: Summary) -> list[Table]:
    """The tables that have numbers, without empty columns.

    Their captions end with the coverage of the held-out clips, if that is known: a score on fewer clips than
    the benchmark lists can't be compared with others.
    """
    coverage = f' {summary["coverage"]}.' if summary['coverage'] else ''
    found = (_retrieval(summary), _reconstruction(summary), _classes(summary), _factors(summary))
    return [
        dataclasses.replace(_without_empty_columns(table), caption=table.caption + coverage)
        for table in found
        if any(row.values[0] is not None for row in table.rows)
    ]


def _compared(summary: Summary, label: str, name: str) -> Headline | None:
    """A share, and in the detail the same share for the untrained network and for raw features."""
    value = lookup(summary, name)
    if not is_number(value):
        return None
    others = ((kind, lookup(summary, f'{kind}.{name}')) for kind in ('untrained', 'raw'))
    detail = ', '.join(f'{kind} {spell(v, "percent")}' for kind, v in others if is_number(v))
    detail = '; '.join(filter(None, (detail, lookup(summary, 'coverage'))))
    return Headline(label, spell(value, 'percent'), detail)


def _retrieval(summary: Summary) -> Table:
    count = lookup(summary, 'retrieval.a2v.clips')
    candidates = f'{spell(count)} held-out clips' if is_number(count) else 'all held-out clips'
    if is_number(galleries := lookup(summary, 'retrieval.a2v.galleries')):
        candidates += f' (the mean of {spell(galleries)} such galleries; raw features: one)'
    rows = []
    for direction, title in _DIRECTIONS.items():
        name = f'retrieval.{direction}'
        rows += [_row(summary, f'{title}, top {k}', f'{name}.r{k}') for k in (1, 5, 10)]
        rows.append(_row(summary, f'{title}, median rank', f'{name}.median_rank', 'number', 'lower'))
    caption = (
        f'How often a query finds its own clip among its best matches, out of {candidates}. Pooled features '
        'are compared by cosine, and a tie counts as a miss. Raw features are first mapped linearly from one '
        'sense to the other, as fitted on training clips.'
    )
    return _table('Finding the sound of a picture, and the picture of a sound', caption, rows)


def _reconstruction(summary: Summary) -> Table:
    rows = [
        _row(summary, f'{title}, {band} frequencies', f'reconstruction.{modality}.{band}', 'number', 'lower')
        for modality, title in _MODALITIES.items()
        for band in ('low', 'high')
    ]
    caption = (
        'Energy of the error divided by the energy of the target, below and above a quarter of the Nyquist '
        'frequency. Lower is better; predicting the mean gives 1.'
    )
    return _table('Reconstruction error at the masked patches', caption, rows)


def _classes(summary: Summary) -> Table:
    rows = [
        _row(summary, f'{title}, {_FROM[feature]}', f'{name}.{feature}.top1')
        for name, title in (('probe', 'Linear probe'), ('knn', 'Neighbours'))
        for feature in FEATURES
    ]
    caption = (
        'Top-1 accuracy of a linear probe (penalised discriminant analysis, in closed form) and of a vote of '
        'the 20 nearest neighbours. Raw features are principal components or log-mel statistics, whichever '
        'are better.'
    )
    return _table('Classes read from frozen features', caption, rows)


def _factors(summary: Summary) -> Table:
    rows = [
        _row(
            summary,
            f'{factor.capitalize()}, {_FROM[feature]}',
            f'world.factors.{feature}.{factor}',
            'r2',
        )
        for factor in (lookup(summary, 'world.factors.audio') or {})
        for feature in FEATURES
    ]
    caption = (
        'Properties of the objects in generated clips: R² of ridge regression for hue, size, pitch and times '
        'of impacts, accuracy of the linear probe for shape and material. “none” is an R² below 0, which is '
        'worse than predicting the mean.'
    )
    return _table('Properties of the clip read from frozen features', caption, rows)


def _table(title: str, caption: str, rows: list[Row]) -> Table:
    return Table(title, caption, tuple(_COLUMNS), rows)


def _row(
    summary: Summary,
    label: str,
    name: str,
    unit: Unit = 'percent',
    better: typing.Literal['higher', 'lower'] = 'higher',
) -> Row:
    return Row(label, [lookup(summary, prefix + name) for prefix in _COLUMNS.values()], unit, better)


def _without_empty_columns(table: Table) -> Table:
    filled = [i for i in range(len(table.columns)) if any(row.values[i] is not None for row in table.rows)]
    rows = [dataclasses.replace(row, values=[row.values[i] for i in filled]) for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[i] for i in filled], rows=rows)
