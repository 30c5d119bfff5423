"""The report of a run: one static page, its pictures beside it, and every number as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from diffmavil_jax.atomic import write_bytes, write_text
from diffmavil_jax.report.content import Report
from diffmavil_jax.report.drawing import PICTURE_FILES, Picture, directions, draw, draw_strip
from diffmavil_jax.report.page import render_page
from diffmavil_jax.units import is_number

MAX_LISTED = 500  # refused files named per reason; the count is always of all


def write_report(report: Report, directory: str | os.PathLike[str]) -> Path:
    """Writes index.html, summary.json and the PNGs; returns the path of the page.

    The page holds its pictures itself, so that it can be sent to somebody; the PNGs beside it are for
    other uses. Everything is drawn before anything is written, and each file replaces its predecessor in
    one step, index.html last: a crash leaves the old page readable. PNGs of an earlier report that this
    one does not have are removed; other files in the directory are left alone.
    """
    folder = epath.Path(directory)  # it may be in a bucket
    pictures = draw(report)
    page = render_report(report, pictures)
    summary = json.dumps(json_values(report.summary), indent=2, ensure_ascii=False, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f'{picture.name}.png': picture.png for picture in pictures}
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_text(folder / 'summary.json', summary + '\n')
    write_text(folder / 'index.html', page)
    for path in folder.iterdir():
        if PICTURE_FILES.fullmatch(path.name) and path.name not in files:
            path.unlink()
    return folder / 'index.html'


def render_report(report: Report, pictures: Sequence[Picture]) -> str:
    """The page as HTML, with its pictures in it."""
    return render_page(
        'run.html.jinja',
        report=report,
        pictures={picture.name: picture for picture in pictures},
        strips=[draw_strip(mistake) for mistake in report.mistakes],
        directions=directions(report),
        plan_totals=plan_totals(report.plan),
        refused_by_reason=group_refused(report.refused),
        max_listed=MAX_LISTED,
    )


def plan_totals(plan: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Steps, MACs and the saved share of the whole plan; only what is known of every bucket."""
    totals: dict[str, float] = {}
    for key in ('steps', 'macs'):
        values = [bucket.get(key) for bucket in plan]
        if all(is_number(value) for value in values):
            totals[key] = sum(value for value in values if is_number(value))
    saved = [bucket.get('saved') for bucket in plan]
    if 'macs' in totals and all(is_number(s) and s < 1 for s in saved):
        baseline = sum(bucket['macs'] / (1 - bucket['saved']) for bucket in plan)
        if baseline > 0:
            totals['saved'] = 1 - totals['macs'] / baseline
    return totals


def group_refused(refused: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """(path, detail) of refused files by reason, the most frequent reason first.

    A reason is the text before the first colon, its detail the rest.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, text in refused:
        reason, _, detail = text.partition(':')
        groups.setdefault(reason.strip(), []).append((path, detail.strip()))
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def json_values(value: Any) -> Any:
    """The value in JSON's own types: NumPy's become Python's, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): json_values(v) for key, v in value.items()}
    if isinstance(value, np.ndarray):
        return json_values(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_values(v) for v in value]
    if isinstance(value, np.generic):
        return json_values(value.item())
    return value if not isinstance(value, float) or is_number(value) else None
