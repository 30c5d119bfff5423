"""The documentation: its links lead somewhere, and the functions, flags, fields and commands in it exist."""

import argparse
import ast
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from configs import common, finetune
from diffmavil_jax.cli import COMMANDS
from diffmavil_jax.config.schema import Config, field_type, to_dict
from diffmavil_jax.interop.importing import Options, import_weights
from tests.interop import reference

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
PAGES += [ROOT / 'experiments' / 'README.md']
LINK = re.compile(r'\]\(([^)\s]+)\)')
NAMED = re.compile(r'\[`([\w.]+)`\]\(([^)\s]+\.py)\)')  # [`function`](its file)
FENCED = re.compile(r'^```\w*\n(.*?)^```', re.MULTILINE | re.DOTALL)
SECTIONS = tuple(name for name, value in to_dict(Config()).items() if isinstance(value, dict))
# A field in backquotes, maybe with a value. A page may say `model.`, `audio.` and `video.` of other things.
BARE = '|'.join(section for section in SECTIONS if section not in ('model', 'audio', 'video'))
FIELD = re.compile(rf'`(?:config\.(\w+\.\w+)|((?:{BARE})\.\w+))(?:=[^`]*)?`')

pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands_of(page):
    """The command lines of a page: the lines of fenced blocks, and what is in backquotes."""
    text = page.read_text()
    fenced = '\n'.join(FENCED.findall(text)).replace('\\\n', ' ')
    return [*fenced.splitlines(), *re.findall(r'`([^`]+)`', FENCED.sub('', text).replace('\n', ' '))]


def words_of(command, program):
    """The arguments of a program on a command line, without Beam's flags; None where it is not called."""
    if program not in command.split():
        return None
    words = shlex.split(command, comments=True)
    words = words[words.index(program) + 1 :]
    return words[: words.index('--')] if '--' in words else words


def anchors_of(page):
    """The anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r'^#+ (.+)$', FENCED.sub('', page.read_text()), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads}


def defines(path, name):
    """Whether a file defines a function, a class, or a method given as Class.method."""
    body = ast.parse(path.read_text()).body
    for part in name.split('.'):
        node = next((node for node in body if getattr(node, 'name', None) == part), None)
        if node is None:
            return False
        body = node.body
    return True


@pages
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if '://' in target:
            continue
        name, _, anchor = target.partition('#')
        path = page.parent / name if name else page
        assert path.exists(), f'{target} in {page.name}'
        if anchor and path.suffix == '.md':
            assert anchor in anchors_of(path), f'{target} in {page.name}'


@pages
def test_linked_files_define_the_function_that_is_named(page):
    for name, target in NAMED.findall(page.read_text()):
        assert defines(page.parent / target, name), f'{target} has no {name}, which {page.name} links to'


@pages
def test_no_link_counts_lines(page):
    assert '.py#L' not in page.read_text(), f'{page.name}: link the function by its name'


def test_every_row_of_the_method_names_its_function():
    _, equations = (ROOT / 'docs' / 'method.md').read_text().split('\n## ', 1)
    rows = [line for line in equations.splitlines() if line.startswith('| ')]
    rows = [row for row in rows if not row.startswith('| | computed by')]
    assert len(rows) > 30 and all(NAMED.search(row) for row in rows)


@pages
def test_flags_of_the_config_exist(page):
    text = page.read_text()
    flags = re.findall(r'--config\.([a-z_]+(?:\.[a-z_0-9]+)*)', text)
    # Fields in braces or before an ellipsis stand for several; they are not checked.
    named = [field or bare for field, bare in FIELD.findall(text)]
    for field in (*(flag for flag in flags if flag not in SECTIONS), *named):
        assert field_type(f'config.{field}'), f'{field} in {page.name}'


@pages
def test_configs_and_variants_exist(page):
    for name, variant in re.findall(r'configs/(\w+)\.py(?::(\w+))?', page.read_text()):
        assert (ROOT / 'configs' / f'{name}.py').exists()
        variants = finetune.VARIANTS if name == 'finetune' else common.VARIANTS
        assert not variant or variant in {*variants, 'help'}, f'{name}.py:{variant} in {page.name}'


@pages
def test_commands_parse(page):
    for command in commands_of(page):
        words = words_of(command, 'diffmavil') if command.startswith('diffmavil ') else None
        if not words or not words[0].islower() or '|' in words or '…' in command:
            continue  # the page speaks of several commands
        name, *flags = words
        if name == 'train':
            continue  # its flags are those of main.py
        assert name in COMMANDS, f'{command} in {page.name}'
        if all(re.fullmatch(r'--\w+', flag) for flag in flags) or any(flag.endswith('...') for flag in flags):
            continue  # the page names the command or a flag, and shows no whole command line
        parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
        COMMANDS[name].add_flags(parser)
        parser.error = lambda message, command=command: pytest.fail(f'{command} in {page.name}: {message}')
        parser.parse_args(flags)


@pages
def test_flags_of_main_exist(page):
    source = (ROOT / 'diffmavil_jax' / 'commands' / 'run.py').read_text()
    known = set(re.findall(r"flags\.DEFINE_\w+\(\s*'(\w+)'", source)) | {'config'}
    for command in commands_of(page):
        for word in words_of(command, 'main.py') or words_of(command, 'train') or ():
            if word.startswith('--') and not word.startswith('--config'):
                assert word[2:].split('=')[0] in known, f'{command} in {page.name}'


def test_every_page_is_in_the_index():
    index = (ROOT / 'docs' / 'README.md').read_text()
    for page in (ROOT / 'docs').glob('*.md'):
        assert page.name == 'README.md' or f'({page.name})' in index


def test_every_command_has_a_page():
    text = ''.join(page.read_text() for page in (ROOT / 'docs').glob('*.md'))
    assert all(f'diffmavil {name} ' in text for name in COMMANDS)


def test_every_promise_names_its_tests():
    page = (ROOT / 'docs' / 'reliability.md').read_text()
    rows = [row for row in re.findall(r'^\| (.+) \|$', page, re.MULTILINE) if not row.startswith('promise')]
    named = [re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', row.split(' | ')[1]) for row in rows]
    assert len(rows) > 15 and all(named)
    missing = [f'{path}::{name}' for tests in named for path, name in tests if not defines(ROOT / path, name)]
    assert not missing


def test_the_lines_that_need_no_package_give_the_features(tmp_path, monkeypatch):
    """An AudioMAE with random parameters: its own forward pass is the reference."""
    state = reference.vit(channels=1, patch=16, count=16)
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in state.items()}
    safetensors.numpy.save_file(arrays, tmp_path / 'audiomae.safetensors')
    output = tmp_path / 'runs' / 'encoders'
    import_weights('audiomae', tmp_path / 'audiomae.safetensors', output, Options(), overwrite=False)
    page = (ROOT / 'docs' / 'weights.md').read_text().split('## Without this package')[1]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(re.search(r'```python\n(.*?)```', page, re.DOTALL)[1], names)
    sound = np.random.default_rng(0).normal(size=(2, 32, 128))
    patches = sound.reshape(2, 2, 16, 8, 16).swapaxes(2, 3).reshape(2, 16, 256)
    x = reference.embedded(state, 'patch_embed.proj', sound[:, None]) + state['pos_embed'][:, 1:]
    first = np.repeat(state['cls_token'] + state['pos_embed'][:, :1], 2, axis=0)
    x = np.concatenate([first, x], axis=1)
    for i in range(reference.LAYERS):
        x = reference.block(state, f'blocks.{i}', x)
    theirs = reference.normed(state, 'norm', x[:, 1:]).mean(axis=1)
    np.testing.assert_allclose(names['features'](patches), theirs, atol=1e-4)
