"""How rows are divided among shards, and when a dataset counts as the same."""

import dataclasses

import pytest
from etils import epath

from diffmavil_jax.data.listings.row import Listing, Row
from diffmavil_jax.data.prepare import work
from diffmavil_jax.data.shards.inside import Inside
from tests.data.film import GRID, MEDIA, NASA, SPRING, TOS
from tests.data.prepare.rows import SMALL, row


def open_work(folder, rows, **changes):
    job = work.Job(str(MEDIA), dataclasses.replace(SMALL, **changes))
    return work.Work.open(epath.Path(folder), Listing(rows), job)


def test_rows_are_divided_among_shards_and_come_back(tmp_path):
    rows = [Row(f'{i}.mp4', f's{i % 2}', f'{i}.mp4', 0.5 * i, None, (i,)) for i in range(50)]
    plan = open_work(tmp_path, rows, shard_clips=8)
    shards = [plan.rows(i) for i in range(plan.num_shards)]
    assert plan.num_shards == 8 and plan.num_done() == 0
    assert sorted(sum(shards, []), key=lambda r: r.labels) == rows
    assert all(len({r.split for r in shard}) == 1 for shard in shards)
    assert [r.labels for r in shards[0]] != sorted(r.labels for r in shards[0])  # shuffled
    again = open_work(tmp_path / 'again', rows[::-1], shard_clips=8)
    assert [again.rows(i) for i in range(8)] == shards


@pytest.mark.parametrize(('clips_listed', 'shards'), [(10, 1), (100, 7), (2_048, 64), (20_480, 80)])
def test_small_datasets_have_many_small_shards(tmp_path, clips_listed, shards):
    rows = [row(f'{i}.mp4', start_s=0.0) for i in range(clips_listed)]
    assert open_work(tmp_path, rows).num_shards == shards


def test_rows_of_a_file_stay_together(tmp_path):
    rows = [row(f'{i}.mp4', start_s=float(start)) for start in range(5) for i in range(10)]
    plan = open_work(tmp_path, rows, shard_clips=7)
    for i in range(plan.num_shards):
        files = [r.file for r in plan.rows(i)]
        assert len(files) == 10 and len(set(files)) == 2 and files == sorted(files, key=files.index)


def test_long_files_make_small_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(work, '_SHARD_SOURCE_BYTES', 50_000)
    rows = [row(name) for name in (SPRING, NASA, GRID, TOS)]
    assert open_work(tmp_path / 'a', rows).num_shards == 2
    assert open_work(tmp_path / 'b', [dataclasses.replace(r, start_s=0.0) for r in rows]).num_shards == 1


@pytest.mark.parametrize(('name', 'parts'), [('x.tar', 4), ('x.tar.gz', 1), ('x.parquet', 4)])
def test_files_of_a_shard_are_read_from_its_beginning_to_its_end(tmp_path, name, parts):
    rows = [row(f'{i}', inside=(Inside(name, 10 * i, 5),), refused='x' if i == 3 else '') for i in range(40)]
    plan = open_work(tmp_path, rows[::-1], shard_clips=10)
    shards = [plan.rows(i) for i in range(plan.num_shards)]
    assert len(shards) == parts and sorted(sum(shards, []), key=lambda r: int(r.name)) == rows
    for shard in shards:
        begins = [r.inside[0].begin for r in shard]
        assert begins == list(range(begins[0], begins[0] + 10 * len(begins), 10))


def test_row_groups_are_not_torn_apart(tmp_path):
    rows = [row(f'{i}', inside=(Inside('x.parquet', i, 5, 'audio', i // 4),)) for i in range(40)]
    plan = open_work(tmp_path, rows, shard_clips=6)
    assert [len(plan.rows(i)) for i in range(plan.num_shards)] == [8] * 5


def test_the_identity_changes_with_what_changes_the_dataset():
    listing, job = Listing([row(SPRING)]), work.Job('in', SMALL)
    keys = {
        work.identity(listing, job, 'csv'),
        work.identity(listing, job, 'folder'),
        work.identity(listing, work.Job('in2', SMALL), 'csv'),
        work.identity(listing, work.Job('in', dataclasses.replace(SMALL, frames=3)), 'csv'),
        work.identity(Listing([row(SPRING, labels=(1,))]), job, 'csv'),
        work.identity(Listing([row(SPRING)], ('a',)), job, 'csv'),
    }
    assert len(keys) == 6 and work.identity(Listing([row(SPRING)]), job, 'csv') in keys
