"""Files that are written whole, or not at all."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from pathlib import Path
from typing import Any


def set_aside(root: pathlib.Path) -> None:
    """Renames a directory to a sibling that does not exist yet."""
    number = 1
    while (target := root.with_name(f'{root.name}.old-{number}')).exists():
        number += 1
    root.rename(target)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file whole, or not at all."""
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
    temporary.replace(path)


def replace(path: Path, data: bytes) -> None:
    """Puts data in the place of the file in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would hide the page from a web server
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
