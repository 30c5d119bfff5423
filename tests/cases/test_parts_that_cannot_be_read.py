"""What can't be read of a file or of a folder is said, with its path."""

import fractions
import os
import types

import av
import numpy as np
import pytest
from etils import epath

from diffmavil_jax.commands import embed
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec, DataError, Refusal
from diffmavil_jax.data.media import decoding
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.windows import Reader, Window
from tests.cases.making import CASES, film, listed, outcomes, tone
from tests.data.film import SPEC, encode_sound, grey, shown, tone_from, write
from tests.data.folders import SPEC as ONE_SECOND

GLUED = 'another recording begins'


def ogg(path):
    with av.open(str(path), 'w', format='ogg') as target:
        stream = target.add_stream('libopus', rate=48_000, layout='mono')
        encode_sound(target, stream, tone_from(0, 4.0), 48_000, 0.0)
    return path


def first(root, suffix):
    """A recording of 4 s; and the same of the other pictures and pitch."""
    if suffix == 'wav':
        return tone(root / 'a.wav', 4.0), tone(root / 'b.wav', 4.0, 2_000.0)
    if suffix == 'ogg':
        return ogg(root / 'a.ogg'), ogg(root / 'b.ogg')
    parts = [root / f'{name}.{suffix}' for name in 'ab']
    for offset, part in enumerate(parts):
        write(part, [grey(16 * offset + i % 16) for i in range(32)], tone_from(0, 4.0))
    return tuple(parts)


@pytest.fixture(params=['ts', 'ogg', 'mp4', 'mkv', 'wav', 'avi'])
def glued(request, tmp_path):
    """Two recordings of 4 s in one file."""
    a, b = first(tmp_path, request.param)
    path = tmp_path / 'glued' / f'c.{request.param}'
    path.parent.mkdir()
    path.write_bytes(a.read_bytes() + b.read_bytes())
    return path


def test_a_glued_file_is_its_first_recording_however_it_is_reached(glued):
    info = media.probe(glued)
    assert info.left_out.startswith(GLUED)
    assert info.duration_s == pytest.approx(4.0, abs=0.1)
    one = glued.parent.parent / f'a{glued.suffix}'
    modalities = tuple(info.lengths)
    for start_s in (0.0, 1.9, 3.4):
        spec = ClipSpec(16_000, 0.5, 2, 32)
        expected = media.decode(one, start_s, spec, modalities)
        for source in (glued, glued.read_bytes()):
            found = media.decode(source, start_s, spec, modalities)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert not media.probe(one).left_out


def test_the_rest_of_a_glued_file_is_refused_by_every_reader(glued, open_folder):
    modalities = tuple(media.probe(glued).lengths)
    rest = f'c{glued.suffix}@{media.probe(glued).duration_s:.3f}'
    settings = Settings(modalities=modalities, seconds=1.0, frames=2, frame_size=32, keep=('still',))
    found = outcomes('folder', glued.parent, settings)
    assert [outcome.reason for outcome in found[:-1]] == [''] * 4
    assert found[-1].id == rest and found[-1].reason.startswith(GLUED)

    (glued.parent / f'd{glued.suffix}').write_bytes((glued.parent.parent / f'a{glued.suffix}').read_bytes())
    sources = open_folder(glued.parent, ONE_SECOND, modalities=modalities)
    refused = [*sources.train.refused(), *sources.eval.refused()]
    assert [refusal.path for refusal in refused] == [rest] and refused[0].reason.startswith(GLUED)

    items = list(Reader(SPEC, modalities, 'auto', 1).windows([str(glued)], 2))
    assert sum(isinstance(item, Window) for item in items) == 2
    (refusal,) = [item for item in items if isinstance(item, Refusal)]
    assert refusal.path.endswith(rest) and refusal.reason.startswith(GLUED)


def test_a_transport_stream_that_was_cut_off_is_found_to_begin_again(tmp_path):
    a, b = first(tmp_path, 'ts')
    path = tmp_path / 'c.ts'
    path.write_bytes(a.read_bytes()[:-1_000] + b.read_bytes())
    assert media.probe(path).left_out.startswith(GLUED)
    spec = ClipSpec(16_000, 0.5, 2, 32)
    assert shown(media.decode(path, 3.2, spec)[1]) == shown(media.decode(a, 3.2, spec)[1])


def test_pictures_without_times_do_not_stand_in_for_others():
    """The flash comes with the sound; the first pictures of the file are from before its beginning."""
    waveform, frames = media.decode(CASES / 'cut.mkv', 0.0, ClipSpec(16_000, 3.0, 300, 16))
    loud, white = np.abs(waveform.astype(int)) > 1_000, frames.reshape(300, -1).mean(1) > 128
    assert loud.argmax() / 16_000 == pytest.approx(0.73, abs=0.02)
    assert (white.argmax() + 0.5) / 100 == pytest.approx(0.7, abs=0.03) and white.any()


@pytest.fixture
def unreadable(tmp_path, monkeypatch):
    """A folder with a sub-folder that may not be read."""
    for name in ('cats', 'dogs'):
        film(tmp_path / name / 'a.mkv', 1.0, sound_s=1.0)
    scan = os.scandir

    def refused(path='.'):
        if os.fspath(path).endswith('cats'):
            raise PermissionError(13, 'Permission denied', os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refused)
    return tmp_path


def test_a_folder_that_may_not_be_read_is_an_error(unreadable, open_folder):
    for source in ('folder', 'spoken_digit', 'speech_commands'):
        with pytest.raises(DataError, match='cats: Permission denied'):
            listed(source, unreadable)
    with pytest.raises(DataError, match='cats: Permission denied'):
        open_folder(unreadable)


@pytest.mark.parametrize('source', ['csv', 'esc50', 'audioset', 'vggsound', 'speech_commands', 'folder'])
def test_an_input_that_may_not_be_read_is_an_error(tmp_path, monkeypatch, source):
    def refused(path='.', *args, **options):
        raise PermissionError(13, 'Permission denied', os.fspath(path))

    for name in ('listdir', 'scandir', 'stat'):
        monkeypatch.setattr(os, name, refused)
    with pytest.raises(DataError, match='denied|not a folder|missing|None of|No meta|must be one CSV'):
        listed(source, tmp_path)


def test_a_stream_whose_times_go_back_is_refused():
    latest: dict[int, float] = {}

    def packet(dts):
        return types.SimpleNamespace(
            dts=dts, time_base=fractions.Fraction(1, 10), stream=types.SimpleNamespace(index=0)
        )

    for dts in (0, None, 30, 25, 40):
        decoding._check_order(packet(dts), latest)
    with pytest.raises(media.MediaError, match='^unreadable: after 4.00 s the times go back to 0.50 s'):
        decoding._check_order(packet(5), latest)


def test_embed_refuses_a_folder_that_may_not_be_read_and_goes_on(unreadable):
    files, refused = embed._files([str(unreadable)])
    assert files == [str(unreadable / 'dogs' / 'a.mkv')]
    assert refused == [Refusal(str(unreadable / 'cats'), "can't be read: Permission denied")]


def test_a_file_that_may_not_be_read_is_not_missing(tmp_path, monkeypatch):
    tone(tmp_path / 'a.wav')
    tone(tmp_path / 'b.wav')
    open_file = open

    def refused(path, *args, **options):
        if os.fspath(path).endswith('a.wav'):
            raise PermissionError(13, 'Permission denied', os.fspath(path))
        return open_file(path, *args, **options)

    monkeypatch.setattr('builtins.open', refused)
    found = outcomes('folder', epath.Path(tmp_path))
    assert [outcome.reason for outcome in found] == ['unreadable: Permission denied', '']
