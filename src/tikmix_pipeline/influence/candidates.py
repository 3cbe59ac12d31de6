"""What each candidate predicts, all from one set of gradient chunks: no candidate costs another backward pass.

The prediction for a branch under w' = (1 − step) w + step e_j is, to first order in the mixture,

    P[t, j] = Σ_k (w' − w)_k S[t, k] = step · (S[t, j] − Σ_k w_k S[t, k]).

Axes: T tasks, K domains.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.group import MOVED_SHARE, GroupInfluence, group_influence
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import OpenParameters
from tikmix_pipeline.parameters.training import ProductParameters
from tikmix_pipeline.parameters.validation import Candidate
from tikmix_pipeline.progress import progress_bar


def candidate_influences(
    candidates: Sequence[Candidate],
    gradients: GradientStore,
    model: nn.Module,
    *,
    influence: OpenParameters,
    factors: Sequence[Factors],
    optimizer_state: Mapping[str, Tensor],
    train: ProductParameters,
    horizon: float,
    mixture: Mapping[str, float],
) -> Iterator[tuple[Candidate, GroupInfluence]]:
    """Yield the influence that each candidate finds.

    Args:
        candidates: ways to predict.
        gradients: gradient chunks at the checkpoint.
        model: the checkpoint, on the device to work on.
        influence: what the candidates leave open.
        factors: one fit per kind that the candidates need, over all their groups.
        optimizer_state: `Checkpoint.optimizer_tensors()`, read for `adam`.
        train: the optimiser's parameters.
        horizon: sum of the learning rates over a branch.
        mixture: the baseline's, which effects are stated against.

    Raises:
        TikmixError: a candidate does not fit the checkpoint, or one gradient does not fit into the memory given.
    """
    by_kind: dict[str, Factors] = {fitted.kind: fitted for fitted in factors}
    with progress_bar("Candidates", len(candidates), "candidate") as bar:
        for candidate in candidates:
            applied = candidate.applied_to(influence)
            curvature = build_curvature(
                applied,
                model,
                factors=by_kind[candidate.curvature] if applied.needs_factors else None,
                optimizer_state=optimizer_state,
                train=train,
                horizon=horizon,
            )
            yield (
                candidate,
                group_influence(
                    gradients,
                    curvature,
                    reference=mixture,
                    memory_megabytes=influence.memory_megabytes,
                    device=device_of(model),
                ),
            )
            bar.update(1)


def prediction_rows(candidate: Candidate, found: GroupInfluence, step: float) -> Iterator[dict[str, object]]:
    """Yield a row per task and domain: the influence, and the effect that it predicts for a branch with its error."""
    scale = step / MOVED_SHARE
    for row, task in enumerate(found.tasks):
        for column, domain in enumerate(found.domains):
            yield {
                "candidate": candidate.label,
                "task": task,
                "domain": domain,
                "influence": float(found.influence_TK[row, column]),
                "predicted": scale * float(found.effect_TK[row, column]),
                "predicted_stderr": scale * float(found.effect_stderr_TK[row, column]),
            }
