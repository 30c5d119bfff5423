"""The report of a run: one static page, its pictures beside it, and every number as JSON.

The page needs no network and no script. It is the same, byte for byte, for the same
report. Everything is drawn before anything is written, and each file replaces its
predecessor in one step, index.html last: a crash leaves the old page readable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffmavil_jax.atomic import replace
from diffmavil_jax.report.content import Report
from diffmavil_jax.report.drawing import draw
from diffmavil_jax.report.sections import render_page
from diffmavil_jax.units import is_number

_PICTURES = re.compile(
    r'(hero|losses|schedule|evaluation|confusion|reconstruction-\d+|retrieval-(audio-to-video|video-to-audio))\.png'
)


def write(report: Report, directory: str | os.PathLike[str]) -> Path:
    """Writes index.html, summary.json and the PNGs; returns the path of the page.

    The page holds its pictures itself, so that it can be sent to somebody; the PNGs beside
    it are for other uses. PNGs of an earlier report that this one does not have are removed;
    other files in the directory are left alone.
    """
    directory = Path(directory)
    pictures = draw(report)
    page = render_page(report, {picture.name: picture for picture in pictures})
    summary = json.dumps(json_values(report.summary), indent=2, ensure_ascii=False, allow_nan=False)
    directory.mkdir(parents=True, exist_ok=True)
    files = {f'{picture.name}.png': picture.png for picture in pictures}
    for name, data in files.items():
        replace(directory / name, data)
    replace(directory / 'summary.json', (summary + '\n').encode())
    replace(directory / 'index.html', page.encode())
    for path in directory.iterdir():
        if _PICTURES.fullmatch(path.name) and path.name not in files:
            path.unlink()
    return directory / 'index.html'


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


# ---- Pictures -----------------------------------------------------------------------


# ---- Sections -----------------------------------------------------------------------
