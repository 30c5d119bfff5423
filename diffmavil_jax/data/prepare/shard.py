"""Makes one shard of a prepared dataset: decodes its rows and writes their examples."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from diffmavil_jax.atomic import replacing
from diffmavil_jax.data.prepare.clips import Clips
from diffmavil_jax.data.prepare.work import Outcome, Work
from diffmavil_jax.data.prepared.format import example_features
from diffmavil_jax.data.sandbox import DecodePool

# Groups of one example, for random access. Nothing is compressed: neither JPEG nor sound would get smaller.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


def make_shard(index: int, folder: str) -> None:
    """Makes a shard of the work in a folder, unless it is done already. Runs in any worker of Beam."""
    work = _open(folder)
    if work.is_done(index):
        return
    outcomes: list[Outcome] = []
    num_bytes = 0
    data = work.data_path(index)
    with replacing(data) as path:
        writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
        for outcome, example in Clips(work.job, _pool()).of_rows(work.rows(index)):
            if example is not None:
                record = _features().serialize_example(example)
                writer.write(record)
                num_bytes += len(record)
                outcome = dataclasses.replace(outcome, num_bytes=len(record))
            outcomes.append(outcome)
        writer.close()
    work.finish(index, data, num_bytes, outcomes)


@functools.cache
def _open(folder: str) -> Work:
    return Work(epath.Path(folder))


@functools.cache
def _pool() -> DecodePool:
    """One process that decodes. This one writes; together they keep a core busy."""
    return DecodePool(workers=1)


@functools.cache
def _features() -> tfds.features.FeaturesDict:
    return example_features()
