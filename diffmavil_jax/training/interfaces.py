"""What the loop and those around it hand each other: evaluators, and timings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol


class Evaluator(Protocol):
    """Measures parameters on held-out clips."""

    def __call__(self, params: Any) -> Mapping[str, float]: ...


@dataclasses.dataclass
class Timings:
    """Seconds spent, over all starts of a run, and what was compiled.

    `train_s` includes `data_wait_s`; `compile_s` is what steps had to wait for the compiler.
    """

    train_s: float = 0.0
    compile_s: float = 0.0
    data_wait_s: float = 0.0
    evaluation_s: float = 0.0
    compilations: int = 0
