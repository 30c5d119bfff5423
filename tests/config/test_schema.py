"""The schema: what it refuses, what it says then, and that it survives a round trip."""

import json

import pytest

from diffmavil_jax.config.schema import Config, field_type, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError


def nested(path: str, value) -> dict:
    """{'a': {'b': value}} for 'a.b'."""
    for name in reversed(path.split('.')):
        value = {name: value}
    return value


def merged(*parts: dict) -> dict:
    result: dict = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if both else value
    return result


def build(**fields) -> Config:
    """A config from fields whose dots are written as two underscores."""
    return from_dict(merged({}, *(nested(name.replace('__', '.'), value) for name, value in fields.items())))


def refusal(**fields) -> str:
    with pytest.raises(ConfigError) as caught:
        build(**fields)
    return str(caught.value)


def test_the_defaults_are_valid_and_the_round_trip_changes_nothing():
    config = Config()
    assert from_dict(to_dict(config)) == config
    changed = build(seed=7, model__size='S', video__mean=(0.1, 0.2, 0.3), data__path='a b')
    assert changed != config
    assert from_dict(to_dict(changed)) == changed
    # As config.json, where tuples become lists.
    assert from_dict(json.loads(json.dumps(to_dict(changed)))) == changed


@pytest.mark.parametrize(
    ('path', 'suggestion'),
    [
        ('batch.sise', 'config.batch.size'),
        ('bach', 'config.batch'),
        ('model.audio_decode', 'config.model.audio_decoder'),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(path, suggestion):
    with pytest.raises(ConfigError) as caught:
        from_dict(nested(path, 3))
    assert str(caught.value) == f'config.{path}: no such field. Did you mean {suggestion}?'
    if '.' in path:
        with pytest.raises(ConfigError, match='no such field. Did you mean'):
            field_type(f'config.{path}')


def test_an_unknown_field_that_resembles_none_gets_the_known_ones():
    assert refusal(batch__zzz=1).startswith('config.batch.zzz: no such field. Known: size, rule, sizes')


def test_field_type_names_types_and_refuses_a_path_through_a_number():
    assert field_type('config.batch.size') == 'int'
    assert field_type('config.loss.second_view') == 'bool'
    assert field_type('config.batch') == 'section with fields'
    assert 'tuple' in field_type('config.video.mean')
    with pytest.raises(
        ConfigError, match=r'config.batch.size.x: no such field; config.batch.size is of type int'
    ):
        field_type('config.batch.size.x')


@pytest.mark.parametrize(
    ('path', 'value', 'kind'),
    [
        ('batch.size', 'abc', 'int'),
        ('batch.size', 32.0, 'int'),
        ('batch.size', True, 'int'),
        ('data.seconds', True, 'float'),
        ('data.seconds', '2', 'float'),
        ('data.path', 3, 'str'),
        ('loss.second_view', 1, 'bool'),
        ('seed', None, 'int'),
    ],
)
def test_a_wrong_type_is_refused(path, value, kind):
    with pytest.raises(ConfigError) as caught:
        from_dict(nested(path, value))
    assert str(caught.value) == f'config.{path} = {value!r}: must be of type {kind}.'


def test_a_section_must_be_a_section():
    assert refusal(batch=3) == 'config.batch = 3: must be a section with fields.'


def test_an_int_does_for_a_float():
    seconds = build(data__seconds=3).data.seconds
    assert seconds == 3.0
    assert type(seconds) is float


def test_tuples_are_checked_by_length_and_type():
    assert build(video__std=[1, 2, 0.5]).video.std == (1.0, 2.0, 0.5)
    assert refusal(video__std=[1.0, 2.0]) == 'config.video.std = [1.0, 2.0]: must be 3 numbers.'
    assert refusal(video__std=0.5) == 'config.video.std = 0.5: must be 3 numbers.'
    assert 'config.video.std' in refusal(video__std=(0.1, 'x', 0.2))
    assert refusal(video__std=(0.1, 0.0, 0.2)).endswith('must be three positive numbers.')


RATIOS = [
    'masking.start_ratio',
    'masking.end_ratio',
    'evaluation.mask_ratio',
    'data.eval_fraction',
    'optimizer.b1',
]


@pytest.mark.parametrize('path', RATIOS)
@pytest.mark.parametrize('value', [-0.1, 0.0, 1.0, 1.5, float('nan')])
def test_ratios_lie_strictly_between_0_and_1(path, value):
    with pytest.raises(ConfigError) as caught:
        from_dict(nested(path, value))
    assert str(caught.value) == f'config.{path} = {value!r}: must be a number between 0 and 1, both excluded.'


@pytest.mark.parametrize('path', RATIOS)
def test_ratios_inside_are_fine(path):
    section, field = path.split('.')
    assert getattr(getattr(from_dict(nested(path, 0.5)), section), field) == 0.5


ONE_FIELD = [
    ('data.source', 'tape', "one of 'generated', 'folder', 'tfds'"),
    ('data.difficulty', 'trivial', "one of 'easy', 'medium', 'hard'"),
    ('data.frames', 0, 'at least 1'),
    ('data.sample_rate', 10, 'at least 1000'),
    ('data.seconds', 0.0, 'from 0.2 to 3600'),
    ('data.max_bad_fraction', 1.1, 'a share from 0 to 1'),
    ('data.cache_gb', -1.0, 'at least 0'),
    ('data.workers', -1, 'at least 0'),
    ('data.train_split', ' ,', 'at least one split'),
    ('data.weights', '2,x', 'positive numbers separated by commas'),
    ('data.weights', '0,1', 'positive numbers separated by commas'),
    ('data.weights', '2,1', 'with data.source=tfds'),
    ('data.video_seconds', 3.0, 'at most data.seconds (2), or 0'),
    ('data.video_seconds', -1.0, 'at least 0'),
    ('augmentation.crop_min_area', 0.0, 'a share above 0, up to 1'),
    ('augmentation.crop_max_aspect', 0.9, 'at least 1'),
    ('augmentation.flip', 1.5, 'a share from 0 to 1'),
    ('augmentation.roll', True, 'false where pictures last as long as the sound (2 s)'),
    ('finetune.spec_augment_fill', 'noise', "one of 'mean', 'zero'"),
    ('audio.front_end', 'loud', "'audiomae'"),
    ('audio.patch', 0, 'at least 1'),
    ('audio.num_mel_bins', 100, 'a positive multiple of patch (16)'),
    ('audio.num_frames', 0, 'a positive multiple of patch (16)'),
    ('video.patch_frames', 0, 'at least 1'),
    ('model.positions', 'learnt', "one of 'sincos', 'stored'"),
    ('model.size', 'XXL', "one of 'demo', 'Ti', 'S', 'B', 'L'"),
    ('compute.dtype', 'float16', "one of 'float32', 'bfloat16'"),
    ('batch.sizes', '8,x', 'positive whole numbers'),
    ('batch.sizes', '8,16', 'empty with others'),
    ('optimizer.epsilon', 0.0, 'greater than 0'),
    ('compute.attention', 'flash', "one of 'auto', 'xla', 'cudnn'"),
    ('compute.attention', 'cudnn', 'xla with dtype=float32'),
    ('model.decoder_width', 40, 'a positive multiple of decoder_heads (16)'),
    ('model.audio_decoder', 'both', "one of 'self', 'cross', 'cross_self'"),
    ('compute.scan_unroll', -1, 'at least 0'),
    ('model.decoded_fraction', 0.0, 'a share above 0, up to 1'),
    ('diffusion.schedule', 'sine', "one of 'linear', 'cosine'"),
    ('diffusion.target', 'x1', "one of 'x0', 'eps', 'v'"),
    ('diffusion.conditioning', 'film', "one of 'none', 'add', 'adaln'"),
    ('diffusion.rho', 0.0, 'a number above 0, up to 2'),
    ('masking.curriculum', 'steep', "one of 'none', 'linear', 'cosine'"),
    ('masking.buckets', 0, 'at least 1'),
    ('masking.token_multiple', 0, 'at least 1'),
    ('masking.contrast_power', -0.5, 'from 0 to 8'),
    ('batch.rule', 'big', "one of 'fixed', 'visible_tokens', 'macs'"),
    ('batch.lr_scaling', 'cubic', "one of 'none', 'sqrt', 'linear'"),
    ('batch.size', 100, 'a positive multiple of batch.multiple (8)'),
    ('batch.size', 0, 'a positive multiple of batch.multiple (8)'),
    ('loss.inter_temperature', 0.0, 'at least 0.0001'),
    ('loss.inter_kind', 'siglip', "one of 'info_nce', 'sigmoid'"),
    ('loss.sigmoid_bias', float('inf'), 'a finite number'),
    ('loss.audio_weight', -1.0, 'at least 0'),
    ('loss.video_weight', float('inf'), 'at least 0'),
    ('optimizer.learning_rate', float('nan'), 'at least 0'),
    ('train.samples', 0, 'at least 1'),
    ('train.samples', 2**31, 'below 2**31'),
    ('train.max_nonfinite_steps', 0, 'at least 1'),
    ('checkpoint.every_minutes', 0.0, 'a positive number'),
    ('checkpoint.keep_latest', 0, 'at least 1'),
    ('evaluation.retrieval_clips', 1, 'at least 2'),
    ('parallel.data', 0, 'a positive number, or -1'),
    ('seed', -1, 'from 0 to 2**31 - 1'),
    ('seed', 2**31, 'from 0 to 2**31 - 1'),
]


@pytest.mark.parametrize(('path', 'value', 'allowed'), ONE_FIELD)
def test_a_value_that_is_not_allowed_is_refused(path, value, allowed):
    with pytest.raises(ConfigError) as caught:
        from_dict(nested(path, value))
    assert str(caught.value).startswith(f'config.{path} = {value!r}: must be ')
    assert allowed in str(caught.value)
    assert '\n' not in str(caught.value)


TWO_FIELDS = [
    # (fields, the field to blame, its value, words of what is allowed, a change that mends it)
    ({'data.frame_size': 50}, 'data.frame_size', 50, 'a multiple of video.patch (16)', {'video.patch': 10}),
    (
        {'data.source': 'tfds', 'data.path': 'A, B', 'data.weights': '2'},
        'data.weights',
        '2',
        'one for each dataset of data.path',
        {'data.weights': '2, 0.5'},
    ),
    (
        {'data.train_split': 'fold1,fold2', 'data.eval_split': 'fold3,fold2'},
        'data.eval_split',
        'fold3,fold2',
        "without 'fold2', which is trained on",
        {'data.eval_split': 'fold3'},
    ),
    ({'data.frames': 7}, 'data.frames', 7, 'a multiple of video.patch_frames (2)', {'video.patch_frames': 7}),
    (
        {'model.decoder_width': 24, 'model.decoder_heads': 2},
        'model.decoder_width',
        24,
        'a multiple of 16',
        {'model.decoder_width': 32},
    ),
    (
        {'loss.normalize_targets': True, 'diffusion.target': 'eps'},
        'loss.normalize_targets',
        True,
        'false with diffusion.target=eps',
        {'diffusion.target': 'x0'},
    ),
    (
        {'diffusion.enabled': False, 'diffusion.target': 'v'},
        'diffusion.enabled',
        False,
        'true with target=v, conditioning=none',
        {'diffusion.target': 'x0'},
    ),
    (
        {'diffusion.enabled': False, 'diffusion.conditioning': 'add'},
        'diffusion.enabled',
        False,
        'true with target=x0, conditioning=add',
        {'diffusion.enabled': True},
    ),
    (
        {'model.decoded_fraction': 0.5},
        'model.decoded_fraction',
        0.5,
        '1 unless both decoders are cross (audio_decoder=self, video_decoder=cross)',
        {'model.audio_decoder': 'cross'},
    ),
    (
        {'optimizer.warmup_samples': 11, 'train.samples': 10},
        'optimizer.warmup_samples',
        11,
        'at most train.samples (10)',
        {'train.samples': 11},
    ),
    (
        {'evaluation.retrieval_clips': 65, 'data.eval_clips': 64},
        'evaluation.retrieval_clips',
        65,
        'at most data.eval_clips (64)',
        {'data.source': 'folder'},  # whose clips are counted when it is opened
    ),
    (
        {'evaluation.retrieval_galleries': 3, 'evaluation.retrieval_clips': 32, 'data.eval_clips': 64},
        'evaluation.retrieval_galleries',
        3,
        'at most data.eval_clips / evaluation.retrieval_clips (2)',
        {'data.source': 'folder'},
    ),
    ({'batch.max_size': 256}, 'batch.max_size', 256, 'a number of at least 512', {'batch.size': 256}),
    (
        {'parallel.data': -1, 'parallel.fsdp': -1},
        'parallel.data',
        -1,
        'at most one axis of -1',
        {'parallel.data': 4},
    ),
]


@pytest.mark.parametrize(('fields', 'blamed', 'value', 'allowed', 'mend'), TWO_FIELDS)
def test_fields_that_contradict_each_other_are_refused(fields, blamed, value, allowed, mend):
    wrong = merged(*(nested(path, v) for path, v in fields.items()))
    with pytest.raises(ConfigError) as caught:
        from_dict(wrong)
    assert str(caught.value).startswith(f'config.{blamed} = {value!r}: must be ')
    assert allowed in str(caught.value)
    from_dict(merged(wrong, *(nested(path, v) for path, v in mend.items())))


def test_derived_shapes_at_paper_scale():
    config = build(audio__num_frames=1024, data__frame_size=224, data__frames=8, data__seconds=10.0)
    assert (config.audio.grid, config.audio.num_tokens, config.audio.patch_dim) == ((64, 8), 512, 256)
    assert (config.video_grid, config.video_tokens, config.video.patch_dim) == ((4, 14, 14), 784, 1536)
    assert config.data.num_samples == 160_000
