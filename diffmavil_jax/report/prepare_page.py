"""The page of a prepared dataset: what was written, and what was refused and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffmavil_jax.report.page import render_page


def render_prepared(report: Mapping[str, Any]) -> str:
    """The page of what prepare_report.json holds, as HTML."""
    settings = {name.replace('_', ' '): value for name, value in report['settings'].items()}
    settings |= {name: report[name] for name in ('runner', 'workers')}
    return render_page(
        'prepare.html.jinja',
        report=report,
        settings={name: _setting(value) for name, value in settings.items()},
    )


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ', '.join(map(str, value)) or 'none'
    return 'all' if value is None else str(value)
