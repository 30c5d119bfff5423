"""A bucket that is a folder: for fsspec, and for TensorStore's driver of Cloud Storage.

It keeps whole objects, creates one only where none is if asked to, and can't append.
"""

import pathlib
import sys

from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from diffmavil_jax.saved import workdir

REGISTRY = sys.modules['fsspec.registry']._registry  # `fsspec.registry` is a mapping, too


class FolderOfBuckets(DirFileSystem):
    """Cloud Storage whose buckets are folders below `root`."""

    protocol = ('gs', 'gcs')
    cachable = False
    root = ''

    def __init__(self, **_):
        super().__init__(path=self.root, fs=LocalFileSystem(auto_mkdir=True, skip_instance_cache=True))

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix('gs://').removeprefix('gcs://').rstrip('/')

    def pipe_file(self, path, value, mode='overwrite', **_):
        target = pathlib.Path(self._join(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, 'xb' if mode == 'create' else 'wb') as file:
            file.write(value)

    def open(self, path, mode='rb', **named):
        if 'a' in mode or '+' in mode:
            raise NotImplementedError('a bucket has no appending')
        return super().open(path, mode, **named)


def forget() -> None:
    """Has epath look up anew what reaches a bucket."""
    backend.fsspec_backend._get_filesystem.cache_clear()


def install(monkeypatch, root: pathlib.Path) -> pathlib.Path:
    """Has `gs://bucket` be a folder until the end of a test; returns it."""
    folder = root / 'bucket'
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(FolderOfBuckets, 'root', str(root))
    for protocol in FolderOfBuckets.protocol:
        monkeypatch.setitem(REGISTRY, protocol, FolderOfBuckets)
    forget()
    monkeypatch.setattr(workdir, '_BUCKET_PACKAGES', ())

    def spec(path):
        end = '' if str(path).endswith('/_sharding') else '/'  # the one file, the others are folders
        return {'driver': 'file', 'path': f'{root}/{str(path).removeprefix("gs://")}{end}'}

    if hasattr(gcs_utils, 'get_kvstore_for_gcs'):
        monkeypatch.setattr(gcs_utils, 'get_kvstore_for_gcs', spec)
    else:  # before Orbax 0.12.8
        monkeypatch.setattr(tensorstore_utils, '_get_kvstore_for_gcs', spec)
    monkeypatch.setattr(gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False)
    return folder
