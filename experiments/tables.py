"""Writes the tables of experiments/results from their JSON: python -m experiments.tables.

A page has a table between `<!-- table NAME -->` and `<!-- end -->`; results/data/PAGE.json has its columns
and rows, the command that measured them and the commit that it ran at.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / 'results'
_TABLE = re.compile(r'(<!-- table (\S+) -->\n).*?(<!-- end -->)', re.DOTALL)


def main() -> None:
    """Rewrites every page that has tables."""
    for page in pages():
        page.write_text(filled(page), encoding='utf-8')


def pages() -> list[pathlib.Path]:
    """The pages that have tables."""
    return sorted(RESULTS / f'{path.stem}.md' for path in (RESULTS / 'data').glob('*.json'))


def filled(page: pathlib.Path) -> str:
    """The text of a page, with its tables as its JSON has them.

    Raises:
        KeyError: the page names a table that the JSON lacks.
    """
    tables = read(page)

    def fill(match: re.Match[str]) -> str:
        return f'{match[1]}\n{markdown(tables[match[2]])}\n\n{match[3]}'

    return _TABLE.sub(fill, page.read_text(encoding='utf-8'))


def names(page: pathlib.Path) -> list[str]:
    """The tables that a page shows, in order."""
    return [match[2] for match in _TABLE.finditer(page.read_text(encoding='utf-8'))]


def read(page: pathlib.Path) -> dict[str, Any]:
    """The tables of a page by name."""
    return json.loads((page.parent / 'data' / f'{page.stem}.json').read_text(encoding='utf-8'))


def markdown(table: Mapping[str, Any]) -> str:
    """A table as Markdown, and below it what measured it.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """
    columns: Sequence[str] = table['columns']
    lines = [columns, ['---'] * len(columns), *table['rows']]
    for line in lines:
        if len(line) != len(columns):
            raise ValueError(f'{line}: must have {len(columns)} cells, as the columns {columns}.')
    source = f'\n\n`{table["command"]}`' if table['command'] else ''
    if table['commit']:
        source += f' (commit {table["commit"]})' if source else f'\n\nCommit {table["commit"]}.'
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + source


if __name__ == '__main__':
    main()
