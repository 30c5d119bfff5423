"""`--fit_batch`: the largest batches that a memory holds."""

import dataclasses
import math

import pytest

from diffmavil_jax import fit_batch
from diffmavil_jax.config import from_dict, to_dict
from diffmavil_jax.config_tree import ConfigError
from diffmavil_jax.fit_batch import largest
from diffmavil_jax.training.plan import make_plan

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

    found = largest(counted, budget, 8, most)
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
    peaks = {}
    compile_step = fit_batch.compile_step

    def noted(program, bucket, index, chips):
        compiled = compile_step(program, bucket, index, chips)
        peaks[index, bucket.batch_size] = compiled.peak / GIB
        return compiled

    monkeypatch.setattr(fit_batch, 'compile_step', noted)
    said = []
    everything = fit_batch.run(config, 100.0, None, said.append)
    assert everything == [64, 64]
    budget = (peaks[1, 64] + peaks[1, 8]) / 2
    peaks.clear()
    sizes = fit_batch.run(config, budget, None, said.append)
    assert 8 <= sizes[1] < 64 and sizes[0] >= sizes[1]
    assert all(peak <= budget or batch > sizes[index] for (index, batch), peak in peaks.items())
    assert f'{sizes[1]} clips' in said[-1]
    peaks.clear()
    assert fit_batch.run(config, budget, None, said.append) == sizes
    assert not peaks

    values = to_dict(config)
    values['batch'] |= {'rule': 'listed', 'sizes': ','.join(map(str, sizes))}
    plan = make_plan(from_dict(values))
    assert [bucket.batch_size for bucket in plan.buckets] == sizes


def test_a_memory_that_holds_nothing_is_refused_with_what_is_needed(config):
    with pytest.raises(ConfigError, match=r'even 8 clips need [\d.]+ MiB'):
        fit_batch.run(config, 1e-6, None, print)
    with pytest.raises(ConfigError, match='must be a positive number'):
        fit_batch.run(config, 0.0, None, print)
    classifier = dataclasses.replace(config, objective='classification')
    with pytest.raises(ConfigError, match='objective=pretraining'):
        fit_batch.run(classifier, 1.0, None, print)
