"""What the processes of a run tell each other, so that all of them take the same branch.

A branch that depends on a disk, a clock, a signal or the environment may differ from host to host. Before
anything that all processes have to do together, such as a step or a checkpoint, they agree on it here. As
with every collective, all processes make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
from jax._src import distributed

from diffmavil_jax.parallel.hosts import is_alone
from diffmavil_jax.parallel.rendezvous import Patience, spell_processes

T = TypeVar('T')

_LOOK_EVERY_MS = 1_000
_FOREVER_S = float('inf')  # JAX ends this process if another one dies
_round = itertools.count()


def gather(name: str, value: Any) -> list[Any]:
    """The JSON values of all processes, by their number.

    A process that does not come is named after ten seconds and every minute.

    Args:
        name: what is agreed on, in words.
        value: of this process.
    """
    if is_alone():
        return [value]
    client: Any = distributed.global_state.client
    count, number = jax.process_count(), jax.process_index()
    this = next(_round)
    folder = f'diffmavil/{this}/{name}/'
    client.key_value_set(f'{folder}{number}', json.dumps(value))
    patience = Patience(_FOREVER_S, lambda text: print(text, flush=True))
    while True:
        texts = {
            int(key.rpartition('/')[2]): text for key, text in client.key_value_dir_get(folder.rstrip('/'))
        }
        missing = sorted(set(range(count)) - texts.keys())
        if not missing:
            break
        if patience.is_due():
            patience.tell(f'{spell_processes(missing, count)} ({name})')
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the time is over
            client.blocking_key_value_get(f'{folder}{missing[0]}', _LOOK_EVERY_MS)
    if number == 0 and this:
        # All are in this round, so that all have read the one before.
        client.key_value_delete(f'diffmavil/{this - 1}')
    return [json.loads(texts[process]) for process in range(count)]


def first(name: str, value: T) -> T:
    """The JSON value of the first process, for all."""
    return gather(name, value)[0]


def any_of(name: str, value: bool) -> bool:
    """Whether the value of any process is true, for all."""
    return any(gather(name, value))


@contextlib.contextmanager
def together(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """All processes leave the block, or, if one of these exceptions leaves it in any of them, all raise it.

    Args:
        name: what is done in the block, in words.
        kinds: exceptions that are made from one string. Any other ends its process alone.
    """
    raised: Exception | None = None
    try:
        yield
    except kinds as error:
        raised = error
    kind = None if raised is None else next(i for i, kind in enumerate(kinds) if isinstance(raised, kind))
    failures = gather(name, None if raised is None else [kind, platform.node(), str(raised)])
    if raised is not None:
        raise raised
    for number, failure in enumerate(failures):
        if failure is not None:
            kind, node, text = failure
            raise kinds[kind](f'Process {number}, on {node}: {text}')
