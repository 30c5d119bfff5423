"""The page of a run: what is written, that it is well formed, and that no text can break it."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from diffmavil_jax.report import content, figures, run_page
from tests.report.examples import full_report

VOID = {'meta', 'link', 'img', 'br', 'hr'}
DATA_URI = 'data:image/png;base64,'


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
        self.attributes = []  # (tag, attributes)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes.append((tag, attrs))
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


def test_pictures_have_texts_and_heads_of_tables_a_scope(written):
    attributes = parse(written / 'index.html').attributes
    assert all(attrs['alt'] for tag, attrs in attributes if tag == 'img')
    assert all(attrs['scope'] in ('row', 'col') for tag, attrs in attributes if tag == 'th')


def test_exactly_the_expected_files_are_written(written):
    assert {path.name for path in written.iterdir()} == {
        'index.html', 'summary.json', 'hero.png', 'losses.png', 'schedule.png', 'evaluation.png',
        'reconstruction-1.png', 'retrieval-audio-to-video.png', 'retrieval-video-to-audio.png',
    }  # fmt: skip


def test_page_embeds_each_png_but_the_hero_once(written):
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
    assert 'Saved is relative to\nMAViL at 0.8, at equal clips' in text
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
        'macs': {'reference': 'MAViL at 0.8'},
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
