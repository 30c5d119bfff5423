"""Tests run on 8 fake CPU devices and compile in haste; this is read before any test imports JAX."""

import importlib.metadata
import os
import shutil
import tempfile

# Most of what a test compiles runs once: this halves the time, to the same numbers but for rounding.
FLAGS = (
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    '--xla_cpu_parallel_codegen_split_count=1',  # a fifth of the time; each process has one core
    '--xla_cpu_enable_concurrency_optimized_scheduler=false',  # see parallel/hosts.py
)
if importlib.metadata.version('jax') < '0.12':  # which ends at a flag that it does not know
    FLAGS += ('--xla_cpu_use_fusion_emitters=false',)

flags = os.environ.get('XLA_FLAGS', '')
os.environ['XLA_FLAGS'] = ' '.join([flags, *(flag for flag in FLAGS if flag.split('=')[0] not in flags)])
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['NPROC'] = '16'  # threads: see parallel/hosts.py
# What one test has compiled, the others read: those of both processes, and the runs that they start.
CACHE = 'JAX_COMPILATION_CACHE_DIR'
MADE_HERE = CACHE not in os.environ
os.environ.setdefault(CACHE, tempfile.mkdtemp(prefix='diffmavil_tests_'))

from tests import annotations  # noqa: E402

annotations.install()

import pytest  # noqa: E402
from absl import logging  # noqa: E402

from diffmavil_jax.config import compute  # noqa: E402
from diffmavil_jax.config.schema import Config, from_dict  # noqa: E402
from diffmavil_jax.parallel.allocator import keep_freed_memory  # noqa: E402

keep_freed_memory()
compute.CPU_UNROLL = 1  # four layers in a row take twice as long to compile, and are the same network


# Those that take minutes begin first, so that the two processes end together.
LONG = (
    'test_main', 'test_overfit', 'test_run', 'test_mesh', 'test_hosts',
    'test_pretraining_objective', 'test_suite', 'test_classification', 'test_notebook',
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_unconfigure():
    if MADE_HERE:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


# 4 audio and 8 video tokens, 2 buckets (16 clips with 1 + 2 visible tokens, 8 with 2 + 3).
TINY = {
    'name': 'tiny',
    'data': {'seconds': 1.0, 'frames': 4, 'frame_size': 16, 'train_clips': 256, 'eval_clips': 32},
    'audio': {'num_mel_bins': 32, 'num_frames': 32, 'patch': 16},
    'video': {'patch': 8, 'patch_frames': 2},
    'model': {
        'size': 'demo',
        'fusion_layers': 1,
        'decoder_width': 32,
        'decoder_layers': 1,
        'decoder_heads': 2,
    },
    'compute': {'scan_unroll': 1},
    'loss': {'inter_weight': 1.0, 'second_view': False},
    'masking': {'start_ratio': 0.9, 'end_ratio': 0.5, 'buckets': 2},
    'batch': {'size': 8, 'max_size': 16, 'multiple': 8},
    'optimizer': {'learning_rate': 1e-3, 'warmup_samples': 16, 'weight_decay': 0.05},
    'train': {'samples': 96, 'log_every_samples': 16},
    'checkpoint': {'every_samples': 48, 'every_minutes': 60.0},
    'evaluation': {
        'every_samples': 48,
        'batch_size': 16,
        'retrieval_clips': 16,
        'reconstruction_clips': 8,
        'probe_train_clips': 32,
        'probe_eval_clips': 24,
        'mask_ratio': 0.5,
    },
    'parallel': {'data': -1, 'fsdp': 1, 'tensor': 1, 'compilation_cache': ''},
}


@pytest.fixture(autouse=True)
def verbosity():
    """A command that is run within a test may make logging quieter; the next test hears all again."""
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture
def unchecked(monkeypatch):
    """Annotations are not checked, so that a function's own check can be seen."""
    monkeypatch.setattr(annotations.jaxtyping.config, 'jaxtyping_disable', True)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """`gs://bucket`, which is this folder."""
    from tests import bucket

    yield bucket.install(monkeypatch, tmp_path / 'buckets')
    bucket.forget()


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A Hub on this machine that `hf://` leads to."""
    from tests import hub

    with hub.serve(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture(scope='session')
def tiny_values():
    """A complete run of seconds, as nested dictionaries; copy before changing."""
    return TINY


@pytest.fixture(scope='session')
def tiny():
    """Makes the tiny config with changes: tiny(batch={'rule': 'fixed'}, seed=3)."""

    def make(**changes) -> Config:
        values = {name: dict(part) if isinstance(part, dict) else part for name, part in TINY.items()}
        for name, change in changes.items():
            values[name] = values.get(name, {}) | change if isinstance(change, dict) else change
        return from_dict(values)

    return make


@pytest.fixture(scope='module')
def one_device():
    """Runs that a test starts in its own process have one of the devices, which takes half the time."""
    import jax

    from diffmavil_jax import experiment
    from diffmavil_jax.parallel.mesh import make_mesh
    from experiments import cells

    with pytest.MonkeyPatch.context() as patch:
        for module in (experiment, cells):
            patch.setattr(module, 'make_mesh', lambda parallel: make_mesh(parallel, jax.devices()[:1]))
        yield


@pytest.fixture(scope='session')
def make_pretrainer():
    """Makes program and batches of a pretraining config on some clips and devices, without evaluation."""
    from diffmavil_jax.config.clips import MODALITIES
    from diffmavil_jax.objectives.pretraining import PretrainingObjective
    from diffmavil_jax.parallel.mesh import make_mesh
    from diffmavil_jax.plan.buckets import make_plan
    from diffmavil_jax.tasks.pretraining import clip_shapes
    from diffmavil_jax.tasks.program import make_batches, make_program
    from diffmavil_jax.tasks.task import Task
    from diffmavil_jax.training.optimizer import make_optimizer

    def make(config, source, devices):
        task = Task(
            objective=PretrainingObjective(config),
            optimizer=make_optimizer(config.optimizer),
            source=source,
            batch=clip_shapes(config, MODALITIES),
            evaluate=lambda params: {},
            best_metric='',
            start=lambda state: state,
            finish=lambda *_: None,
        )
        parts = (config, task, make_plan(config), make_mesh(config.parallel, devices))
        return make_program(*parts), make_batches(*parts)

    return make


@pytest.fixture(scope='session')
def noisy_state():
    """Makes a state of a program whose parameters are all noise, on its mesh.

    Its own initialisation takes as long to compile as a step.
    """
    import dataclasses

    import jax
    import numpy as np

    def make(program):
        rng = np.random.default_rng(0)

        def noise(path, leaf):
            mean = 1.0 if path[-1].key == 'scale' else 0.0
            return (mean + 0.05 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.abstract)
        params = jax.tree_util.tree_map_with_path(noise, program.abstract.params)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, program.abstract)
        return jax.device_put(dataclasses.replace(zeros, params=params), shardings)

    return make


@pytest.fixture(scope='session')
def make_run(tiny, make_pretrainer, noisy_state, tmp_path_factory):
    """Makes the workdir of a tiny run that has made no step yet, with parameters of which none is zero."""
    import jax

    from diffmavil_jax.saved.workdir import open_workdir
    from diffmavil_jax.training.checkpoint import CheckpointStore

    def make(samples=0, **changes):
        config = tiny(**changes)
        directory = open_workdir(tmp_path_factory.mktemp('run') / 'run', config, overwrite=False)
        program, _ = make_pretrainer(config, (), jax.devices()[:1])
        store = CheckpointStore(directory.path / 'checkpoints', keep_latest=1, keep_best=0, best_metric=None)
        store.save(samples, noisy_state(program), {}, block=True)
        store.close()
        return directory.path

    return make


@pytest.fixture(scope='session')
def write_prepared():
    """Writes {split: examples} below a folder; returns the directory of the version."""
    import tensorflow_datasets as tfds  # takes a second, which few tests need

    from diffmavil_jax.data.prepared.format import Metadata, example_features

    tfds.disable_progress_bar()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version('1.0.0')

        def __init__(self, *, name, examples, metadata, **options):
            self.name, self._examples, self._metadata = name, examples, metadata
            super().__init__(file_format='array_record', **options)

        def _info(self):
            metadata = tfds.core.MetadataDict(self._metadata.to_dict())
            return tfds.core.DatasetInfo(builder=self, features=example_features(), metadata=metadata)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in self._examples.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    def write(folder, examples, name='tiny', **metadata):
        values = {'source': 'folder', 'class_names': ('cat', 'dog'), 'seconds': 1.0, 'frames': 8}
        values |= {'frame_size': 32, 'frame_seconds': 1.0, **metadata}
        builder = Builder(name=name, examples=examples, metadata=Metadata(**values), data_dir=folder)
        builder.download_and_prepare()
        return builder.data_dir

    return write
