"""The cache of compiled programs, and what XLA is told to keep beside them."""

import jax
import pytest

from diffmavil_jax.parallel.compilation_cache import use_compilation_cache

OPTIONS = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
    'jax_persistent_cache_min_entry_size_bytes',
)


@pytest.fixture
def restored():
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def autotune_directory():
    """As JAX gives it to XLA with a program."""
    compiler = pytest.importorskip('jax._src.compiler')
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)  # owns what it refers to
    return options.executable_build_options.debug_options.xla_gpu_per_fusion_autotune_cache_dir


def test_xla_keeps_what_it_tuned_in_the_same_directory(tmp_path, restored):
    path = tmp_path / 'cache'
    use_compilation_cache(str(path))
    assert path.is_dir()
    assert autotune_directory().startswith(f'{path}/')


def test_without_a_path_there_is_none(restored):
    jax.config.update('jax_compilation_cache_dir', None)
    use_compilation_cache('')
    assert jax.config.jax_compilation_cache_dir is None
    assert not autotune_directory()


def test_a_path_that_can_not_be_written_is_said(tmp_path, restored, caplog):
    jax.config.update('jax_compilation_cache_dir', None)
    (tmp_path / 'file').write_text('')
    with caplog.at_level('WARNING'):
        use_compilation_cache(str(tmp_path / 'file' / 'cache'))
    assert 'can not be written' in caplog.text
    assert jax.config.jax_compilation_cache_dir is None
