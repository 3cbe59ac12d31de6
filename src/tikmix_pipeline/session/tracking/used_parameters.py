"""Which parameters a run is logged with: those of what it runs, and none of the stages that it leaves out."""

from collections.abc import Collection
from typing import Any

from tikmix_pipeline.plan import only_sweeps_tables
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import flatten

_DECISION = {"influence", "optimize"}
_OF_STAGE = {
    "influence": _DECISION,  # influence.tokens=auto asks for the decision that follows
    "validate": {*_DECISION, "validate"},
    "optimize": _DECISION,
    "sweep": {*_DECISION, "sweep"},
    "reweight": {"reweight"},
    "remix": {*_DECISION, "reweight", "remix"},
    "compare": {*_DECISION, "sweep", "compare"},
}
"""The groups of parameters that a stage reads, besides those below."""
_OF_TABLES = {"sweep", "tikmix", "engine", *_DECISION}
_OF_TEXT = {"corpus"}
_OF_MODELS = {"model", "train", "tikmix", "engine"}
_METHODS = "baselines"


def used_parameters(run: Run, stages: Collection[str]) -> dict[str, Any]:
    """Return the parameters that a run of these stages may depend on, under dotted names."""
    values = flatten(run.parameters.model_dump(mode="json"))
    groups = _groups(run, set(stages))
    methods = _methods(run, groups)

    def is_used(key: str) -> bool:
        group, _, rest = key.partition(".")
        if group == _METHODS:
            return "compare" in stages or rest.split(".")[0] in methods
        return group in groups or group not in _STAGED

    return {key: value for key, value in values.items() if is_used(key)}


_STAGED = {*_OF_TABLES, *_OF_TEXT, *_OF_MODELS}.union(*_OF_STAGE.values())


def _groups(run: Run, stages: set[str]) -> set[str]:
    if only_sweeps_tables(run, stages):
        return _OF_TABLES
    read = set().union(*(_OF_STAGE.get(stage, set()) for stage in stages))
    return read | _OF_TEXT | (_OF_MODELS if stages - {"corpus"} else set())


def _methods(run: Run, groups: set[str]) -> set[str]:
    """Return the other methods of deciding that a run uses: its strategy, and the one that entropy is relative to."""
    parameters = run.parameters
    anchored = "optimize" in groups and parameters.optimize.entropy_anchor == "ngram"
    return {parameters.tikmix.strategy, *(["ngram"] if anchored else [])}
