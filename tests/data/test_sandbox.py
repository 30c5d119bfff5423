"""Decoding in separate processes: a file that hangs or crashes a decoder costs one clip and no more."""

import concurrent.futures
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import av
import numpy as np
import psutil
import pytest

from diffmavil_jax.data import media, sandbox
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import ANY_TITLE
from diffmavil_jax.data.sandbox import DecodePool
from tests.data.film import MEDIA, SPEC, write

ROAR = MEDIA.parent / 'sounds' / 't-rex-roar.mp3'
FILM = MEDIA / 'spring_0004.mp4'


@pytest.fixture(scope='module')
def pool():
    with DecodePool(workers=2, timeout_s=120.0) as pool:
        yield pool


def workers_of(process=None):
    children = (process or psutil.Process()).children(recursive=True)
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if 'sandbox.serve' in ' '.join(child.cmdline())]


def test_clips_are_those_of_the_decoder_itself(pool):
    for source in (FILM, str(FILM), FILM.read_bytes()):
        waveform, frames = pool.decode(source, 0.5, SPEC)
        expected = media.decode(FILM, 0.5, SPEC)
        np.testing.assert_array_equal(waveform, expected[0])
        np.testing.assert_array_equal(frames, expected[1])
        assert waveform.flags.writeable and frames.flags.writeable
    assert pool.decode(FILM, 0.5, SPEC, ['video'])[0] is None
    assert pool.probe(FILM) == media.probe(FILM)


def test_errors_of_the_file_and_of_the_call_come_back_as_they_are(pool):
    with pytest.raises(media.MediaError, match='^unreadable: no such file$'):
        pool.decode('nowhere.mp4', 0.0, SPEC)
    with pytest.raises(media.MediaError, match='^too short'):
        pool.decode(FILM, 50.0, SPEC)
    with pytest.raises(ValueError, match='invalid literal'):
        pool.call(int, 'x')
    before = {worker.pid for worker in workers_of()}
    pool.decode(FILM, 0.0, SPEC)
    assert {worker.pid for worker in workers_of()} == before


def test_a_decoder_that_hangs_or_crashes_costs_one_clip():
    with DecodePool(workers=1, timeout_s=0.5) as pool:
        start = time.monotonic()
        with pytest.raises(media.MediaError, match='^unreadable: decoder timed out$'):
            pool.call(time.sleep, 600)
        assert time.monotonic() - start < 60
        for function, args, cause in (
            (os.abort, (), 'SIGABRT'),
            (signal.raise_signal, (signal.SIGSEGV,), 'SIGSEGV'),
            (os._exit, (3,), 'exit code 3'),
        ):
            with pytest.raises(media.MediaError, match=rf'^unreadable: decoder crashed \({cause}\)$'):
                pool.call(function, *args)
        assert pool.call(abs, -1) == 1
        # The time limit holds for each call, not for all calls of a worker together.
        assert [pool.call(time.sleep, 0.2) for _ in range(4)] == [None] * 4


def test_a_hang_inside_a_decoder_that_holds_the_interpreter_ends_as_well():
    with (
        DecodePool(workers=1, timeout_s=0.5) as pool,
        pytest.raises(media.MediaError, match='decoder timed out'),
    ):
        pool.call(pow, 3, 3**20)  # one C function that takes hours


def test_a_worker_that_takes_no_signal_is_given_up(monkeypatch):
    monkeypatch.setattr(sandbox, '_GRACE_S', 0.2)
    with DecodePool(workers=1, timeout_s=0.5) as pool:
        with pytest.raises(media.MediaError, match='decoder timed out'):
            pool.call(eval, '__import__("os").kill(__import__("os").getpid(), 19)')  # SIGSTOP
        assert pool.call(abs, -1) == 1


def test_memory_is_limited(pool):
    with pytest.raises(media.MediaError, match='^unreadable: takes too much memory$'):
        pool.call(np.ones, sandbox.MEMORY_BYTES // 4)
    assert pool.call(abs, -1) == 1


def test_a_worker_killed_while_idle_is_replaced(pool):
    pool.call(abs, -1)
    for worker in workers_of():
        worker.kill()
        psutil.wait_procs([worker], timeout=10)
    assert pool.call(abs, -1) == 1


def test_many_threads_share_few_workers(pool):
    jobs = [(FILM, start / 8) for start in range(12)] * 2
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda job: pool.decode(*job, SPEC), jobs))
    assert len(workers_of()) <= 2
    for (path, start_s), (waveform, frames) in zip(jobs[:12], together[12:], strict=True):
        expected = media.decode(path, start_s, SPEC)
        np.testing.assert_array_equal(waveform, expected[0])
        np.testing.assert_array_equal(frames, expected[1])


def test_workers_are_light_and_ignore_what_their_owner_is_told(pool):
    loaded = pool.call(eval, 'set(__import__("sys").modules)')
    assert 'av' in loaded and not loaded & {'jax', 'jaxlib', 'tensorflow', 'grain', 'tensorflow_datasets'}
    (worker, *_) = workers_of()
    for meant_for_the_owner in (signal.SIGINT, signal.SIGTERM):
        worker.send_signal(meant_for_the_owner)
        assert pool.call(abs, -1) == 1
    assert worker.is_running()


def test_closing_leaves_nothing_behind():
    before = {child.pid for child in psutil.Process().children()}
    pool = DecodePool(workers=2, timeout_s=60.0)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pool.call(time.sleep, 0.1), range(4)))
    assert {child.pid for child in psutil.Process().children()} > before
    pool.close()
    assert {child.pid for child in psutil.Process().children()} <= before  # zombies would be among them
    with pytest.raises(RuntimeError, match='closed'):
        pool.decode(FILM, 0.0, SPEC)
    pool.close()


def test_a_pool_that_is_dropped_leaves_nothing_behind():
    before = {child.pid for child in psutil.Process().children()}
    pool = DecodePool(workers=2, timeout_s=60.0)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pool.call(time.sleep, 0.1), range(4)))
    assert {child.pid for child in psutil.Process().children()} > before
    del pool
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_fork_that_drops_its_copy_of_a_pool_leaves_the_workers_alone():
    script = textwrap.dedent("""
        import os
        from diffmavil_jax.data.sandbox import DecodePool
        pool = DecodePool(1)
        worker = pool.call(os.getpid)
        fork = os.fork()
        if fork == 0:
            del pool
            os._exit(0)
        assert os.waitpid(fork, 0)[1] == 0
        assert pool.call(os.getpid) == worker
    """)
    subprocess.run(
        [sys.executable, '-c', script], env=os.environ | {'PYTHONPATH': os.getcwd()}, check=True, timeout=60
    )


@pytest.mark.parametrize('workers, timeout_s', [(0, 1.0), (1, 0.0), (1, float('nan'))])
def test_senseless_pools_are_refused(workers, timeout_s):
    with pytest.raises(ValueError, match='must be positive'):
        DecodePool(workers, timeout_s)


def test_workers_end_with_an_owner_that_is_killed():
    script = textwrap.dedent("""
        import threading, time
        from diffmavil_jax.data.sandbox import DecodePool
        pool = DecodePool(2, 3.0)
        threading.Thread(target=pool.call, args=(time.sleep, 600), daemon=True).start()
        pool.call(abs, -1)
        time.sleep(0.2)
        print('ready', flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen(
        [sys.executable, '-c', script], stdout=subprocess.PIPE, env=os.environ | {'PYTHONPATH': os.getcwd()}
    ) as owner:
        assert owner.stdout.readline() == b'ready\n'
        workers = workers_of(psutil.Process(owner.pid))
        assert len(workers) == 2
        owner.kill()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_memory_stays_flat():
    spec = ClipSpec(sample_rate=16_000, seconds=0.4, frames=2, frame_size=32)
    names = ('spring_0004.mp4', 'grid-swiz3n_0000.mp4', 'nasajwst_0000.mp4')
    with DecodePool(workers=1, timeout_s=120.0) as pool:
        pool.call(abs, -1)
        (worker,) = [process for process in workers_of() if process.ppid() == os.getpid()][-1:]
        owner = psutil.Process()

        def used(clips):
            for i in range(clips):
                pool.decode(MEDIA / names[i % 3], i % 20 / 10, spec)
            return worker.memory_info().rss, owner.memory_info().rss

        before, after = used(100), used(240)
    assert np.max(np.subtract(after, before)) < 2 << 20  # of 240 clips of 19 kB


# Real recordings, and the packets of one of them in other containers.
REAL = (
    MEDIA / 'grid-brbk7n_0000.mp4', MEDIA / 'grid-swiz3n_0000.mp4', MEDIA / 'nasajwst_0000.mp4', FILM,
    MEDIA / 'tos_battle.webm', ROAR,
)  # fmt: skip
REMUXED = ('a.mkv', 'a.ts', 'a.flv', 'a.mov')
MUTATIONS = 504


@pytest.fixture(scope='module')
def victims(tmp_path_factory):
    folder = tmp_path_factory.mktemp('victims')
    files = {path.name: path.read_bytes()[:80_000] for path in REAL}
    for name in REMUXED:
        with av.open(str(FILM)) as source, av.open(str(folder / name), 'w') as target:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
        files[name] = (folder / name).read_bytes()
    waveform, frames = media.decode(FILM, 0.0, SPEC)
    waveform, frames = media.decode(FILM, 0.0, SPEC)
    sound = {'sound': waveform, 'rate': SPEC.sample_rate}
    files['b.avi'] = write(folder / 'b.avi', list(frames), **sound, fps=4).read_bytes()
    files['b.webm'] = write(
        folder / 'b.webm', list(frames), fps=4, codec='libsvtav1', options={'preset': '12'}
    ).read_bytes()
    return files


def mutate(data, others, rng):
    """Flips bytes of a file, cuts it, or inserts a part of it or of another file."""
    kind, data = rng.choice(('flips', 'header', 'cut', 'splice', 'swap', 'zeros')), bytearray(data)
    # Half of the changes are near the ends of the file, where containers have their tables.
    edge = min(len(data), 4_000)
    near = rng.choice((rng.randrange(edge), len(data) - 1 - rng.randrange(edge)))
    at, length = rng.choice((near, rng.randrange(len(data)))), rng.randrange(1, 2_000)
    if kind == 'flips':
        for _ in range(rng.choice((1, 10, 200))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 'header':
        for _ in range(rng.choice((1, 4, 16))):
            data[rng.choice((rng.randrange(edge), len(data) - 1 - rng.randrange(edge)))] = rng.randrange(256)
    elif kind == 'cut':
        del data[at : rng.choice((len(data), at + length))]
    elif kind == 'splice':
        other = rng.choice(others)
        begin = rng.randrange(len(other))
        data[at:at] = other[begin : begin + length]
    elif kind == 'swap':
        data[at : at + length] = rng.choice(others)[at : at + length]
    else:
        data[at : at + length] = rng.choice((b'\x00', b'\xff')) * length
    return bytes(data)


def different_frames(data, times):
    """How many packets, frames and pictures a file has at some times, read by PyAV alone."""
    packets, frames, pictures = [], [], {}
    options = {'format_whitelist': ','.join(media.CONTAINERS)}
    with av.open(io.BytesIO(data), options=options, **ANY_TITLE) as container:
        origin = max(0.0, (container.start_time or 0) / av.time_base)
        (stream, *_) = container.streams.video
        stream.codec_context.thread_count = 1
        with contextlib.suppress(av.FFmpegError, IndexError):
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    packets.append(float(packet.pts * packet.time_base) - origin)
                with contextlib.suppress(av.FFmpegError):
                    for frame in (f for f in packet.decode() if f.time is not None):
                        frames.append(frame.time - origin)
                        pictures[frames[-1]] = frame.to_ndarray(format='rgb24').tobytes()
    of_packets, of_frames = (
        {max((t for t in there if t <= time + 0.001), default=min(there)) for time in times}
        for there in (packets, frames)
    )
    return len(of_packets), len(of_frames), len({pictures[time] for time in of_frames})


def test_no_damage_crashes_hangs_or_miscounts(pool, victims):
    spec = ClipSpec(sample_rate=16_000, seconds=0.5, frames=4, frame_size=32)
    names, rng = sorted(victims), random.Random(0)
    outcomes = {name: [] for name in names}
    standing_in = []  # where one picture is shown in place of several

    def judge(job):
        name, source = job
        modalities = ['audio'] if name.endswith('.mp3') else ['video'] if name == 'b.webm' else media.BOTH
        try:
            info = pool.probe(source)
            assert 0 <= info.duration_s <= media.MAX_SECONDS
            waveform, frames = pool.decode(source, 0.25, spec, modalities)
        except media.MediaError as error:
            reason = str(error).split(':')[0]
            assert reason in (
                'unreadable',
                'no audio',
                'no video',
                'too short',
                'silent',
                'wrong frame count',
            )
            assert not str(error).startswith('unreadable: decoder'), (name, str(error))
            outcomes[name].append(reason)
            return
        if 'audio' in modalities:
            assert (waveform.shape, waveform.dtype) == ((8_000,), np.int16)
            assert np.abs(waveform.astype(int)).max() >= media.SILENCE_PEAK
        if 'video' in modalities:
            assert (frames.shape, frames.dtype) == ((4, 32, 32, 3), np.uint8)
            packets, shown, pictures = different_frames(source, [0.25 + (i + 0.5) / 8 for i in range(4)])
            assert packets == shown, name  # none was lost
            if len(np.unique(frames.reshape(4, -1), axis=0)) != pictures:
                standing_in.append(name)
        outcomes[name].append('good')

    for name in names:
        judge((name, victims[name]))
    assert all(outcome == ['good'] for outcome in outcomes.values()), outcomes
    jobs = []
    for i in range(MUTATIONS):
        name = names[i % len(names)]
        jobs.append((name, mutate(victims[name], list(victims.values()), rng)))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(judge, jobs))
    told = [outcome for results in outcomes.values() for outcome in results[1:]]
    assert len(told) == MUTATIONS
    assert 0.1 < told.count('good') / MUTATIONS < 0.9  # the damage is neither too small nor too large
    # Different frames may look the same at 32 x 32, and a decoder may fill gaps with earlier pictures.
    assert len(standing_in) < 0.01 * told.count('good'), standing_in
