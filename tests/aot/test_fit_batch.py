"""`--fit_batch`: the largest batches that fit a memory."""

import dataclasses
import json
import math
import os

import pytest

from diffmavil_jax.aot import fit_batch
from diffmavil_jax.aot.compiled import Compiled
from diffmavil_jax.aot.fit_batch import largest_within
from diffmavil_jax.config.schema import from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.plan.buckets import make_plan

GIB = 2**30


@pytest.mark.parametrize('most', [8, 64, 1_000, 4_096])
@pytest.mark.parametrize('budget', [50.0, 107.0, 108.0, 777.0, 5_000.0, 1e9])
@pytest.mark.parametrize(
    'peak',
    [
        lambda batch: 100.0 + batch,
        lambda batch: 90.0 + 3.7 * batch + 40 * (batch > 100),  # a jump
        lambda batch: math.inf if batch > 300 else 10.0 + batch,  # the compiler refuses
        lambda batch: 5.0 + 0.001 * batch**2,
    ],
)
def test_the_largest_that_fits_is_found_with_few_trials(peak, budget, most):
    tried = []

    def counted(batch):
        tried.append(batch)
        return peak(batch)

    found = largest_within(counted, budget, 8, most)
    assert found == max((b for b in range(8, most + 1, 8) if peak(b) <= budget), default=0)
    assert len(tried) == len(set(tried)) <= 5 + math.ceil(math.log2(most // 8 + 1))


@pytest.fixture
def config(tiny, tmp_path):
    return tiny(
        masking={'curriculum': 'linear', 'buckets': 2},
        batch={'max_size': 64, 'multiple': 8},
        parallel={'data': 8, 'compilation_cache': str(tmp_path / 'cache')},
    )


def test_the_sizes_fit_the_next_ones_do_not_and_a_second_search_compiles_nothing(config, monkeypatch):
    compiled = []

    def compile_step(program, bucket, index, chips):
        """A step that needs 1 GiB, and 10 MiB for each visible token of each clip on a device."""
        compiled.append((index, bucket.batch_size))
        needed = GIB + 10 * 2**20 * (bucket.audio_tokens + bucket.video_tokens) * bucket.batch_size // chips
        return Compiled(bucket.batch_size, bucket.mask_ratio, temporaries=needed)

    monkeypatch.setattr(fit_batch, 'compile_step', compile_step)
    said = []
    assert fit_batch.largest_batches(config, 100.0, None, said.append) == [64, 64]
    compiled.clear()
    tokens = [bucket.audio_tokens + bucket.video_tokens for bucket in make_plan(config).buckets]
    sizes = fit_batch.largest_batches(config, 1.2, None, said.append)
    # Each of 8 devices holds an eighth of the clips; 0.2 GiB are 204.8 MiB.
    assert sizes == [8 * int(20.48 // count) for count in tokens]
    assert set(compiled) >= {(index, size) for index, size in enumerate(sizes)}
    assert f'{sizes[1]} clips' in said[-1]
    compiled.clear()
    assert fit_batch.largest_batches(config, 1.2, None, said.append) == sizes
    assert not compiled

    values = to_dict(config)
    values['batch'] |= {'rule': 'listed', 'sizes': ','.join(map(str, sizes))}
    plan = make_plan(from_dict(values))
    assert [bucket.batch_size for bucket in plan.buckets] == sizes


@pytest.fixture
def trials(monkeypatch):
    """The batch sizes that were compiled; a clip needs 10 MiB."""
    compiled = []

    def compile_step(program, bucket, index, chips):
        compiled.append(bucket.batch_size)
        return Compiled(bucket.batch_size, bucket.mask_ratio, temporaries=10 * 2**20 * bucket.batch_size)

    monkeypatch.setattr(fit_batch, 'program_without_data', lambda *_: None)
    monkeypatch.setattr(fit_batch, 'compile_step', compile_step)
    return compiled


def test_without_a_cache_no_step_is_compiled_twice_in_a_search(config, trials):
    config = dataclasses.replace(
        config,
        parallel=dataclasses.replace(config.parallel, compilation_cache=''),
        masking=dataclasses.replace(config.masking, curriculum='none'),
    )
    fit_batch.largest_batches(config, 0.3, None, print)
    assert len(trials) == len(set(trials)) > 1


@pytest.mark.parametrize(
    ('section', 'field', 'value', 'again'),
    [
        ('masking', 'contrast_power', 1.0, True),
        ('optimizer', 'clip_norm', 1.0, True),
        ('optimizer', 'b2', 0.99, True),
        ('loss', 'second_view', True, True),
        ('train', 'log_every_samples', 77, False),
        ('evaluation', 'batch_size', 3, False),
    ],
)
def test_what_changes_a_step_is_compiled_again(config, trials, section, field, value, again):
    fit_batch.largest_batches(config, 0.3, None, print)
    trials.clear()
    values = to_dict(config)
    assert values[section][field] != value
    values[section][field] = value
    fit_batch.largest_batches(from_dict(values), 0.3, None, print)
    assert bool(trials) == again


def test_another_teacher_is_compiled_again_even_at_the_same_place(config, trials, tmp_path):
    student = dataclasses.replace(config, objective='stage2', teacher=str(tmp_path))
    teacher = to_dict(config)

    def search():
        trials.clear()
        (tmp_path / 'config.json').write_text(json.dumps(teacher))
        fit_batch.largest_batches(student, 0.3, None, print)
        return len(trials)

    assert search() and not search()
    teacher['model']['fusion_layers'] += 1
    assert search() and not search()


def test_files_of_known_memory_are_whole_or_not_there(config, trials, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(KeyboardInterrupt):
        fit_batch.largest_batches(config, 0.3, None, print)
    monkeypatch.undo()
    assert not list(tmp_path.rglob('*.json'))


def test_a_memory_that_holds_nothing_is_refused_with_what_is_needed(config, monkeypatch):
    monkeypatch.setattr(fit_batch, 'compile_step', lambda *_: Compiled(8, 0.5, temporaries=7 * 2**20))
    with pytest.raises(ConfigError, match=r'even 8 clips need 7\.0 MiB'):
        fit_batch.largest_batches(config, 1e-6, None, print)
    with pytest.raises(ConfigError, match='must be a positive number'):
        fit_batch.largest_batches(config, 0.0, None, print)
    classifier = dataclasses.replace(config, objective='classification')
    with pytest.raises(ConfigError, match='objective=pretraining'):
        fit_batch.largest_batches(classifier, 1.0, None, print)
