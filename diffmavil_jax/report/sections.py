"""The sections of the report, each from its content to HTML."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from diffmavil_jax.report import sheets
from diffmavil_jax.report.content import Mistake, Report, Row, Table
from diffmavil_jax.report.drawing import Picture, directions, picture, retrieval_name
from diffmavil_jax.report.page import document, tag
from diffmavil_jax.units import MISSING, Unit, is_number, spell

MAX_LISTED = 500  # refused files named per reason; the count is always of all


_PLAN: tuple[tuple[str, str, Unit], ...] = (
    ('mask_ratio', 'Mask ratio', 'percent'),
    ('audio_tokens', 'Audio tokens', 'number'),
    ('video_tokens', 'Video tokens', 'number'),
    ('batch_size', 'Batch', 'number'),
    ('steps', 'Steps', 'number'),
    ('macs_per_clip', 'MACs a clip', 'si'),
    ('macs', 'MACs', 'si'),
    ('saved', 'Saved', 'percent'),
)


def _figure(picture: Picture | None, caption: str = '') -> str:
    if picture is None:
        return ''
    width, height = picture.size
    data = base64.b64encode(picture.png).decode()
    return (
        '<figure>\n<div class="card picture">'
        f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" '
        f'width="{width}" height="{height}">'
        f'</div>\n{tag("figcaption", caption)}</figure>\n'
    )


Pictures = Mapping[str, Picture]


def render_page(report: Report, pictures: Pictures) -> str:
    """The whole page as HTML."""
    sections = [
        (name, title, body) for name, title, section in _SECTIONS if (body := section(report, pictures))
    ]
    links = ''.join(f'<a href="#{name}">{title}</a>\n' for name, title, _ in sections)
    bodies = ''.join(
        f'<section id="{n}">\n<h2>{title}</h2>\n{body}</section>\n' for n, title, body in sections
    )
    return document(
        report.title,
        f'<header>\n<h1>{escape(report.title)}</h1>\n{tag("p", report.lead, "lead")}'
        f'{_cards(report)}<nav>\n{links}</nav>\n</header>\n<main>\n{bodies}</main>\n'
        '<footer>The numbers of this run, for programs, are in <code>summary.json</code>.</footer>\n',
    )


def _cards(report: Report) -> str:
    cards = ''.join(
        f'<div class="card">{tag("div", card.value, "value")}{tag("div", card.label, "label")}'
        f'{tag("div", card.detail, "detail")}</div>\n'
        for card in report.headlines
    )
    return f'<div class="cards">\n{cards}</div>\n' if cards else ''


def _run(report: Report, _: Pictures) -> str:
    command = f'<pre class="card"><code>{escape(report.command)}</code></pre>\n' if report.command else ''
    facts = ''.join(f'<div>{tag("dt", k)}{tag("dd", v or MISSING)}</div>\n' for k, v in report.facts.items())
    return command + (f'<dl class="card">\n{facts}</dl>\n' if facts else '')


def _curves(_: Report, pictures: Pictures) -> str:
    body = (
        _figure(
            pictures.get('losses'),
            'Training. Lower is better, and the number on the right is the last one. The dashed line is what '
            'guessing scores at telling which sound belongs to which picture.',
        )
        + _figure(
            pictures.get('schedule'),
            'The schedule. With a curriculum more of a clip is hidden early on, so that a clip is cheaper; '
            'an adaptive batch then holds more of them.',
        )
        + _figure(
            pictures.get('evaluation'),
            'The same network on clips that it never trains on. Orange is sound, blue is picture, '
            'purple both; a→v asks with a sound for its picture, v→a the reverse.',
        )
    )
    about = 'Everything is drawn over the number of clips seen, since the batch size may change on the way.'
    return tag('p', about, 'about') + body if body else ''


def _tables(report: Report, _: Pictures) -> str:
    if not report.tables:
        return ''
    return tag('p', report.results, 'about') + ''.join(_table(table) for table in report.tables)


def _table(table: Table) -> str:
    head = '<th></th>' + ''.join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = ''.join(_row(row) for row in table.rows)
    return (
        f'{tag("h3", table.title)}{tag("p", table.caption, "caption")}'
        '<div class="table card"><table class="results">\n'
        f'<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'
    )


def _row(row: Row) -> str:
    best = row.best()
    cells = ''.join(
        f'<td{css}>{spell(value, row.unit)}</td>'
        for i, value in enumerate(row.values)
        for css in (' class="best"' if i in best else '',)
    )
    return f'<tr><th scope="row">{escape(row.label)}</th>{cells}</tr>\n'


def _reconstructions(report: Report, pictures: Pictures) -> str:
    if not report.reconstructions:
        return ''
    about = (
        'Held-out clips. Grey is hidden from the encoder, which works on the rest alone. The decoder then '
        'fills in the hidden part; with diffusion it starts from a noisy copy of it, otherwise from nothing. '
        'Brighter is louder in a spectrogram, and all rows of a clip share one colour range.'
    )
    sheets = (
        _figure(pictures.get(f'reconstruction-{i}'), f'Clip {clip.id}')
        for i, clip in enumerate(report.reconstructions, 1)
    )
    return tag('p', about, 'about') + ''.join(sheets)


def _retrievals(report: Report, pictures: Pictures) -> str:
    if not report.retrievals:
        return ''
    about = (
        'Each row asks with one sense and ranks all held-out clips by the other. The clip that the query was '
        'taken from is outlined in green where it is among the five best. Below each match is its similarity.'
    )
    sheets = (
        tag('h3', direction[:1].upper() + direction[1:]) + _figure(pictures.get(retrieval_name(direction)))
        for direction in directions(report)
    )
    return tag('p', about, 'about') + ''.join(sheets)


def _confusion(report: Report, pictures: Pictures) -> str:
    return _figure(pictures.get('confusion'), 'Counts of clips; the shade is the share of the true class.')


def _mistakes(report: Report, _: Pictures) -> str:
    if not report.mistakes:
        return ''
    about = 'Test clips that were taken for another class, those of which the network was surest first.'
    return tag('p', about, 'about') + ''.join(map(_mistake, report.mistakes))


def _mistake(mistake: Mistake) -> str:
    title = f'{mistake.truth}, taken for {mistake.guess} ({spell(mistake.probability, "percent")})'
    body = tag('h3', title) + tag('p', mistake.id, 'caption')
    if mistake.sound is not None:
        data = base64.b64encode(mistake.sound).decode()
        body += f'<p><audio controls preload="none" src="data:audio/wav;base64,{data}"></audio></p>\n'
    if mistake.frames is not None:
        alt = f'Pictures of {mistake.id}'
        body += _figure(picture('strip', alt, sheets.frame_strip, mistake.frames))
    return body


def _plan(report: Report, _: Pictures) -> str:
    if not report.plan:
        return ''
    about = (
        'Training runs in buckets, each compiled once with a fixed mask ratio and batch size. '
        'Tokens are those that the encoders see of a clip. MACs are multiply-accumulates; '
        'saved is against MAViL, which uses none of the techniques.'
    )
    head = '<th scope="col">Clips seen</th>' + ''.join(
        f'<th scope="col">{title}</th>' for _, title, _ in _PLAN
    )
    body = ''.join(
        f'<tr><th scope="row">{spell(bucket.get("first_sample"))} to {spell(bucket.get("last_sample"))}</th>'
        + ''.join(f'<td>{spell(bucket.get(key), unit)}</td>' for key, _, unit in _PLAN)
        + '</tr>\n'
        for bucket in report.plan
    )
    totals = plan_totals(report.plan)
    foot = ''.join(f'<td>{spell(totals[k], unit) if k in totals else ""}</td>' for k, _, unit in _PLAN)
    return (
        f'{tag("p", about, "about")}<div class="table card"><table>\n<thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{body}</tbody>\n<tfoot><tr><th scope="row">Whole run</th>{foot}</tr></tfoot>\n'
        '</table></div>\n'
    )


def plan_totals(plan: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Steps, MACs and the share saved of the whole plan, of those that every bucket has."""
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


def _refused(report: Report, _pictures: Pictures) -> str:
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, reason in report.refused:
        kind, _, detail = reason.partition(':')
        groups.setdefault(kind.strip(), []).append((path, detail.strip()))
    if not groups:
        return ''
    count = len(report.refused)
    about = f'{spell(count)} {"file" if count == 1 else "files"} could not be used, and took no part.'
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return tag('p', about, 'about') + ''.join(_refused_group(reason, files) for reason, files in ordered)


def _refused_group(reason: str, files: Sequence[tuple[str, str]]) -> str:
    items = ''.join(
        f'<li><code>{escape(path)}</code>{escape(f": {detail}" if detail else "")}</li>\n'
        for path, detail in files[:MAX_LISTED]
    )
    more = f'<li>and {spell(len(files) - MAX_LISTED)} more</li>\n' if len(files) > MAX_LISTED else ''
    return (
        f'<details class="card">\n<summary>{escape(reason)} <span class="count">({spell(len(files))})</span>'
        f'</summary>\n<ul>\n{items}{more}</ul>\n</details>\n'
    )


def _notes(report: Report, _: Pictures) -> str:
    return ''.join(_paragraphs(report.notes))


def _paragraphs(texts: Iterable[str]) -> Iterable[str]:
    return (tag('p', text) for text in texts)


_SECTIONS: tuple[tuple[str, str, Callable[[Report, Pictures], str]], ...] = (
    ('run', 'What ran', _run),
    ('results', 'Results', _tables),
    ('reconstructions', 'Reconstructions', _reconstructions),
    ('retrieval', 'Retrieval', _retrievals),
    ('confusion', 'Confusions', _confusion),
    ('mistakes', 'Where it was sure and wrong', _mistakes),
    ('curves', 'Training curves', _curves),
    ('plan', 'The plan', _plan),
    ('refused', 'Refused files', _refused),
    ('notes', 'Notes', _notes),
)
