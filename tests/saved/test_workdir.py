"""The run's directory: resumed with the same config, refused with another, never overwritten."""

import json
import os

import pytest

from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved import workdir
from diffmavil_jax.saved.workdir import hold_root, hold_workdir, open_workdir, write_environment
from diffmavil_jax.storage.outputs import RUN_LOCK


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


@pytest.mark.parametrize('scheme', ['s3', 'az', 'memory', 'http'])
def test_a_bucket_that_takes_no_checkpoints_is_refused(tiny, tmp_path, monkeypatch, scheme):
    monkeypatch.chdir(tmp_path)
    message = f'--workdir={scheme}://bucket/run: must be a directory, or begin with gs://, as Orbax'
    with pytest.raises(ConfigError, match=message):
        open_workdir(f'{scheme}://bucket/run', tiny(), overwrite=False)
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_can_not_be_reached_is_named(tiny, bucket, monkeypatch):
    monkeypatch.setattr(workdir, '_BUCKET_PACKAGES', ('a_package_that_is_not_there',))
    message = (
        r"--workdir=gs://bucket/run: must be .* written \(ModuleNotFoundError: .*pip install -e '.\[gcs\]'"
    )
    for start in (lambda path: open_workdir(path, tiny(), overwrite=False), workdir.join_workdir):
        with pytest.raises(ConfigError, match=message):
            start('gs://bucket/run')


def test_a_run_in_a_bucket_is_resumed_refused_and_set_aside_as_in_a_directory(tiny, bucket):
    path = 'gs://bucket/run'
    first = open_workdir(path, tiny(), overwrite=False)
    assert (str(first.path), first.resumed) == (path, False)
    with hold_workdir(path, tiny(), overwrite=False, say=print) as second:
        assert second.resumed and (bucket / 'run' / RUN_LOCK).exists()
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=f'--workdir={path} is in use by another run, process'):
                hold_workdir(path, tiny(), overwrite=overwrite, say=print).__enter__()
    with pytest.raises(ConfigError, match='holds a run of another config:\n  config.seed: 0 -> 5'):
        open_workdir(path, tiny(seed=5), overwrite=False)
    assert workdir.join_workdir(path).resumed
    (bucket / 'run' / 'checkpoints' / '8').mkdir(parents=True)
    (bucket / 'run' / 'checkpoints' / '8' / 'a').write_text('array')
    with pytest.raises(ConfigError, match='which the run reads: --overwrite would move it'):
        open_workdir(path, tiny(init='gs://bucket/run/'), overwrite=True)
    assert not open_workdir(path, tiny(seed=5), overwrite=True).resumed
    assert [entry.name for entry in (bucket / 'run').iterdir()] == ['config.json']
    assert sorted(entry.name for entry in (bucket / 'run.old-1').iterdir()) == ['checkpoints', 'config.json']
    assert (bucket / 'run.old-1' / 'checkpoints' / '8' / 'a').read_text() == 'array'


def test_a_crossvalidation_is_held_in_a_bucket(tiny, bucket):
    config = tiny(finetune={'folds': 'a,b'}, data={'source': 'tfds', 'path': 'x'})
    with hold_root('gs://bucket/folds', config, overwrite=False, say=print) as root:
        open_workdir(f'{root}/a', tiny(), overwrite=False)
        with pytest.raises(ConfigError, match='is in use by another run'):
            hold_root('gs://bucket/folds', config, overwrite=False, say=print).__enter__()
    assert [path.name for path in (bucket / 'folds').iterdir()] == ['a']


def test_overwrite_touches_nothing_that_is_no_run(tiny, tmp_path):
    (tmp_path / 'thesis.txt').write_text('')
    with pytest.raises(ConfigError, match='holds no run'):
        open_workdir(tmp_path, tiny(), overwrite=True)
    assert (tmp_path / 'thesis.txt').exists()


def test_while_a_run_is_at_work_nobody_else_gets_its_directory(tiny, tmp_path):
    root = tmp_path / 'run'
    with hold_workdir(root, tiny(), overwrite=False, say=print) as held:
        assert (held.path, held.resumed) == (root, False)
        for overwrite in (False, True):
            message = f'--workdir={root} is in use by another run, process {os.getpid()} on .* began '
            with pytest.raises(ConfigError, match=message):
                hold_workdir(root, tiny(), overwrite=overwrite, say=print).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ['run']
    with hold_workdir(root, tiny(), overwrite=True, say=print) as held:
        assert not held.resumed
    assert [path.name for path in (tmp_path / 'run.old-1').iterdir()] == ['config.json']
    assert [path.name for path in root.iterdir()] == ['config.json']


def test_a_crossvalidation_is_held_and_set_aside_as_one(tiny, tmp_path):
    config = tiny(finetune={'folds': 'a,b'}, data={'source': 'tfds', 'path': 'x'})
    root = tmp_path / 'folds'
    with hold_root(root, config, overwrite=False, say=print):
        for fold in ('a', 'b'):
            open_workdir(root / fold, tiny(), overwrite=False)
        with pytest.raises(ConfigError, match='is in use by another run'):
            hold_root(root, config, overwrite=False, say=print).__enter__()
    (root / 'report').mkdir()
    with hold_root(root, config, overwrite=False, say=print):
        assert (root / 'a' / 'config.json').exists()
    with hold_root(root, config, overwrite=True, say=print):
        assert [path.name for path in root.iterdir()] == [RUN_LOCK]
    assert sorted(path.name for path in (tmp_path / 'folds.old-1').iterdir()) == ['a', 'b', 'report']


@pytest.mark.parametrize('name', ['report', 'metrics.jsonl', 'checkpoints'])
def test_what_a_run_did_not_write_it_does_not_write_over(tiny, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f'holds no run, but has {name}, which a run would write to'):
        open_workdir(tmp_path, tiny(), overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_with_other_files_may_hold_a_run(tiny, tmp_path):
    (tmp_path / 'log.txt').touch()
    assert not open_workdir(tmp_path, tiny(), overwrite=False).resumed


def test_overwrite_does_not_move_what_the_run_reads(tiny, tmp_path):
    root = tmp_path / 'run'
    open_workdir(root, tiny(), overwrite=False)
    (root / 'videos').mkdir()
    for changes in (
        {'init': str(root)},
        {'data': {'source': 'folder', 'path': str(root / 'videos')}},
        {'data': {'source': 'tfds', 'path': f'generated,{root / "videos"}'}},
    ):
        with pytest.raises(ConfigError, match='which the run reads: --overwrite would move it'):
            open_workdir(root, tiny(**changes), overwrite=True)
    assert (root / 'videos').is_dir()


def test_a_run_that_resumes_on_other_data_says_so(tiny, tmp_path, capsys):
    open_workdir(tmp_path, tiny(data={'path': 'a'}), overwrite=False)
    assert open_workdir(tmp_path, tiny(data={'path': 'b'}), overwrite=False).resumed
    assert "Other data than before: config.data.path: 'a' -> 'b'" in capsys.readouterr().out
