"""The page of a prepare report: what was written, what was refused and why. One file, no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from diffmavil_jax.report.page import document, tag
from diffmavil_jax.units import duration, size


def render(report: Mapping[str, Any]) -> str:
    """The page of what prepare_report.json holds."""
    refused = report['listed'] - report['written']
    cards = [
        (f'{report["written"]:,}', f'of {report["listed"]:,} clips written'),
        (f'{refused:,}', 'clips refused'),
        (duration(report['seconds']), 'of clips'),
        (size(report['bytes']), f'in {report["shards"]:,} shards'),
        (f'{report["duplicates"]["files"]:,}', 'files are copies of others'),
    ]
    title = f'Prepared: {report["dataset"]}'
    notes = ''.join(tag('p', note) for note in (*report['listing_notes'], *report['notes']))
    return document(
        title,
        '<header>\n'
        + tag('h1', title)
        + tag('p', f'From {report["source"]} in {report["input"]}.', 'about')
        + ''.join(tag('p', text, 'warning') for text in report['warnings'])
        + _cards(cards)
        + '</header>\n<main>\n'
        + _splits(report)
        + _refusals(report)
        + _duplicates(report['duplicates'])
        + _settings(report)
        + (f'<h2>Notes</h2>\n{notes}' if notes else '')
        + '</main>\n<footer>Every clip is in <code>manifest.jsonl</code>; the numbers, for programs, are in '
        '<code>prepare_report.json</code>.</footer>\n',
    )


def _splits(report: Mapping[str, Any]) -> str:
    reasons = list(report['refused'])
    head = ['split', 'listed', 'written', 'length', 'size', *reasons]
    lines = [
        [
            split,
            f'{part["listed"]:,}',
            f'{part["written"]:,}',
            duration(part['seconds']),
            size(part['bytes']),
            *(f'{part["refused"].get(reason, 0):,}' for reason in reasons),
        ]
        for split, part in (*report['splits'].items(), ('all', report))
    ]
    return '<h2>Splits</h2>\n' + _table(head, lines[:-1], lines[-1:])


def _refusals(report: Mapping[str, Any]) -> str:
    if not report['refused']:
        return ''
    groups = []
    for reason, count in report['refused'].items():
        examples = report['refused_examples'][reason]
        items = [f'{example["id"]} ({example["split"]}): {example["reason"]}' for example in examples]
        groups.append(_details(f'{reason} ({count:,})', items, count - len(items)))
    return '<h2>Refused</h2>\n' + ''.join(groups)


def _duplicates(duplicates: Mapping[str, Any]) -> str:
    if not duplicates['files']:
        return ''
    items = [
        ' = '.join(f'{place["file"]} ({place["split"]})' for place in group)
        for group in duplicates['examples']
    ]
    about = 'The same file, byte for byte, under several names. All of them were written.'
    return f'<h2>Copies</h2>\n{tag("p", about, "about")}' + _details(
        f'{duplicates["files"]:,} copies', items, 0
    )


def _settings(report: Mapping[str, Any]) -> str:
    lines = [[name.replace('_', ' '), _spell(value)] for name, value in report['settings'].items()]
    lines += [[name, _spell(report[name])] for name in ('runner', 'workers')]
    return '<h2>Settings</h2>\n' + _table(['setting', 'value'], lines)


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return ', '.join(map(str, value)) or 'none'
    return 'all' if value is None else str(value)


def _cards(cards: Iterable[tuple[str, str]]) -> str:
    inner = ''.join(
        f'<div class="card">{tag("div", value, "value")}{tag("div", label, "detail")}</div>\n'
        for value, label in cards
    )
    return f'<div class="cards">\n{inner}</div>\n'


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], totals: Sequence[Sequence[str]] = ()) -> str:
    top = ''.join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body, foot = (
        ''.join(
            f'<tr><th scope="row">{escape(line[0])}</th>'
            + ''.join(f'<td>{escape(value)}</td>' for value in line[1:])
            + '</tr>\n'
            for line in part
        )
        for part in (lines, totals)
    )
    return (
        f'<div class="table card"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n'
        f'<tfoot>\n{foot}</tfoot>\n</table></div>\n'
    )


def _details(title: str, items: Sequence[str], num_more: int) -> str:
    lines = [*items, f'and {num_more:,} more, in manifest.jsonl'] if num_more else items
    inner = ''.join(tag('li', line) for line in lines)
    return f'<details class="card">\n{tag("summary", title)}<ul>\n{inner}</ul>\n</details>\n'
