"""Every name of a file works: as an id, in every output, and beside files that fail."""

import io
import json
import os
import sys

import numpy as np
import pyarrow.parquet
import pytest

from diffmavil_jax.atomic import write_json, write_text
from diffmavil_jax.commands.command import print_any_name, say
from diffmavil_jax.data.clip import clip_id, printable
from diffmavil_jax.data.prepare import summary
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.inference.features import Embeddings
from diffmavil_jax.report.prepare_page import render_prepared
from tests.cases.making import film, outcomes
from tests.data.folders import SPEC

NAMES = [
    b'mod\xe0 - 0.mkv', b'-x.mkv', b'100%s %d.mkv', b' a b .mkv', b'a\nb.mkv', b'a\rb\x1b[31m.mkv',
    b'x' * 251 + b'.mkv', b'\xff\xfe.mkv', b'"q".mkv', b'<b>&amp;.mkv', 'e\u0301\u2028.mkv'.encode(),
    b'$x_1$.mkv', b'[1]*?.mkv', b'\\.mkv',
]  # fmt: skip


@pytest.fixture(scope='module')
def media(tmp_path_factory):
    """Files under every name, and one that can't be read."""
    root = tmp_path_factory.mktemp('names')
    contents = film(root / 'film' / 'a.mkv', 1.0, sound_s=1.0).read_bytes()
    folder = root / 'media'
    folder.mkdir()
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(contents)
    (folder / os.fsdecode(b'broken\xe9.mkv')).write_bytes(b'broken')
    return folder


def test_training_reads_every_name(media, open_folder):
    sources = open_folder(media, SPEC, eval_fraction=0.3)
    ids = [part[i]['id'] for part in (sources.train, sources.eval) for i in range(len(part))]
    assert sorted(ids) == sorted(clip_id(os.fsdecode(name), 0.0) for name in NAMES)
    refused = [refusal.path for part in (sources.train, sources.eval) for refusal in part.refused()]
    assert refused == ['broken\\udce9.mkv']
    for text in (*ids, *refused):
        assert text.isprintable() and text.encode()


def test_prepare_reads_every_name_and_its_reports_hold_them(media, tmp_path):
    settings = Settings(seconds=1.0, frames=2, frame_size=32, keep=('still',))
    found = outcomes('folder', media, settings)
    assert sum(not outcome.reason for outcome in found) == len(NAMES)
    total = summary.Summary()
    for outcome in found:
        total.add(outcome)
        assert json.loads(summary.manifest_line(outcome))['id'] == outcome.id
    facts = {'dataset': 'a', 'input': str(media), 'source': 'folder', 'runner': 'x', 'workers': 1}
    report = facts | {'settings': {}, 'shards': 1, 'listing_notes': [], 'shards_of_an_earlier_run': 0}
    report |= total.to_dict()
    write_json(tmp_path / 'report.json', report)
    write_text(tmp_path / 'report.html', render_prepared(report))
    assert 'broken\\udce9.mkv' in (tmp_path / 'report.html').read_text(encoding='utf-8')


@pytest.mark.parametrize('suffix', ['npz', 'parquet'])
def test_features_hold_every_name(tmp_path, suffix):
    ids = [clip_id(os.fsdecode(name), 0.0) for name in NAMES]
    count = len(ids)
    zeros, none = np.zeros(count), np.zeros(count, bool)
    features = Embeddings(ids, zeros, zeros, np.zeros((count, 2), np.float32), None, None, ~none, none, [])
    features.save(tmp_path / f'a.{suffix}')
    if suffix == 'npz':
        with np.load(tmp_path / 'a.npz') as arrays:
            assert arrays['ids'].tolist() == ids
    else:
        assert pyarrow.parquet.read_table(tmp_path / 'a.parquet')['ids'].to_pylist() == ids


def test_standard_output_takes_every_name(monkeypatch):
    """Where it is strict about UTF-8, as in most locales."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(output, encoding='utf-8', errors='strict'))
    print_any_name()
    for name in NAMES:
        say(os.fsdecode(name))
        say(printable(os.fsdecode(name)))
    sys.stdout.flush()
    assert b'mod\\udce0 - 0.mkv\n' in output.getvalue()
