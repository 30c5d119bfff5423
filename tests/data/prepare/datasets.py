"""Prepares datasets and reads them. Tests that import this are skipped without Beam."""

import pytest
import tensorflow_datasets as tfds
from etils import epath

from diffmavil_jax.data.listings.row import Request
from tests.data.prepare.rows import SMALL

builder = pytest.importorskip(
    'diffmavil_jax.data.prepare.builder', reason='needs apache-beam, the extra build'
)
run = pytest.importorskip('diffmavil_jax.data.prepare.run', reason='needs apache-beam, the extra build')


def prepare(source, root, output, settings=SMALL, *, workers=1, lines=None, **changes):
    request = Request(epath.Path(root), eval_fraction=changes.pop('eval_fraction', 0.1))
    return run.prepare(
        source,
        request,
        settings,
        output=epath.Path(output),
        name=changes.pop('name', source),
        runner=builder.Runner(workers=workers),
        say=(lines if lines is not None else []).append,
        **changes,
    )


def examples(folder):
    """Everything in a prepared dataset: split -> list of examples."""
    reader = tfds.builder_from_directory(str(folder))
    return {split: list(reader.as_data_source(split)) for split in reader.info.splits}
