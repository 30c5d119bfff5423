"""Which shards a user means, and which splits their names tell."""

from __future__ import annotations

import itertools
import math
import os
import posixpath
import re
from collections.abc import Iterator, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import paths
from diffmavil_jax.data.shards.opening import file_system

_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)', re.ASCII)
_GLOB = re.compile(r'[*?\[]')
_MAX_SHARDS = 1_000_000
# Words that name a split: those that Hugging Face looks for in the names of files.
_SPLITS = frozenset(
    ('train', 'training', 'validation', 'valid', 'val', 'dev', 'test', 'testing', 'eval', 'evaluation')
)
_AUDIOSET = {'bal_train': 'balanced_train', 'unbal_train': 'unbalanced_train'}
_NUMBERED = re.compile(r'(?P<split>\w[\w.]*)-\d+-of-\d+', re.ASCII)


def find_shards(given: str, suffixes: Sequence[str]) -> tuple[str, list[str]]:
    """The folder of the shards that a user means, and their paths below it, sorted.

    Args:
        given: a folder, of which all files with the suffixes count; a file; a glob (`*`, `?`, `**`); or a
            list in braces, such as `shard-{000000..000099}.tar`. Any of them may begin with a URL's
            `gs://`, `s3://` or `hf://`.
        suffixes: of shards, in lower case.

    Raises:
        DataError: there are none, or the folder can't be read.
    """
    system, path = file_system(given)
    if system.isdir(path):
        names = [name for name in paths.files(epath.Path(given)) if name.lower().endswith(tuple(suffixes))]
        if not names:
            raise DataError(
                f'No shards in --input={printable(given)}: looked in it and below for names that end in '
                f'{", ".join(suffixes)}.'
            )
        return given, names
    if system.isfile(path):
        found = [path]
    else:
        patterns = list(expand_braces(path))
        found = sorted({name for p in patterns for name in (system.glob(p) if _GLOB.search(p) else [p])})
    if not found or (found == [path] and not system.isfile(path)):
        raise DataError(
            f'--input={printable(given)}: no file has such a name. It must be a folder, a file, a glob or a '
            'list such as shard-{000000..000099}.tar.'
        )
    root = posixpath.commonpath([posixpath.dirname(name) for name in found])
    shards = [posixpath.relpath(name, root) if root else name for name in found]
    return (root if '://' not in given else system.unstrip_protocol(root)), shards


def expand_braces(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: `{00..12}` counts, with zeros as written, and `{a,b}` lists.

    Raises:
        DataError: they are too many, or a range runs backwards.
    """
    parts = _BRACES.split(pattern)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    if math.prod(map(len, choices)) > _MAX_SHARDS:
        raise DataError(f'--input={printable(pattern)}: must be at most {_MAX_SHARDS:,} shards.')
    return map(''.join, itertools.product(*choices))


def split_of(shard: str) -> str | None:
    """The split that the path of a shard names, such as `data/train-00000-of-00010.parquet`; None: none.

    It is what is before `-00000-of-00010`; or else the name without its number, or the innermost folder,
    that has the name of a split among its words. AudioSet's `bal_train` and `unbal_train` are its
    balanced_train and unbalanced_train.
    """
    *folders, name = shard.split('/')
    stem = name.split('.')[0]
    if numbered := _NUMBERED.fullmatch(stem):
        return _spelt(numbered['split'])
    for text in (re.sub(r'[-_]*\d+$', '', stem), *reversed(folders)):
        if not _SPLITS.isdisjoint(re.split(r'[^a-z]+', text.lower())):
            return _spelt(text)
    return None


def _spelt(split: str) -> str:
    """The name of a split as TFDS accepts it."""
    split = re.sub(r'\W', '_', split, flags=re.ASCII)
    return _AUDIOSET.get(split, split)


def _choices(text: str) -> list[str]:
    if (found := _RANGE.fullmatch(text)) is None:
        return text.split(',')
    first, last = found.groups()
    if not 0 <= int(last) - int(first) < _MAX_SHARDS:
        raise DataError(
            f'--input: {{{text}}}: must be a range that counts up, of at most {_MAX_SHARDS:,} shards.'
        )
    return [f'{i:0{len(first)}d}' for i in range(int(first), int(last) + 1)]


def file_name(root: str, shard: str) -> str:
    """A shard in messages: its path, which can be opened."""
    return printable(os.path.join(root, shard))
