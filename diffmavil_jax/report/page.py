"""What all pages have in common: their frame and their looks. They need no network and no script."""

from __future__ import annotations

from html import escape

_CSS = """
:root { color-scheme: light dark; --bg: #f6f7f8; --card: #ffffff; --text: #1b1f24; --muted: #646c76;
  --line: #e3e6e9; --accent: #1d6fb0; --best: #eaf3fa; --bad: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --bg: #101317; --card: #171b21; --text: #e6e9ed;
  --muted: #99a2ad; --line: #2b3138; --accent: #6cb4f0; --best: #1c2c3a; --bad: #e9a06f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 48px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 48px 0 8px; letter-spacing: -0.01em; }
h3 { font-size: 16px; margin: 24px 0 2px; }
p { margin: 0 0 14px; max-width: 76ch; }
.lead { font-size: 18px; }
.about, figcaption, .caption { color: var(--muted); }
.warning { color: var(--bad); font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 20px 0 0; padding-bottom: 12px;
  border-bottom: 1px solid var(--line); font-size: 14px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card.picture { background: #ffffff; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 12px;
  margin-top: 28px; }
.cards .card { padding: 14px 16px; }
.cards .value { font-size: 29px; line-height: 1.3; font-weight: 650; letter-spacing: -0.02em; }
.cards .label { font-size: 14px; font-weight: 600; }
.cards .detail { font-size: 13px; color: var(--muted); }
pre { margin: 0 0 14px; padding: 13px 16px; overflow-x: auto; font-size: 14px; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 14px 24px; margin: 0;
  padding: 16px; }
dt { font-size: 13px; color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 14px 0 20px; }
figure .card { overflow-x: auto; padding: 6px; line-height: 0; }
figure img { width: 100%; min-width: 680px; height: auto; }
figcaption, .caption { font-size: 14px; margin-top: 6px; overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: 8px 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; font-size: 13px; color: var(--muted); font-weight: 600; vertical-align: bottom; }
th:first-child { text-align: left; }
tbody th { font-weight: 400; }
.results { table-layout: fixed; min-width: 640px; }
.results th { white-space: normal; overflow-wrap: anywhere; }
.results th:first-child { width: 34%; }
tfoot th, tfoot td { font-weight: 650; border-top-width: 2px; }
td.best { font-weight: 650; background: var(--best); }
details { padding: 9px 16px; margin-bottom: 8px; }
summary { cursor: pointer; }
details li, .count { font-size: 14px; color: var(--muted); }
details li { overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 13px; padding-top: 40px; padding-bottom: 48px; }
"""


def document(title: str, body: str) -> str:
    """A page of a title and of HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}</body>\n</html>\n'
    )


def tag(name: str, text: str, css: str = '') -> str:
    """An element around escaped text; nothing for no text."""
    attribute = f' class="{css}"' if css else ''
    return f'<{name}{attribute}>{escape(text)}</{name}>\n' if text else ''
