"""Checks annotated shapes and dtypes whenever a function of the package is called; see tests/conftest.py."""

import re

import beartype
import jax
import jaxtyping
import numpy as np

CHECKED = ('data', 'evaluation', 'inference', 'models', 'objectives', 'training')
_ARRAY = re.compile(r'\b(Float|Int|UInt|Bool|Key)\d*\[')

# NumPy's arrays may stand for JAX's, as they do in JAX itself.
jaxtyping.Array = jax.Array | np.ndarray


def check(function):
    """Checks what is annotated as an array with a shape; tests may hand in stand-ins for all else.

    Constructors are left out: JAX rebuilds pytrees with other leaves than arrays.
    """
    if function.__name__ == '__init__':
        return function
    annotations = getattr(function, '__annotations__', {})
    function.__annotations__ = {name: hint for name, hint in annotations.items() if _ARRAY.search(str(hint))}
    return beartype.beartype(function)


def install():
    """Rewrites the modules that are imported from now on."""
    jaxtyping.install_import_hook([f'diffmavil_jax.{room}' for room in CHECKED], 'tests.annotations.check')
