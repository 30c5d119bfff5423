"""The report of a run: what is written, and that nothing in it can break the page."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from diffmavil_jax.report import content, curves, figures, run_page, sheets

VOID = {'meta', 'link', 'img', 'br', 'hr'}
DATA_URI = 'data:image/png;base64,'


def stages(rng, shape, start=True):
    target = rng.random(shape)
    hidden = np.zeros(shape, bool)
    hidden[: shape[0] // 2] = True
    return content.Stages(
        target=target,
        masked=np.where(hidden, np.nan, target),
        prediction=np.where(hidden, 0.5, target),
        start=np.where(hidden, rng.standard_normal(shape), target) if start else None,
    )


def reconstruction(rng, start=True):
    return content.Reconstruction(
        id='<clip> & "one"',
        audio=stages(rng, (32, 16), start),
        video=stages(rng, (4, 8, 8, 3), start),
        seconds=0.32,
    )


def retrieval(rng, direction):
    shapes = [(32, 16), (4, 8, 8, 3)]
    query, other = shapes if direction == 'audio to video' else shapes[::-1]
    matches = [content.Match(rng.random(other), 0.9 - 0.1 * i, i == 2) for i in range(6)]
    return content.RetrievalExample(
        direction=direction, query=rng.random(query), matches=matches, true_rank=3
    )


def history():
    lines = [
        {'samples': 64 * i, 'loss': 9 / (i + 1), 'audio': 1 / (i + 1), 'inter': 4.0, 'mask_ratio': 0.9,
         'batch_size': 64, 'learning_rate': 1e-3, 'note': 'text', 'elapsed_s': i}
        for i in range(1, 8)
    ]  # fmt: skip
    lines[3]['audio'] = math.nan
    lines.append(
        {'samples': 256, 'eval/retrieval.a2v.r10': 0.2, 'eval/retrieval.v2a.r10': 0.3, 'eval/$x$': None}
    )
    return lines


def full_report():
    rng = np.random.default_rng(0)
    bucket = {
        'first_sample': 0, 'last_sample': 1234, 'mask_ratio': 0.9, 'audio_tokens': 10, 'video_tokens': 4,
        'batch_size': 64, 'steps': 20, 'macs_per_clip': 2.3e9, 'macs': 3e12, 'saved': 0.25,
    }  # fmt: skip
    return content.Report(
        title='<b>',
        command='python main.py --config="a&b"',
        headlines=[content.Headline('Clips <seen>', '1,234')],
        facts={'Device': 'CPU <2 cores>', 'Seed': '0'},
        plan=[bucket, bucket | {'macs': 1e12, 'saved': 0.5, 'steps': 12}, bucket | {'mask_ratio': None}],
        history=history(),
        tables=[
            content.Table(
                '<i>Retrieval',
                'a & b',
                ['trained', 'untrained'],
                [
                    content.Row('R@1', [0.418, 0.1], 'percent', 'higher'),
                    content.Row('rank', [math.nan, None], better='lower'),
                ],
            )
        ],
        reconstructions=[reconstruction(rng)],
        retrievals=[retrieval(rng, d) for d in ('video to audio', 'audio to video')],
        refused=[('a<.mp4', 'broken: <atom>'), ('b.mp4', 'broken: tail'), ('c.mp4', 'no audio')],
        notes=['A <note>.'],
        summary={
            'a': {'b': 0.5}, 'list': [1, 2], 'nan': math.nan, 'inf': [np.float32('inf')],
            'numpy': np.float64(0.25), 'int': np.int64(3), 'flag': True, 'none': None, 'text': 'é',
        },
    )  # fmt: skip


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp('report')
    page = run_page.write_report(full_report(), directory)
    assert page == directory / 'index.html'
    return directory


class Checker(HTMLParser):
    """Balanced tags, what the page refers to, and the ids."""

    def __init__(self):
        super().__init__()
        self.stack, self.sources, self.ids, self.text, self.links = [], [], set(), [], set()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[key] for key in ('src', 'srcset') if key in attrs]
        self.links |= {attrs['href']} if 'href' in attrs else set()
        self.ids |= {attrs['id']} if 'id' in attrs else set()
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(path):
    checker = Checker()
    checker.feed(path.read_text())
    checker.close()
    assert checker.stack == []
    return checker


def test_page_is_balanced_and_links_only_within_itself(written):
    page = parse(written / 'index.html')
    assert page.links == {f'#{name}' for name in page.ids}
    assert page.ids == {
        'run', 'results', 'reconstructions', 'retrieval', 'curves', 'plan', 'refused', 'notes'
    }  # fmt: skip


def test_exactly_the_expected_files_are_written(written):
    assert {path.name for path in written.iterdir()} == {
        'index.html', 'summary.json', 'hero.png', 'losses.png', 'schedule.png', 'evaluation.png',
        'reconstruction-1.png', 'retrieval-audio-to-video.png', 'retrieval-video-to-audio.png',
    }  # fmt: skip


def test_page_holds_each_picture_beside_it_but_the_hero_once(written):
    sources = parse(written / 'index.html').sources
    assert all(source.startswith(DATA_URI) for source in sources)
    embedded = [base64.b64decode(source.removeprefix(DATA_URI), validate=True) for source in sources]
    beside = [path.read_bytes() for path in written.glob('*.png') if path.name != 'hero.png']
    assert sorted(embedded) == sorted(beside)


def test_page_needs_nothing_from_outside(written):
    text = re.sub(f'"{DATA_URI}[^"]*"', '""', (written / 'index.html').read_text())
    for reference in ('http', '<script', '<link', 'url(', '@import', '.png', 'data:'):
        assert reference not in text


def test_pictures_open_with_the_stated_size_and_are_not_blank(written):
    pictures = list(written.glob('*.png'))
    assert len(pictures) == 7
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert image.width == round(figures.WIDTH * figures.DPI)
            assert image.height > 300
            assert np.asarray(image.convert('RGB'), float).var() > 10


def test_pictures_and_the_cards_around_them_are_white_in_both_modes(written):
    for path in written.glob('*.png'):
        with Image.open(path) as image:
            assert image.convert('RGB').getpixel((2, 2)) == (0xFF, 0xFF, 0xFF)
    text = (written / 'index.html').read_text()
    assert text.count('<div class="card picture"><img ') == text.count('<img ') == 6
    assert re.findall(r'^\.card\.picture .*', text, re.MULTILINE) == [
        '.card.picture { background: #ffffff; }'
    ]


def test_text_is_escaped(written):
    text = (written / 'index.html').read_text()
    page = parse(written / 'index.html')
    assert '<title>&lt;b&gt;</title>' in text and '<b>' not in text
    for raw in ('<clip>', '<note>', '<atom>', '<2 cores>', '<seen>', '<i>'):
        assert raw not in text
        assert any(raw in data for data in page.text)


def test_values_are_spelled_for_people(written):
    text = (written / 'index.html').read_text()
    assert '<td class="best">41.8 %</td><td>10.0 %</td>' in text
    assert '<td>–</td><td>–</td>' in text
    assert '0 to 1,234' in text and '<td>2.3 G</td>' in text


def test_refused_files_are_counted_by_reason(written):
    text = (written / 'index.html').read_text()
    assert '3 files could not be used' in text
    assert text.index('broken <span class="count">(2)') < text.index('no audio <span class="count">(1)')
    assert '<code>a&lt;.mp4</code>: &lt;atom&gt;' in text


def test_bytes_of_a_name_that_are_not_text_are_escaped(tmp_path):
    report = content.Report(
        title='odd', refused=[('film\udcff.mp4', 'broken')], summary={'file': 'film\udcff'}
    )
    page = run_page.write_report(report, tmp_path)
    assert '<code>film\\udcff.mp4</code>' in page.read_text()
    assert json.loads((tmp_path / 'summary.json').read_text()) == {'file': 'film\udcff'}


def test_summary_is_the_dictionary_in_valid_json(written):
    def refuse(constant):
        raise AssertionError(constant)

    values = json.loads((written / 'summary.json').read_text(), parse_constant=refuse)
    assert values == {
        'a': {'b': 0.5}, 'list': [1, 2], 'nan': None, 'inf': [None],
        'numpy': 0.25, 'int': 3, 'flag': True, 'none': None, 'text': 'é',
    }  # fmt: skip


def test_writing_again_gives_the_same_bytes(written, tmp_path):
    run_page.write_report(full_report(), tmp_path)
    for name in ('index.html', 'summary.json', 'losses.png', 'hero.png'):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_empty_sections_are_absent_and_old_pictures_go(tmp_path):
    for name in ('losses.png', 'reconstruction-12.png', 'mine.png'):
        (tmp_path / name).write_bytes(b'old')
    page = parse(run_page.write_report(content.Report(title='nothing'), tmp_path / '.'))
    assert page.ids == set() and page.sources == []
    assert {path.name for path in tmp_path.iterdir()} == {'index.html', 'summary.json', 'mine.png'}


def test_a_failure_while_drawing_leaves_the_old_page(tmp_path):
    run_page.write_report(content.Report(title='old'), tmp_path)
    broken = content.RetrievalExample(direction='audio to video', query=None, matches=[], true_rank=1)
    with pytest.raises(AttributeError):
        run_page.write_report(content.Report(title='new', retrievals=[broken]), tmp_path)
    assert 'old' in (tmp_path / 'index.html').read_text()
    assert {path.name for path in tmp_path.iterdir()} == {'index.html', 'summary.json'}


def test_a_failure_while_writing_leaves_no_stray_file(tmp_path, monkeypatch):
    run_page.write_report(content.Report(title='old'), tmp_path)

    def fail(_):
        raise OSError('disk full')

    monkeypatch.setattr('os.fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        run_page.write_report(content.Report(title='new'), tmp_path)
    assert 'old' in (tmp_path / 'index.html').read_text()
    assert {path.name for path in tmp_path.iterdir()} == {'index.html', 'summary.json'}


def test_without_diffusion_the_sheet_has_a_row_less():
    rng = np.random.default_rng(1)
    with_start, without = (sheets.reconstruction_sheet(reconstruction(rng, s)) for s in (True, False))
    assert with_start.get_figheight() > without.get_figheight()
    assert len(without.axes) == 6 and len(with_start.axes) == 8
    assert len(sheets.hero(reconstruction(rng, False)).axes) == 6


def test_masked_places_are_grey_and_the_colour_range_is_the_targets():
    example = reconstruction(np.random.default_rng(2))
    sheet = sheets.reconstruction_sheet(example)
    target, masked = (sheet.axes[i].images[0].get_array() for i in (0, 2))
    grey = np.array([int(figures.MASKED[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    np.testing.assert_allclose(masked[:, :16], np.broadcast_to(grey, (16, 16, 3)), atol=1e-6)
    np.testing.assert_array_equal(masked[:, 16:], target[:, 16:])
    assert sheets.colour_range([np.full((2, 2), np.nan)]) == (0.0, 1.0)
    assert sheets.colour_range([np.full((2, 2), 3.0)]) == (3.0, 4.0)


def test_curves_leave_gaps_and_share_panels():
    losses = curves.loss_curves(history())
    assert [axis.get_title(loc='left') for axis in losses.axes] == [
        'Total loss', 'Audio reconstruction', 'Audio–video contrast (InfoNCE)'
    ]  # fmt: skip
    assert np.isnan(losses.axes[1].lines[0].get_ydata()[3])
    np.testing.assert_allclose(losses.axes[2].lines[1].get_ydata(), math.log(64))
    held_out = curves.evaluation_curves(history())
    assert [len(axis.lines) for axis in held_out.axes] == [2]
    assert curves.evaluation_curves(history()[:3]) is None


def test_a_single_line_of_history_can_be_drawn():
    line = [{'samples': 0, 'loss': 1.0, 'a$b$': 2.0, 'batch_size': 8, 'eval/$y$': 0.5}]
    for draw in (curves.loss_curves, curves.schedule_curves, curves.evaluation_curves):
        with Image.open(io.BytesIO(figures.to_png(draw(line)))) as image:
            assert image.width == round(figures.WIDTH * figures.DPI)


def test_plan_totals_weigh_the_saving_by_macs():
    plan = [{'steps': 1, 'macs': 3.0, 'saved': 0.25}, {'steps': 2, 'macs': 1.0, 'saved': 0.5}]
    assert run_page.plan_totals(plan) == {'steps': 3, 'macs': 4.0, 'saved': pytest.approx(1 - 4 / 6)}
    assert run_page.plan_totals([{'steps': 1}]) == {'steps': 1}


def test_a_row_must_fit_its_table():
    with pytest.raises(ValueError, match='1 values for 2 columns'):
        content.Table('t', '', ['a', 'b'], [content.Row('r', [1.0])])


def test_a_classifiers_page_shows_confusions_and_mistakes_to_hear_and_see(tmp_path):
    wav = b'RIFF a file'
    report = content.Report(
        title='classes',
        confusion=content.Confusion(np.array([[3, 1], [0, 4]]), ('<cat>', 'dog')),
        mistakes=[
            content.Mistake(
                id='a.wav',
                truth='<cat>',
                guess='dog',
                probability=0.93,
                sound=wav,
                frames=np.random.default_rng(0).random((4, 8, 8, 3)),
            )
        ],
    )
    page = run_page.write_report(report, tmp_path).read_text()
    assert '&lt;cat&gt;, taken for dog (93.0 %)' in page and '<cat>' not in page
    assert f'data:audio/wav;base64,{base64.b64encode(wav).decode()}' in page
    assert page.count(DATA_URI) == 2
    assert (tmp_path / 'confusion.png').exists()
    run_page.write_report(content.Report(title='classes'), tmp_path)
    assert not (tmp_path / 'confusion.png').exists()
