"""The page of a prepare report: what was written, what was refused and why. One file, no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_CSS = """
:root { color-scheme: light dark; --bg: #f6f7f8; --card: #fff; --text: #1b1f24; --muted: #646c76;
  --line: #e3e6e9; --bad: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --bg: #101317; --card: #171b21; --text: #e6e9ed;
  --muted: #99a2ad; --line: #2b3138; --bad: #e9a06f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 40px 24px; background: var(--bg); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
h1 { font-size: 30px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 10px; }
p { margin: 0 0 12px; color: var(--muted); overflow-wrap: anywhere; }
.warning { color: var(--bad); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 24px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.value { font-size: 25px; font-weight: 650; }
.label { color: var(--muted); font-size: 14px; }
.wide { overflow-x: auto; padding: 4px; margin-bottom: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--muted); font-size: 13px; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 400; overflow-wrap: anywhere; }
tr.total > * { font-weight: 650; }
summary { cursor: pointer; }
details { margin-bottom: 8px; }
li { font-size: 14px; color: var(--muted); overflow-wrap: anywhere; }
"""


def render(report: Mapping[str, Any]) -> str:
    """The page of what prepare_report.json holds."""
    refused = report['listed'] - report['written']
    cards = [
        (f'{report["written"]:,}', f'of {report["listed"]:,} clips written'),
        (f'{refused:,}', 'clips refused'),
        (_duration(report['seconds']), 'of clips'),
        (_size(report['bytes']), f'in {report["shards"]:,} shards'),
        (f'{report["duplicates"]["files"]:,}', 'files are copies of others'),
    ]
    title = f'Prepared: {report["dataset"]}'
    body = [
        f'<h1>{escape(title)}</h1>',
        _paragraph(f'From {report["source"]} in {report["input"]}.'),
        *(_paragraph(text, 'warning') for text in report['warnings']),
        _cards(cards),
        '<h2>Splits</h2>',
        _splits(report),
        _refusals(report),
        _duplicates(report['duplicates']),
        _settings(report),
    ]
    notes = [*report['listing_notes'], *report['notes']]
    if notes:
        body += ['<h2>Notes</h2>', *(_paragraph(note) for note in notes)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n'
        + '\n'.join(part for part in body if part)
        + '\n</body>\n</html>\n'
    )


def _splits(report: Mapping[str, Any]) -> str:
    rows = [*report['splits'].items(), ('all', report)]
    reasons = list(report['refused'])
    head = ['split', 'listed', 'written', 'length', 'size', *reasons]
    lines = [
        [
            split,
            f'{part["listed"]:,}',
            f'{part["written"]:,}',
            _duration(part['seconds']),
            _size(part['bytes']),
            *(f'{part["refused"].get(reason, 0):,}' for reason in reasons),
        ]
        for split, part in rows
    ]
    return _table(head, lines)


def _refusals(report: Mapping[str, Any]) -> str:
    if not report['refused']:
        return ''
    groups = []
    for reason, count in report['refused'].items():
        examples = report['refused_examples'][reason]
        items = [f'{example["id"]} ({example["split"]}): {example["reason"]}' for example in examples]
        groups.append(_details(f'{reason} ({count:,})', items, count - len(items)))
    return '<h2>Refused</h2>\n' + '\n'.join(groups)


def _duplicates(duplicates: Mapping[str, Any]) -> str:
    if not duplicates['files']:
        return ''
    items = [
        ' = '.join(f'{place["file"]} ({place["split"]})' for place in group)
        for group in duplicates['examples']
    ]
    about = 'The same file, byte for byte, under several names. All of them were written.'
    return f'<h2>Copies</h2>\n{_paragraph(about)}\n' + _details(f'{duplicates["files"]:,} copies', items, 0)


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
        f'<div class="card"><div class="value">{escape(value)}</div>'
        f'<div class="label">{escape(label)}</div></div>'
        for value, label in cards
    )
    return f'<div class="cards">{inner}</div>'


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    top = ''.join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = ''.join(
        f'<tr{" class=total" if line[0] == "all" else ""}><th scope="row">{escape(line[0])}</th>'
        + ''.join(f'<td>{escape(value)}</td>' for value in line[1:])
        + '</tr>\n'
        for line in lines
    )
    return f'<div class="card wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _details(title: str, items: Sequence[str], num_more: int) -> str:
    lines = [*items, f'and {num_more:,} more, in manifest.jsonl'] if num_more else items
    inner = ''.join(f'<li>{escape(line)}</li>' for line in lines)
    return f'<details class="card"><summary>{escape(title)}</summary><ul>{inner}</ul></details>'


def _paragraph(text: str, css: str = '') -> str:
    return f'<p{f" class={css}" if css else ""}>{escape(text)}</p>'


def _duration(seconds: float) -> str:
    for limit, unit in ((3600, 'h'), (60, 'min')):
        if seconds >= limit:
            return f'{seconds / limit:,.1f} {unit}'
    return f'{seconds:.1f} s'


def _size(num_bytes: float) -> str:
    for unit in ('B', 'kB', 'MB', 'GB'):
        if num_bytes < 1000:
            return f'{num_bytes:.3g} {unit}'
        num_bytes /= 1000
    return f'{num_bytes:,.3g} TB'
