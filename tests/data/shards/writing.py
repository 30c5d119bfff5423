"""Writes small shards: tars and Parquet files."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq


def tar(path, members, *, mode='w'):
    """A tar of (name, bytes or text) in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def parquet(path, columns, *, features=None, schema=None, **options):
    """A Parquet file of column -> values, with Hugging Face's metadata if there are features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns, schema=schema)
    if features:
        table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': features}})})
    pq.write_table(table, path, **options)
    return path


def held(data, path='x.wav'):
    """A value of Hugging Face's columns of media."""
    return {'bytes': data, 'path': path}
