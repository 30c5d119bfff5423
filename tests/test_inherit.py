"""What a run takes over from the run that it starts from."""

import json

import pytest

from diffmavil_jax.config import from_dict, to_dict
from diffmavil_jax.config_tree import ConfigError
from diffmavil_jax.inherit import check_inherited, inherit


@pytest.fixture
def run(tmp_path, tiny):
    """A run's directory, without checkpoints."""
    (tmp_path / 'config.json').write_text(json.dumps(to_dict(tiny())))
    return str(tmp_path)


def values(tiny, run, **changes):
    return json.loads(json.dumps(to_dict(tiny(**changes)))) | {'init': run}


def test_network_and_front_end_are_those_of_the_run(tiny, run):
    changed = values(tiny, run, model={'size': 'Ti'}, audio={'num_mel_bins': 64}, seed=3)
    config = from_dict(inherit(changed, set()))
    assert (config.model.size, config.audio.num_mel_bins, config.seed) == ('demo', 32, 3)
    assert config.video.mean == (0.485, 0.456, 0.406)


def test_nothing_changes_without_init(tiny):
    changed = to_dict(tiny(model={'size': 'Ti'}))
    assert inherit(changed, set()) == changed


def test_a_flag_that_contradicts_is_an_error_with_the_fix(tiny, run):
    changed = values(tiny, run, audio={'front_end': 'cavmae'})
    with pytest.raises(
        ConfigError,
        match=r"config.audio.front_end = 'cavmae': must be 'generated', as in the run .* leave the flag out",
    ):
        inherit(changed, {'audio.front_end'})
    assert inherit(values(tiny, run), {'audio.front_end'})['audio']['front_end'] == 'generated'


def test_a_size_of_frames_may_differ(tiny, run):
    changed = values(tiny, run, data={'frame_size': 24})
    assert inherit(changed, {'data.frame_size'})['data']['frame_size'] == 24
    assert inherit(changed, set())['data']['frame_size'] == 16


def test_no_run_is_an_error(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r'config.init = .*nothing.*: must be the workdir of a run'):
        inherit(values(tiny, str(tmp_path / 'nothing')), set())


def test_a_config_that_was_not_made_from_flags_is_checked_too(tiny):
    ours, theirs = to_dict(tiny()), to_dict(tiny(model={'fusion_layers': 2}))
    check_inherited(ours, ours, 'RUN')
    with pytest.raises(
        ConfigError, match=r"config.model.fusion_layers = 1: must be 2, .* config.init = 'RUN'"
    ):
        check_inherited(ours, theirs, 'RUN')
