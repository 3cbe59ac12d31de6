"""Nodes that hand a mixture over: what it is expected to gain, and the files of the trainers that read it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import (
    InfluenceParameters,
    OptimizeParameters,
    ReweightParameters,
    RunParameters,
    TrainParameters,
)
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import TokenShards

_SUMMARY = "exports.json"
_GAIN_UNIT = "nats per token by influence.calibration, over the mixture in force"


def _relevant_to_gains(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"influence": {"calibration": parameters.influence.calibration}}


def _relevant_to_exports(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "experiment": parameters.experiment,
        "reweight": parameters.reweight.model_dump(mode="json"),
        "train": parameters.train.model_dump(mode="json", include={"batch_size", "context"}),
        "optimize": {"max_epochs": parameters.optimize.max_epochs},
    }


@step(_relevant_to_gains)
def state_gains(
    spread: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    decision: Mapping[str, Any],
    influence: InfluenceParameters,
) -> dict[str, Any]:
    """Say what each task is expected to gain over the mixture in force, and what it would without constraints.

    That is known of TiKMiX-D alone.
    """
    from tikmix_pipeline.influence.gain import expected_gains
    from tikmix_pipeline.mixture.recording import gains_record

    mixtures = [after, *([decision["unconstrained"]] if "unconstrained" in decision else [])]
    gains = [
        expected_gains(spread, before["weights"], mixture["weights"], calibration=influence.calibration)
        for mixture in mixtures
    ]
    return gains_record(*gains).to_json()


@step(nothing)
def state_no_gains(decided: Mapping[str, Any]) -> dict[str, Any]:
    """Say that nothing was measured that tells what to expect of a mixture."""
    del decided
    return {}


@step(_relevant_to_exports)
def export_mixtures(
    gains: Mapping[str, Any],
    corpus: TokenShards,
    reweight: ReweightParameters,
    train: TrainParameters,
    optimize: OptimizeParameters,
    experiment: str,
    *history: Mapping[str, Any],
) -> Callable[[Path], Any]:
    """Write all mixtures so far in the formats of `reweight.exports`.

    Args:
        gains: of the last mixture, by task; none where nothing was measured.
        corpus: tells how long documents are.
        reweight: trainers, and what these call the domains' data.
        train: batch and context, where `reweight` gives none.
        optimize: how often a domain may be read.
        experiment: named in the files.
        history: mixture and stock of every round, then the mixture that was decided.
    """
    from tikmix_pipeline.export.registry import write
    from tikmix_pipeline.export.schedule import Gain, Schedule
    from tikmix_pipeline.mixture.records import TokenBudget

    decided, stock = history[-1], TokenBudget.from_json(history[-2])
    batch = reweight.batch_tokens or train.tokens_per_step
    schedule = Schedule(
        stages=_stages(history, batch),
        domains=[_domain(name, corpus, stock, reweight, optimize) for name in _ever(history)],
        batch_tokens=batch,
        context=reweight.context or train.context,
        chunk_tokens=stock.chunk_tokens,
        experiment=experiment,
        round=decided["round"],
        epochs=decided["epochs"],
        expected_gain={task: Gain(gain["gain"], gain["stderr"]) for task, gain in gains.items()},
        gain_unit=_GAIN_UNIT,
    )
    exported = [write(trainer, schedule) for trainer in reweight.exports]
    return lambda folder: _write_files(exported, folder)


def _stages(history: tuple[Mapping[str, Any], ...], batch_tokens: int) -> list[Any]:
    """Return every mixture with where it begins; one that nothing was trained under is left out."""
    from tikmix_pipeline.export.schedule import Stage

    mixtures, stocks = history[::2], history[1::2]
    starts = [0, *(round(sum(stock["consumed"].values())) for stock in stocks)]
    by_start = {start: mixture["weights"] for start, mixture in zip(starts, mixtures, strict=True)}
    return [Stage(round(start / batch_tokens), start, weights) for start, weights in by_start.items()]


def _ever(history: tuple[Mapping[str, Any], ...]) -> list[str]:
    """Return the domains of all mixtures: those that are gone have no weight in the last, but had some before."""
    return list(dict.fromkeys(name for mixture in history[::-2] for name in mixture["weights"]))


def _domain(
    name: str, corpus: TokenShards, stock: Any, reweight: ReweightParameters, optimize: OptimizeParameters
) -> Any:
    from tikmix_pipeline.export.schedule import Domain

    documents = corpus.documents(name) if name in corpus.domains else 0
    return Domain(
        name=name,
        path=reweight.paths.get(name, name),
        available_tokens=stock.available.get(name),
        mean_tokens_per_document=corpus.tokens(name) / documents if documents else None,
        consumed_tokens=round(stock.consumed.get(name, 0)),
        max_epochs=optimize.max_epochs,
    )


def _write_files(exported: list[Any], folder: Path) -> None:
    from tikmix_pipeline.files import replacing

    summary = [
        {"trainer": one.trainer, "files": sorted(one.files), "switch": one.switch, "notes": list(one.notes)}
        for one in exported
    ]
    with replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, text in ((name, text) for one in exported for name, text in one.files.items()):
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / _SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def read_exports(folder: Path) -> Any:
    """Read what was written for which trainer, and how to change over to it."""
    from tikmix_pipeline.files import read_json

    return read_json(folder / _SUMMARY)
