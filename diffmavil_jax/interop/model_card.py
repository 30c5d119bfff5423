"""The card of an export as people read it on the Hugging Face Hub: README.md with YAML metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_TAGS = ('audio', 'video', 'self-supervised', 'masked-autoencoder', 'jax')
# Those that the Hub has a name for, and that weights have.
_LICENCES = re.compile(r'apache-2\.0|mit|bsd-[23]-clause|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-(3|4)\.0|gpl-3\.0')
_LOADED = {
    'safetensors': "diffmavil_jax.load('{path}').embed(['dog.mp4'])",
    'jax': "diffmavil_jax.load('{path}').embed(['dog.mp4'])",
    'timm': '',
}


def model_card(card: Mapping[str, Any], path: str) -> str:
    """The text of README.md.

    Args:
        card: what `exporting.export` returns.
        path: `hf://ORG/NAME`, which the example loads.
    """
    # Values in JSON are values in YAML, too.
    metadata = [f'{name}: {json.dumps(value)}' for name, value in _metadata(card).items()]
    return '\n'.join(['---', *metadata, '---', *_sections(card, path)])


def _metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    licence = card['licence'].lower()
    if _LICENCES.fullmatch(licence):
        terms = {'license': licence}
    elif licence == 'not stated':
        terms = {}
    else:
        terms = {'license': 'other', 'license_name': re.sub(r'[^a-z0-9]+', '-', licence).strip('-')}
    library = 'timm' if card['format'] == 'timm' else 'diffmavil-jax'
    return {
        **terms,
        'library_name': library,
        'pipeline_tag': 'feature-extraction',
        'tags': list(_TAGS),
    }


def _sections(card: Mapping[str, Any], path: str) -> Iterator[str]:
    size = card['size']
    yield f'# {card.get("name") or path.rpartition("/")[2]}\n'
    yield (
        f'Encoders that were exported by diffmavil-jax: {", ".join(card["parts"])}; {size["width"]} wide, '
        f'{size["depth"]} layers, {card["parameters"]:,} parameters, trained on {card["samples_seen"]:,} '
        'clips.\n'
    )
    if example := _LOADED[card['format']]:
        yield f'```python\nimport diffmavil_jax\n\n{example.format(path=path)}\n```\n'
    yield f'Licence: {card["licence"]}.\n'
    if isinstance(data := card['training_data'], Mapping):
        data = ', '.join(f'{name} {value}' for name, value in data.items() if value)
    yield f'## Training data\n\n{data}\n'
    yield '## Input\n'
    for modality in ('audio', 'video'):
        if modality in card:
            yield _table(modality, card[modality])
    if card['scores']:
        yield '## Scores\n\nOn held-out clips of the training data.\n'
        yield _table('score', card['scores'])
    if card['remarks']:
        yield '## Limits\n'
        yield '\n'.join(f'- {remark}' for remark in card['remarks']) + '\n'


def _table(name: str, values: Mapping[str, Any]) -> str:
    rows = [f'| {key} | {value} |' for key, value in _flat(values)]
    return '\n'.join([f'| {name} | |', '| --- | --- |', *rows]) + '\n'


def _flat(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
    """Nested values as rows: names joined by spaces, floats rounded to 4 digits."""
    for key, value in values.items():
        name = f'{prefix} {key}'.strip()
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif isinstance(value, float):
            yield name, f'{value:.4g}'
        elif value not in ('', [], None):
            yield name, ' x '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
