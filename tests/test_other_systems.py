"""What a laptop may lack, such as memfd, /proc, fork or hard links, has a fallback."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILM = ROOT / 'tests' / 'data' / 'media' / 'spring_0004.mp4'

# Python reads it when it starts, in the worker processes as well.
WITHOUT_LINUX = """
import ctypes, os, resource

def refuse(*_, **__):
    raise OSError('not on this system')

def is_there(path, real=os.path.isdir):
    return not str(path).startswith('/proc') and real(path)

for name in ('memfd_create', 'sched_getaffinity', 'posix_fadvise'):
    if hasattr(os, name):
        delattr(os, name)
os.link = os.readlink = os.fork = refuse
os.path.isdir = is_there
resource.setrlimit = lambda *_: (_ for _ in ()).throw(ValueError('current limit exceeds maximum limit'))
ctypes.CDLL = lambda *_: object()
"""

BEGIN = 'import os, pathlib, sys\nassert not hasattr(os, "memfd_create")\n'
DECODE = f"""
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.sandbox import DecodePool
with DecodePool(workers=1) as pool:
    sound, pictures = pool.decode({str(FILM)!r}, 0.0, ClipSpec(16_000, 0.5, 2, 32))
assert sound.shape == (8_000,) and sound.std() > 0 and pictures.shape == (2, 32, 32, 3)
"""
LOCK = """
import subprocess
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage.lock import locked
path = pathlib.Path('lock')
with locked(path, 'it is in use', '', print):
    assert path.exists()
    take = 'import pathlib, sys; from diffmavil_jax.storage.lock import locked\\n'
    take += f'with locked(pathlib.Path({str(path)!r}), "it is in use", "", print): pass'
    other = subprocess.run([sys.executable, '-c', take], capture_output=True, text=True)
    assert other.returncode and 'it is in use' in other.stderr, other
assert not path.exists()
"""
WRITE = """
from diffmavil_jax.atomic import write_bytes
path = pathlib.Path('file')
write_bytes(path, b'first', overwrite=False)
write_bytes(path, b'second')
try:
    write_bytes(path, b'third', overwrite=False)
except FileExistsError:
    pass
assert path.read_bytes() == b'second' and os.listdir() == ['file']
"""
ALLOCATE = """
from diffmavil_jax.parallel.allocator import keep_freed_memory
assert not keep_freed_memory()
"""


@pytest.mark.parametrize('code', [DECODE, LOCK, WRITE, ALLOCATE], ids=['decode', 'lock', 'write', 'allocate'])
def test_without_what_only_linux_has(code, tmp_path):
    (tmp_path / 'start').mkdir()
    (tmp_path / 'start' / 'sitecustomize.py').write_text(WITHOUT_LINUX)
    (tmp_path / 'work').mkdir()
    done = subprocess.run(
        [sys.executable, '-c', BEGIN + code],
        env={'PYTHONPATH': f'{tmp_path / "start"}:{ROOT}', 'PATH': '/usr/bin:/bin'},
        cwd=tmp_path / 'work',
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
