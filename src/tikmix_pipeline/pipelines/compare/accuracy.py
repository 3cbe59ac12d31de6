"""The node that scores the last checkpoint of every arm by lm-eval."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.parameters import CompareParameters, CorpusParameters, ModelParameters, RunParameters
from tikmix_pipeline.pipelines.compare.arms import arms_of, context_of
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.stages import artifact_path
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Table


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number
    harness = parameters.compare.harness
    own = _digests(root / harness.include_path) if harness.include_path else {}
    return {"harness": harness.model_dump(mode="json", exclude={"batch_size"}), "files": own}


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, without what Python and file managers leave there."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = [file for file in files if not any(part.startswith((".", "__pycache__")) for part in file.parts)]
    return {file.as_posix(): sha256_of_file(folder / file) for file in kept}


@step(_relevant)
def score_by_harness(
    scores: Table,
    project: Path,
    downloads: Path,
    tasks_folder: Path,
    compare: CompareParameters,
    corpus: CorpusParameters,
    model: ModelParameters,
    device: str,
) -> Table:
    """Return accuracy with its binomial interval, per arm, seed and task."""
    import pandas as pd

    from tikmix_pipeline.corpus.choices import evaluation_choices
    from tikmix_pipeline.lm.lm_eval import lm_eval_scores, write_lm_eval_tasks
    from tikmix_pipeline.progress import progress_bar
    from tikmix_pipeline.run_context import run_context

    write_lm_eval_tasks(evaluation_choices(corpus, root=project, downloads=downloads), tasks_folder)
    own = compare.harness.include_path
    paths = [tasks_folder, *([project / own] if own else [])]
    through = set(scores[["arm", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    arms = [arm for arm in arms_of(run_context().parameters) if (arm.name, arm.seed) in through]
    rows: list[dict[str, Any]] = []
    with progress_bar("lm-eval", len(arms), "checkpoint") as bar:
        for arm in arms:
            context = context_of(arm)
            last = of_round(context.parameters.tikmix.rounds - 1, "checkpoint")
            found = lm_eval_scores(
                artifact_path(context, last), compare.harness, include_paths=paths, model=model, device=device
            )
            rows += [{"arm": arm.name, "seed": arm.seed, **dataclasses.asdict(score)} for score in found]
            bar.update(1)
    return pd.DataFrame(rows)
