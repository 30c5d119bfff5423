"""A repository of networks on the Hugging Face Hub: read into its cache on this machine, and written to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import types
from collections.abc import Iterator

from diffmavil_jax.config.tree import ConfigError

PREFIX = 'hf://'

_NAME = r'[\w.-]+'
_PATH = re.compile(rf'hf://({_NAME}/{_NAME})(?:@([^/]+))?(?:/(.+?))?/*')
# What `saved` and `interop` read of a run, an import or an export.
_READ = ('config.json', 'card.json', '*.safetensors', 'checkpoints/*', 'report/summary.json')
_NOT_MODELS = ('datasets', 'spaces')


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a path that begins with `hf://` leads.

    Attributes:
        repository: ORG/NAME.
        revision: a branch, a tag or a commit; None: the main branch.
        below: a folder or file in the repository; empty: all of it.
    """

    repository: str
    revision: str | None
    below: str

    @classmethod
    def of(cls, path: str) -> Address:
        """Reads `hf://ORG/NAME[@REVISION][/FOLDER]`.

        Raises:
            ConfigError: it is spelt otherwise.
        """
        match = _PATH.fullmatch(path)
        if match is None or match[1].partition('/')[0] in _NOT_MODELS:
            raise ConfigError(
                f'{path}: must be hf://ORG/NAME, a repository of models; hf://ORG/NAME@REVISION and '
                f'hf://ORG/NAME/FOLDER are a revision and a folder of it.'
            )
        return cls(match[1], match[2], match[3] or '')


def is_hub(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on the Hub."""
    return os.fspath(path).startswith(PREFIX)


@functools.cache
def fetched(path: str) -> pathlib.Path:
    """Downloads what a network consists of, unless it is there; returns where it is on this machine.

    The Hub is asked once in a process, so that all that is read of a network is of one commit. Where it does
    not answer, the last commit that was downloaded whole is taken.

    Raises:
        ConfigError: there is no such repository or no access to it, or it can't be downloaded.
    """
    address = Address.of(path)
    hub = _client(path)
    with _config_errors(path, hub):
        root = hub.snapshot_download(
            address.repository, revision=address.revision, allow_patterns=[*_READ, *(f'*/{x}' for x in _READ)]
        )
    return pathlib.Path(root) / address.below


def check_push(path: str) -> None:
    """Checks that a repository can be written to, before anything is computed for it.

    Raises:
        ConfigError: there is no such repository, or no token that may write to it.
    """
    address, hub = Address.of(path), _client(path)
    if hub.get_token() is None:
        raise ConfigError(
            f'{path}: needs a token that may write to it: `hf auth login`, or the variable HF_TOKEN.'
        )
    with _config_errors(path, hub):
        hub.HfApi().repo_info(address.repository)


def push(folder: pathlib.Path, path: str, message: str) -> str:
    """Uploads a folder as one commit; what it does not have stays in the repository.

    Args:
        folder: on this machine.
        path: `hf://ORG/NAME`, or a branch or a folder of it.
        message: of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError: see `check_push`; or the upload fails, and the repository is as it was.
    """
    address, hub = Address.of(path), _client(path)
    with _config_errors(path, hub):
        commit = hub.HfApi().upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            path_in_repo=address.below or None,
            revision=address.revision,
            commit_message=message,
        )
    return str(commit.commit_url)


def _client(path: str) -> types.ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise ConfigError(f"{path}: needs the package huggingface_hub: pip install -e '.[hub]'.") from None
    huggingface_hub.utils.disable_progress_bars()
    return huggingface_hub


@contextlib.contextmanager
def _config_errors(path: str, hub: types.ModuleType) -> Iterator[None]:
    """Turns what a call of the Hub may raise into a ConfigError that says what to do."""
    errors = hub.errors
    try:
        yield
    except errors.RevisionNotFoundError:
        raise ConfigError(f'{path}: the repository has no such branch, tag or commit.') from None
    except errors.RepositoryNotFoundError:  # the Hub tells strangers nothing of private ones
        token = 'the token may not see it' if hub.get_token() else 'it is private and there is no token'
        raise ConfigError(
            f'{path}: there is no such repository, or {token} (`hf auth login`, or the variable HF_TOKEN); '
            f'`hf repo create` makes one.'
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise ConfigError(
            f'{path}: the Hub does not answer, and nothing whole was downloaded before '
            f'({_reason(error.__cause__ or error)}); the same command tries again.'
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = (
            'the token may not do that; take one that may write'
            if status in (401, 403)
            else 'the same command tries again'
        )
        raise ConfigError(f'{path}: the Hub refuses ({_reason(error)}); {advice}.') from None
    except Exception as error:  # its HTTP client has errors of its own, which change with its version
        raise ConfigError(
            f'{path}: the transfer failed ({_reason(error)}); the same command goes on with it.'
        ) from None


def _reason(error: BaseException) -> str:
    return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}'
