"""Checks annotated shapes and dtypes whenever a function of the package is called; see tests/conftest.py."""

import re

import beartype
import jax
import jaxtyping
import numpy as np

# The rooms that annotate arrays.
CHECKED = ('data', 'evaluation', 'inference', 'interop', 'models', 'objectives', 'report', 'training')
_ARRAY = re.compile(r'\b(Float|Int|UInt|Num|Bool|Shaped|Key)\d*\[')

# NumPy's arrays may stand for JAX's, as they do in JAX itself.
jaxtyping.Array = jax.Array | np.ndarray


def check(function):
    """Checks arrays with an annotated shape, and nothing else: tests may pass stand-ins for the rest.

    Constructors are not checked: JAX rebuilds pytrees with leaves that are no arrays.
    """
    if function.__name__ == '__init__':
        return function
    annotations = getattr(function, '__annotations__', {})
    function.__annotations__ = {name: hint for name, hint in annotations.items() if _ARRAY.search(str(hint))}
    return beartype.beartype(function)


def install():
    """Adds the check to every function of the rooms; only modules that are imported later have it."""
    jaxtyping.install_import_hook([f'diffmavil_jax.{room}' for room in CHECKED], 'tests.annotations.check')
