"""The objective of stage 2: a student predicts a frozen teacher's tokens of whole clips (MAViL)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Float

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.pretraining import PretrainingModel, View
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.objectives.reconstruction import normalize_patches
from diffmavil_jax.parallel.metrics import Metrics


class TeacherObjective(PretrainingObjective):
    """Stage 1 with other targets: in place of patches, the decoders predict a teacher's tokens.

    Masks, diffused patches and contrastive terms are those of stage 1. The target of a masked token is the
    teacher's token at the same position, after fusion over the whole clip, normalised to mean 0 and
    variance 1. Whether MAViL normalises it is not stated.
    """

    predicts_patches = False

    def __init__(self, config: Config, teacher: Config) -> None:
        """Makes both networks.

        Args:
            config: of the student's run.
            teacher: config of the teacher's run; its network may have another size.
        """
        super().__init__(config, target_dim=teacher.model.vit.width)
        self.teacher = PretrainingModel(teacher)

    def init(self, key: jax.Array, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]) -> Any:
        """The variables of the student, and under `frozen` those of the teacher."""
        teacher = self.teacher.init(key, to_patches(batch, self.config), method='tokens')
        return {**super().init(key, batch, counts), 'frozen': teacher['params']}

    def loss(  # type: ignore[override]  # the step passes the frozen parameters
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        counts: Mapping[str, TokenCounts],
        *,
        frozen: Any,
    ) -> tuple[Float[Array, ''], Metrics]:
        """See `PretrainingObjective.loss`; `frozen` has the teacher's parameters."""
        return self._loss(params, batch, counts, functools.partial(self._token_targets, frozen))

    def teacher_targets(
        self, frozen: Any, patches: dict[str, Float[Array, 'b n p']]
    ) -> dict[str, Float[Array, 'b n d']]:
        """The teacher's normalised tokens of whole clips."""
        tokens = self.teacher.apply({'params': frozen}, patches, method='tokens')
        return {modality: normalize_patches(x) for modality, x in jax.lax.stop_gradient(tokens).items()}

    def _token_targets(
        self, frozen: Any, views: dict[str, View], patches: dict[str, jax.Array], positions: jax.Array
    ) -> dict[str, Float[Array, 'b m d']]:
        del positions
        targets = self.teacher_targets(frozen, patches)
        return {modality: take_tokens(targets[modality], view.decoded) for modality, view in views.items()}
