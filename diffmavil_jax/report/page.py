"""Pages from the templates in templates/; every text in them is escaped."""

from __future__ import annotations

import base64
import functools
from typing import Any

import jinja2

from diffmavil_jax.units import MISSING, spell


def render_page(template: str, **content: Any) -> str:
    """Fills in a template, such as `run.html.jinja`, with content by name.

    The page is the same, byte for byte, for the same content.
    """
    return _environment().get_template(template).render(content)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('diffmavil_jax.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,  # a misspelled name fails instead of leaving a hole in the page
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {'spell': spell, 'base64': lambda data: base64.b64encode(data).decode()}
    environment.globals['MISSING'] = MISSING
    return environment
