"""The run's directory: resumed with the same config, refused with another, never overwritten."""

import json

import pytest

from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.workdir import open_workdir, write_environment


def test_a_new_directory_gets_the_config_and_a_second_start_resumes(tmp_path, tiny):
    config = tiny()
    first = open_workdir(tmp_path / 'a' / 'run', config, overwrite=False)
    assert (first.path, first.resumed) == (tmp_path / 'a' / 'run', False)
    assert json.loads((first.path / 'config.json').read_text()) == json.loads(json.dumps(to_dict(config)))
    second = open_workdir(tmp_path / 'a' / 'run', config, overwrite=False)
    assert (second.path, second.resumed) == (first.path, True)
    assert [p.name for p in first.path.iterdir()] == ['config.json']


def test_another_config_is_refused_with_each_difference_and_nothing_is_touched(tmp_path, tiny):
    open_workdir(tmp_path / 'run', tiny(), overwrite=False)
    before = (tmp_path / 'run' / 'config.json').read_bytes()
    other = tiny(batch={'size': 16}, optimizer={'learning_rate': 2e-3}, seed=5)
    with pytest.raises(ConfigError) as caught:
        open_workdir(tmp_path / 'run', other, overwrite=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == f'--workdir={tmp_path / "run"} holds a run of another config:'
    assert [line.strip() for line in lines[1:-1]] == [
        'config.batch.size: 8 -> 16',
        'config.optimizer.learning_rate: 0.001 -> 0.002',
        'config.seed: 0 -> 5',
    ]
    assert '--overwrite' in lines[-1]
    assert (tmp_path / 'run' / 'config.json').read_bytes() == before


def test_overwrite_sets_the_old_run_aside_each_time(tmp_path, tiny):
    root = tmp_path / 'run'
    for number, seed in enumerate((0, 1, 2)):
        opened = open_workdir(root, tiny(seed=seed), overwrite=number > 0)
        assert not opened.resumed
        (root / 'mark').write_text(str(seed))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['run', 'run.old-1', 'run.old-2']
    for name, seed in (('run.old-1', 0), ('run.old-2', 1), ('run', 2)):
        assert (tmp_path / name / 'mark').read_text() == str(seed)
        assert json.loads((tmp_path / name / 'config.json').read_text())['seed'] == seed


def test_overwrite_of_nothing_is_a_new_run(tmp_path, tiny):
    assert not open_workdir(tmp_path / 'run', tiny(), overwrite=True).resumed
    assert [p.name for p in tmp_path.iterdir()] == ['run']


@pytest.mark.parametrize('name', ['file', 'file/run'])
def test_a_directory_that_cannot_be_written_is_named(tmp_path, tiny, name):
    # A file in the way: permissions do not stop root.
    (tmp_path / 'file').write_text('something')
    path = tmp_path / name
    with pytest.raises(ConfigError) as caught:
        open_workdir(path, tiny(), overwrite=False)
    assert str(caught.value).startswith(f'--workdir={path}: must be a directory that can be written (')
    assert (tmp_path / 'file').read_text() == 'something'


def test_what_does_not_change_the_learning_may_change_between_starts(tmp_path, tiny):
    open_workdir(tmp_path / 'run', tiny(), overwrite=False)
    free = tiny(
        parallel={'data': 1, 'compilation_cache': 'elsewhere'},
        checkpoint={'every_samples': 7, 'keep_latest': 5},
        data={'threads': 1, 'prefetch_batches': 1, 'cache_gb': 0.5, 'path': 'moved'},
    )
    assert open_workdir(tmp_path / 'run', free, overwrite=False).resumed
    # Among the fields that differ, only the one that may not is listed.
    with pytest.raises(ConfigError) as caught:
        open_workdir(tmp_path / 'run', tiny(parallel={'data': 1}, data={'seconds': 2.0}), overwrite=False)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        'config.data.seconds: 1.0 -> 2.0'
    ]


def test_a_field_name_that_begins_like_a_free_one_is_not_free(tmp_path, tiny):
    """`data.path` may differ, but not a field whose name only begins with it."""
    open_workdir(tmp_path / 'run', tiny(), overwrite=False)
    saved = json.loads((tmp_path / 'run' / 'config.json').read_text())
    saved['data']['path_of_another_version'] = 1
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match="config.data.path_of_another_version: 1 -> 'absent'"):
        open_workdir(tmp_path / 'run', tiny(), overwrite=False)


def test_a_broken_config_file_is_named(tmp_path, tiny):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.json').write_text('{"seed": ')
    with pytest.raises(ConfigError, match=r'config.json: is not readable as JSON; --overwrite'):
        open_workdir(tmp_path / 'run', tiny(), overwrite=False)


def test_each_start_adds_a_line_with_versions_and_device(tmp_path):
    write_environment(tmp_path, {'device': '1 x cpu'})
    returned = write_environment(tmp_path, {'device': '8 x cpu'})
    lines = [json.loads(line) for line in (tmp_path / 'environment.jsonl').read_text().splitlines()]
    assert [line['device'] for line in lines] == ['1 x cpu', '8 x cpu']
    assert lines[1] == returned
    assert {'python', 'platform', 'version jax', 'version flax', 'version numpy'} <= returned.keys()
    assert returned['version jax'][0].isdigit()


def test_a_bucket_is_no_directory(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match='--workdir=gs://bucket/run: must be a directory of a file system'):
        open_workdir('gs://bucket/run', tiny(), overwrite=False)
    assert not list(tmp_path.iterdir())


def test_overwrite_touches_nothing_that_is_no_run(tiny, tmp_path):
    (tmp_path / 'thesis.txt').write_text('')
    with pytest.raises(ConfigError, match='holds no run'):
        open_workdir(tmp_path, tiny(), overwrite=True)
    assert (tmp_path / 'thesis.txt').exists()


def test_a_run_that_resumes_on_other_data_says_so(tiny, tmp_path, capsys):
    open_workdir(tmp_path, tiny(data={'path': 'a'}), overwrite=False)
    assert open_workdir(tmp_path, tiny(data={'path': 'b'}), overwrite=False).resumed
    assert "Other data than before: config.data.path: 'a' -> 'b'" in capsys.readouterr().out
