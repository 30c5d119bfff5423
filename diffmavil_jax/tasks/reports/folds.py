"""The report of a cross-validation, from the summaries of its folds."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from diffmavil_jax.config.schema import Config
from diffmavil_jax.report.content import (
    Headline,
    Report,
    Row,
    Table,
)
from diffmavil_jax.report.run_page import write_report
from diffmavil_jax.tasks.reports.classification import LEAD, RESULTS, TITLES, unit_of
from diffmavil_jax.units import spell


def write(config: Config, root: pathlib.Path, command: str) -> pathlib.Path:
    """Writes report/ in `root`, which has a directory for each fold; returns the path of index.html.

    `summary.json` has `test.SCORE.{mean,std,low,high,folds}`.
    """
    names = config.finetune.folds
    summaries = [
        json.loads((root / name / 'report' / 'summary.json').read_text(encoding='utf-8')) for name in names
    ]
    scores = {
        score: spread_of([summary['test'][score]['value'] for summary in summaries])
        for score in summaries[0]['test']
    }
    for score, result in scores.items():
        unit = unit_of(score)
        print(f'{score}: mean {spell(result["mean"], unit)}, standard deviation {spell(result["std"], unit)}')
    rows = [
        Row(TITLES[score], [*result['folds'], result['mean'], result['std']], unit_of(score))
        for score, result in scores.items()
    ]
    coverage = '; '.join(dict.fromkeys(filter(None, (summary['coverage'] for summary in summaries))))
    caption = f'Each fold was tested once, by a network trained on the other folds. {coverage}'.strip()
    report = Report(
        title=config.name,
        command=command,
        lead=LEAD,
        results=RESULTS,
        headlines=[
            Headline(
                f'{TITLES[score]}, mean of {len(names)} folds',
                spell(result['mean'], unit_of(score)),
                f'standard deviation {spell(result["std"], unit_of(score))}; 95 % interval of the mean '
                f"(Student's t, n = {len(names)} folds): "
                f'{spell(result["low"], unit_of(score))} to {spell(result["high"], unit_of(score))}',
            )
            for score, result in scores.items()
        ],
        tables=[Table('Test scores', caption, [*names, 'mean', 'standard deviation'], rows)],
        notes=[f'The report of fold {name} is in {name}/report/.' for name in names],
        summary={'name': config.name, 'folds': list(names), 'test': scores, 'coverage': coverage},
    )
    return write_report(report, root / 'report')


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation, and the 95 % interval of the mean by Student's t."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * std / math.sqrt(len(values))
    return {'mean': mean, 'std': std, 'low': mean - half, 'high': mean + half, 'folds': list(values)}
