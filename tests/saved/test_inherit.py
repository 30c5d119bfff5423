"""Which config fields a run takes over from the run that it starts from."""

import dataclasses
import json

import pytest

from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.inherit import check_inherited, inherit, other_front_end, read_config


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


def test_a_classifier_may_take_another_front_end_and_is_told_what_differs(tiny, run):
    changed = values(tiny, run, objective='classification', audio={'front_end': 'audiomae_esc50'})
    config = from_dict(inherit(changed, {'audio.front_end'}))
    assert config.audio.front_end == 'audiomae_esc50'
    check_inherited(to_dict(config), read_config(run), run)
    said = other_front_end(config)
    assert "'audiomae_esc50' (mean -6.627, deviation 2 x 5.358" in said
    assert "'generated' (mean -7.748, deviation 1 x 3.681" in said
    unsaid = from_dict(inherit(changed, set()))
    assert unsaid.audio.front_end == 'generated' and not other_front_end(unsaid)
    sees = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, modality='video'))
    assert not other_front_end(sees)


def test_a_front_end_of_other_patches_fits_no_classifier(tiny, run):
    changed = values(
        tiny,
        run,
        objective='classification',
        audio={'front_end': 'audiomae_esc50', 'num_mel_bins': 64},
    )
    with pytest.raises(ConfigError, match='config.audio.num_mel_bins = 64: must be 32, as in the run'):
        inherit(changed, {'audio.front_end', 'audio.num_mel_bins'})


def test_other_objectives_keep_the_front_end_and_say_why(tiny, run):
    changed = values(tiny, run, audio={'front_end': 'cavmae'})
    with pytest.raises(ConfigError, match='Only a classifier .* may learn from another front end'):
        inherit(changed, {'audio.front_end'})
    with pytest.raises(ConfigError, match='Only a classifier'):
        check_inherited(changed, read_config(run), run)


def test_a_size_of_frames_may_differ(tiny, run):
    changed = values(tiny, run, data={'frame_size': 24})
    assert inherit(changed, {'data.frame_size'})['data']['frame_size'] == 24
    assert inherit(changed, set())['data']['frame_size'] == 16


def test_no_run_is_an_error(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r'nothing.*: must be the workdir of a run'):
        inherit(values(tiny, str(tmp_path / 'nothing')), set())


def test_a_config_that_was_not_made_from_flags_is_checked_too(tiny):
    ours, theirs = to_dict(tiny()), to_dict(tiny(model={'fusion_layers': 2}))
    check_inherited(ours, ours, 'RUN')
    with pytest.raises(
        ConfigError, match=r"config.model.fusion_layers = 1: must be 2, .* config.init = 'RUN'"
    ):
        check_inherited(ours, theirs, 'RUN')


def test_fields_that_came_later_have_their_defaults(tiny, run, tmp_path):
    old = json.loads((tmp_path / 'config.json').read_text())
    del old['model']['positions'], old['model']['class_token'], old['checkpoint']
    (tmp_path / 'config.json').write_text(json.dumps(old))
    read = from_dict(read_config(run))
    assert (read.model, read.checkpoint) == (tiny().model, Config().checkpoint)
    changed = values(tiny, run, model={'positions': 'stored', 'class_token': False})
    config = from_dict(inherit(changed, set()))
    assert (config.model.positions, config.model.class_token) == ('sincos', True)


def test_what_has_one_encoder_decides_nothing_about_the_other(tiny, run, tmp_path):
    (tmp_path / 'card.json').write_text(json.dumps({'parts': ['encoder_video', 'video_pool_norm']}))
    changed = values(
        tiny,
        run,
        model={'size': 'Ti', 'fusion_layers': 3},
        audio={'num_mel_bins': 64},
        video={'patch': 4},
    )
    config = from_dict(inherit(changed, {'audio.num_mel_bins'}))
    assert (config.model.size, config.video.patch) == ('demo', 8)
    assert (config.model.fusion_layers, config.audio.num_mel_bins) == (3, 64)
    check_inherited(to_dict(config), read_config(run), run)
    with pytest.raises(ConfigError, match=r'config.video.patch = 4: must be 8'):
        inherit(changed, {'video.patch'})


def test_a_card_that_is_broken_is_named(tiny, run, tmp_path):
    (tmp_path / 'card.json').write_text('{')
    with pytest.raises(ConfigError, match='card.json: must be readable as JSON'):
        inherit(values(tiny, run), set())
