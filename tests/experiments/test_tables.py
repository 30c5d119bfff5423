"""The tables of the results are those of their JSON, and every measured number has its place."""

import pathlib
import re

import pytest

from experiments import tables

PAGES = tables.pages()
README = pathlib.Path(tables.__file__).parent / 'README.md'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_a_page_is_what_its_data_give(page):
    text = page.read_text()
    assert tables.filled(page) == text, 'run python -m experiments.tables'
    assert tables.names(page) == list(tables.read(page)), 'a table without data, or data without a table'
    assert text.startswith('# ') and '**Answer.**' in text and '**What limits it.**' in text


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_tables_have_no_empty_rows_and_say_where_they_are_from(page):
    for name, table in tables.read(page).items():
        assert table['rows'] and all(any(row[1:]) for row in table['rows']), name
        assert table['command'] or table['commit'], name


def test_a_row_of_another_length_is_an_error():
    table = {'command': '', 'commit': '', 'columns': ['a', 'b'], 'rows': [['1', '2'], ['3']]}
    with pytest.raises(ValueError, match='3.*must have 2 cells'):
        tables.markdown(table)


def test_the_overview_is_short_and_links_every_page():
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    linked = set(re.findall(r'\(results/(\w+)\.md\)', text))
    assert linked == {page.stem for page in tables.RESULTS.glob('*.md')}
