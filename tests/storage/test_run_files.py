"""Small files of a run in a bucket: nothing lost or doubled, and failures that are said and tried again."""

import pathlib
import threading

import pytest

from diffmavil_jax.storage import run_files
from diffmavil_jax.storage.paths import open_path
from diffmavil_jax.storage.run_files import InPlace, StorageError
from diffmavil_jax.training.metrics import MetricsWriter, read_metrics
from tests.bucket import FolderOfBuckets

NAMES = ('metrics.jsonl',)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run_files, '_PAUSES_S', (0.0, 0.01, 0.01))


@pytest.fixture
def root(bucket):
    return open_path('gs://bucket/run')


class Refusing:
    """Storage that refuses objects by name, as long as it is told to."""

    def __init__(self, monkeypatch):
        self.names, self.asked = set(), 0
        put = FolderOfBuckets.open

        def refuse(files, path, mode='rb', **named):
            if pathlib.PurePath(path).name in self.names:
                self.asked += 1
                raise RuntimeError('503, no OSError')
            return put(files, path, mode, **named)

        monkeypatch.setattr(FolderOfBuckets, 'open', refuse)


@pytest.fixture
def refusing(monkeypatch):
    return Refusing(monkeypatch)


def opened(root, lines=None):
    return run_files.run_files(root, [].append if lines is None else lines.append)


def die(files):
    """What a SIGKILL leaves of the copying: nothing more happens."""
    files._root = pathlib.Path('/dev/null/gone')


def samples(folder):
    return [line['samples'] for line in read_metrics(folder)]


def test_in_a_file_system_nothing_is_copied(tmp_path):
    with opened(tmp_path) as files:
        assert isinstance(files, InPlace) and files.path == tmp_path
        files.begin(NAMES)
        assert files.keep(0.0) == '' and files.shown(tmp_path / 'a') == tmp_path / 'a'


def test_what_is_kept_is_in_the_bucket_and_no_folder_is_left(root, bucket):
    with opened(root) as files:
        files.begin(NAMES)
        (files.path / 'report').mkdir()
        (files.path / 'report' / 'index.html').write_text('page')
        (files.path / '.draft-1').write_text('half')
        assert files.keep(5.0) == ''
        assert (bucket / 'run' / 'report' / 'index.html').read_text() == 'page'
        assert str(files.shown(files.path / 'report' / 'a')) == 'gs://bucket/run/report/a'
        (files.path / 'late.jsonl').write_text('{}')
    assert sorted(path.name for path in (bucket / 'run').iterdir()) == ['late.jsonl', 'report']
    assert not files.path.exists()


def test_a_killed_run_loses_no_line_before_its_checkpoint_and_doubles_none(root, bucket):
    with opened(root) as files:
        files.begin(NAMES)
        writer = MetricsWriter(files.path)
        for seen in (8, 16):
            writer.write(seen, {'loss': 1.0})
        assert files.keep(5.0) == ''  # then a checkpoint at 16
        writer.write(24, {'loss': 1.0})
        assert files.keep(5.0) == ''  # killed before the checkpoint at 24
        writer.write(32, {'loss': 1.0})
        writer.close()
        die(files)
    assert samples(bucket / 'run') == [8, 16, 24]
    with opened(root) as files:
        files.begin(NAMES)
        writer = MetricsWriter(files.path)
        assert [writer.write(seen, {'loss': 1.0}) for seen in (24, 32, 40)] == [False, True, True]
        writer.close()
    assert samples(bucket / 'run') == [8, 16, 24, 32, 40]
    assert len(list((bucket / 'run' / 'tensorboard').iterdir())) == 2


def test_only_what_changed_is_copied(root, bucket):
    with opened(root) as files:
        files.begin(NAMES)
        (files.path / 'metrics.jsonl').write_text('1\n')
        files.keep(5.0)
        (bucket / 'run' / 'metrics.jsonl').write_text('untouched')
        assert files.keep(5.0) == ''
        assert (bucket / 'run' / 'metrics.jsonl').read_text() == 'untouched'
        (files.path / 'metrics.jsonl').write_text('1\n2\n')
        files.keep(5.0)
    assert (bucket / 'run' / 'metrics.jsonl').read_text() == '1\n2\n'


def test_events_come_before_lines_and_the_page_comes_last(root, bucket):
    with opened(root) as files:
        for name in ('report/index.html', 'report/summary.json', 'metrics.jsonl', 'tensorboard/events.1'):
            (files.path / name).parent.mkdir(exist_ok=True)
            (files.path / name).write_text(name)
        order = [path.relative_to(files.path).as_posix() for path in files._files()]
    assert order == ['report/summary.json', 'tensorboard/events.1', 'metrics.jsonl', 'report/index.html']


def test_a_refused_copy_is_tried_again_said_once_and_the_others_are_made(root, bucket, refusing, caplog):
    lines = []
    refusing.names = {'metrics.jsonl'}
    with opened(root, lines) as files:
        files.begin(())
        (files.path / 'metrics.jsonl').write_text('1\n')
        (files.path / 'other').write_text('there')
        for _ in range(2):
            assert 'gs://bucket/run/metrics.jsonl: RuntimeError: 503' in files.keep(5.0)
        assert refusing.asked == 6
        assert caplog.text.count('could not be copied') == 1
        assert (bucket / 'run' / 'other').read_text() == 'there'
        refusing.names = set()
        assert files.keep(5.0) == ''
    assert lines == ['The files of the run are in gs://bucket/run again.']
    assert (bucket / 'run' / 'metrics.jsonl').read_text() == '1\n'


def test_files_that_are_never_taken_stay_and_are_named(root, refusing):
    lines = []
    refusing.names = {'metrics.jsonl'}
    with opened(root, lines) as files:
        files.begin(())
        (files.path / 'metrics.jsonl').write_text('1\n')
    assert (files.path / 'metrics.jsonl').read_text() == '1\n'
    assert lines[0].endswith(f'503, no OSError); they are in {files.path}.')


def test_a_bucket_that_does_not_answer_is_not_waited_for(root, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(run_files, 'SOON_S', 0.1)
    monkeypatch.setattr(FolderOfBuckets, 'open', lambda *_, **__: answers.wait(10))
    lines = []
    with opened(root, lines) as files:
        files._thread.start()
        (files.path / 'metrics.jsonl').write_text('1\n')
        assert files.keep(0.1) == 'gs://bucket/run has not taken them within 0 s'
    answers.set()
    files._thread.join(5.0)
    assert files.path.exists() and str(files.path) in lines[0]


def test_a_file_that_can_not_be_read_at_a_resume_is_an_error_and_is_not_written_over(root, bucket, refusing):
    (bucket / 'run').mkdir()
    (bucket / 'run' / 'metrics.jsonl').write_text('1\n')
    refusing.names = {'metrics.jsonl'}
    message = 'metrics.jsonl can not be read .*503.*tries again'
    with pytest.raises(StorageError, match=message), opened(root) as files:
        files.begin(NAMES)
    assert refusing.asked == 3
    assert (bucket / 'run' / 'metrics.jsonl').read_text() == '1\n'
    assert not files.path.exists()
