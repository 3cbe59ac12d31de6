"""The node that tells people what was measured, what is recommended and why."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import ModelParameters, OptimizeParameters, RunParameters
from tikmix_pipeline.pipelines.reweight.exports import read_exports
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, Table


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.report.page import page_digest

    del round_number, root
    return {
        "experiment": parameters.experiment,
        "model": {"checkpoint": parameters.model.checkpoint},
        "optimize": parameters.optimize.model_dump(mode="json"),
        "page": page_digest(),
        "seed": parameters.seed,
    }


@step(_relevant)
def write_report(
    checkpoint: Checkpoint,
    influence: Table,
    stock: Mapping[str, Any],
    in_force: Mapping[str, Any],
    mixture: Mapping[str, Any],
    decision: Mapping[str, Any],
    gains: Mapping[str, Any],
    measurement: Mapping[str, Any],
    model: ModelParameters,
    optimize: OptimizeParameters,
    experiment: str,
    seed: int,
    exports: Path | None = None,
) -> tuple[dict[str, Any], str]:
    """Gather what the round has recorded, and lay it out as a page."""
    from importlib.metadata import version

    from tikmix_pipeline.report.page import render_report
    from tikmix_pipeline.report.remix_records import RoundRecords, report_from_records

    records = RoundRecords(
        stock=stock,
        in_force=in_force,
        mixture=mixture,
        decision=decision,
        gains=gains,
        measurement=measurement,
        influence=influence.to_dict("records"),
        exports=read_exports(exports) if exports else (),
    )
    report = report_from_records(
        records,
        optimize,
        checkpoint=str(model.checkpoint),
        model=checkpoint.architecture,
        parameters=checkpoint.parameter_count(),
        experiment=experiment,
        seed=seed,
        version=version("tikmix-pipeline"),
    )
    return asdict(report), render_report(report)
