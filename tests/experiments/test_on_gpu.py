"""The report of `experiments.on_gpu`, without a GPU."""

import pytest

from experiments import gpu_cells, on_gpu, stepping


def test_the_report_compares_methods_and_names_what_failed():
    step = {'batch': 64, 'step ms': 100.0, 'clips/s': 640.0, 'GMAC a clip': 90.0}
    results = {
        'device': {'device': '1 x H100', 'attention': 'cudnn: a trial of it gave the right numbers'},
        'step mavil': step | {'kernels': [['gemm', 12.5, 40.0, 3]]},
        'step diffmavil_fast': step | {'step ms': 40.0, 'GMAC a clip': 30.0},
        'torch mavil': {'clips/s': 320.0, 'step ms': 200.0},
        'demo': {'failed': 'no disk'},
    }
    text = on_gpu.report(results)
    assert '- attention: cudnn' in text
    assert 'diffmavil_fast saves 66.7% of the multiply-accumulates and 60.0% of the time' in text
    assert 'MAViL: 2.00 times torch mavil.' in text
    assert '| gemm | 12.5 | 40 | 3 |' in text
    assert 'demo failed:\n```\nno disk' in text


def test_a_cell_that_fails_says_why_and_one_that_takes_too_long_is_ended():
    assert "invalid choice: 'nothing'" in on_gpu.measure('nothing', 'demo', 60.0)['failed']
    assert on_gpu.measure('device', 'demo', 0.01)['failed'] == 'ended after 0 s'


def test_every_cell_is_about_a_method_the_device_or_the_demo():
    assert list(gpu_cells.CELLS)[0] == 'device'
    config = gpu_cells.one_bucket('diffmavil_fast', 'audioset', 64)
    assert (config.batch.size, config.masking.buckets, config.compute.dtype) == (64, 1, 'bfloat16')


@pytest.mark.parametrize(
    ('text', 'value'), [('2', 2), ('0.5', 0.5), ('false', False), ('True', True), ('cross', 'cross')]
)
def test_changes_of_a_config_may_be_numbers_and_truths(text, value):
    assert stepping.parse(text) == value
    if isinstance(value, bool):
        assert stepping.load('mavil', 'demo', [f'model.class_token={text}']).model.class_token is value
