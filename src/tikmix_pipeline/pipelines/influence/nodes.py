"""Nodes of the `influence` pipeline."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, RunParameters, TrainParameters
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Checkpoint, Figure, Table, TokenShards


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "influence": parameters.influence.model_dump(mode="json", exclude={"device"}),
        "train": parameters.train.model_dump(mode="json", include={"context", "beta2", "epsilon"}),
        "seed": parameters.seed,
    }


@step(_relevant)
def measure(
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
) -> tuple[Table, dict[str, Any]]:
    """Measure how much more of each domain would help each task."""
    import numpy as np
    import pandas as pd

    from tikmix_pipeline.influence.measure import measure_checkpoint

    found = measure_checkpoint(
        checkpoint, corpus, mixture["weights"], model=model, train=train, influence=influence, seed=seed
    )
    table = pd.DataFrame(
        {
            "task": np.repeat(found.tasks, len(found.domains)),
            "domain": np.tile(found.domains, len(found.tasks)),
            "influence": found.influence_TK.ravel(),
            "stderr": found.stderr_TK.ravel(),
        }
    )
    report = {
        "curvature": dataclasses.asdict(found.curvature),
        "coverage": found.curvature.coverage(),
        "task_loss": dict(zip(found.tasks, found.task_loss_T.tolist(), strict=True)),
        "domain_loss": dict(zip(found.domains, found.domain_loss_K.tolist(), strict=True)),
        "task_tokens": dict(zip(found.tasks, found.task_tokens_TM.sum(1).tolist(), strict=True)),
        "domain_tokens": dict(zip(found.domains, found.domain_tokens_KL.sum(1).tolist(), strict=True)),
    }
    return table, report


@step(nothing)
def draw_influence(influence: Table) -> Figure:
    """Draw the task x domain heat map."""
    from tikmix_pipeline.pipelines.figures import influence_heat_map

    return influence_heat_map(influence)
