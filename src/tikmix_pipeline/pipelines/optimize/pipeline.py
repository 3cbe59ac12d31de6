"""Wiring of the `optimize` pipeline."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.baselines.baseline import proxy_model
from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.parameters.baselines import (
    DgaParameters,
    FastmixParameters,
    MixminParameters,
    NgramParameters,
    RegmixParameters,
)
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.parameters.training import ModelParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import domain_products, influences, of_round
from tikmix_pipeline.pipelines.optimize import branches, nodes
from tikmix_pipeline.pipelines.views import branch_schedule, decision_items
from tikmix_pipeline.run import Run, current_run

_Reading = TypeVar("_Reading", NgramParameters, RegmixParameters, MixminParameters, DgaParameters, FastmixParameters)
_Decided = tuple[Callable[..., Any], View, list[str]]
"""A node's function, its view, and its inputs after the token budget."""


def create_pipeline(**_: Any) -> Pipeline:
    """Decide the mixture that follows one round, by the run's strategy."""
    run = current_run()
    is_baseline = run.parameters.tikmix.strategy in BASELINES
    return baseline_of_round(run, 0) if is_baseline else decision_of_round(run, run.round_of("optimize"))


def decision_of_round(run: Run, number: int) -> Pipeline:
    """Decide, at the end of round `number`, from its influence and that of the rounds before."""
    kept = run.parameters.tikmix.strategy == "prior"
    view = nodes.DirectView.of(run.parameters, name="prior" if kept else "direct")
    measured = [*influences(run, number), *domain_products(run, number)]
    inputs = [of_round(number, "token_budget"), of_round(0, "mixture"), *measured]
    deciding = partial(cached_node, outputs=of_round(number, "decision"), name="optimize_mixture", number=number)
    if kept or run.parameters.optimize.method == "paper" or not run.parameters.optimize.branches:
        return Pipeline([deciding(nodes.decide, view, inputs)])
    told = [of_round(number, name) for name in ("response_ratios", "response_losses", "measurement")]
    on_branches = deciding(nodes.decide_on_branches, view, [*inputs[:2], *told, *measured])
    return Pipeline([*_branches(run, number, inputs), on_branches])


def _branches(run: Run, number: int, inputs: list[str]) -> list[Node]:
    """Train the branches that measure how the checkpoint responds; `inputs` are those of a decision without them."""
    of, node, parameters = partial(of_round, number), partial(cached_node, number=number), run.parameters
    steps = parameters.optimize.branch_steps(parameters.train)
    schedule = branch_schedule(run, number, steps=steps, anneal=True)
    chosen = branches.BranchesView.of(parameters, count=parameters.optimize.branches)
    response = branches.ResponseView.of(parameters, steps=steps, schedule=schedule)
    trained = [of("response_ratios"), of("checkpoint"), "corpus", of("response_branches")]
    outputs = [of("response_losses"), of("response_cost")]
    return [
        node(branches.choose_branches, chosen, inputs, of("response_ratios")),
        node(branches.train_response_branches, response, trained, outputs),
    ]


def baseline_of_round(run: Run, number: int) -> Pipeline:
    """Decide by another method than TiKMiX; the mixture is for all rounds after the first."""
    function, view, inputs = _BASELINES.get(run.parameters.tikmix.strategy, _by_rule)(run, number)
    inputs = [of_round(number, "token_budget"), *inputs]
    decided = of_round(number, "baseline")
    return Pipeline([cached_node(function, view, inputs, decided, name="decide_baseline", number=number)])


def _by_rule(run: Run, _: int) -> _Decided:
    parameters = run.parameters
    to_come = (parameters.tikmix.rounds - 1) * parameters.train.tokens_per_chunk
    unimax = {"unimax": parameters.baselines.unimax, "tokens_to_come": to_come}
    counting = unimax if parameters.tikmix.strategy == "unimax" else dict.fromkeys(unimax)
    return nodes.decide_by_rule, nodes.RuleView.of(parameters, **counting), []


def _by_ngrams(run: Run, _: int) -> _Decided:
    view = nodes.NgramView.of(run.parameters, ngram=_with_items(run, run.parameters.baselines.ngram))
    return nodes.decide_by_ngrams, view, ["corpus"]


def _by_doremi(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.doremi
    view = nodes.DoremiView.of(run.parameters, model=_proxy(run, own.preset, "doremi"), doremi=own)
    return nodes.decide_by_doremi, view, [of_round(0, "mixture"), *_text_and_work(number)]


def _by_regmix(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.regmix
    view = nodes.RegmixView.of(run.parameters, model=_proxy(run, own.preset, "regmix"), regmix=_with_items(run, own))
    return nodes.decide_by_regmix, view, [of_round(0, "mixture"), *_text_and_work(number)]


def _by_mixmin(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.mixmin
    schedule = branch_schedule(run, number, steps=own.steps(run.parameters.train), anneal=True)
    view = nodes.MixminView.of(run.parameters, mixmin=_with_items(run, own), schedule=schedule)
    return nodes.decide_by_mixmin, view, [of_round(number, "checkpoint"), *_text_and_work(number)]


def _by_dga(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.dga
    schedule = branch_schedule(run, number, steps=own.steps(run.parameters.train), anneal=False)
    view = nodes.DgaView.of(run.parameters, dga=_with_items(run, own), schedule=schedule)
    start = [of_round(number, "mixture"), of_round(number, "checkpoint")]
    return nodes.decide_by_dga, view, [*start, *_text_and_work(number)]


def _by_fastmix(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.fastmix
    view = nodes.FastmixView.of(run.parameters, model=_proxy(run, own.preset, "fastmix"), fastmix=_with_items(run, own))
    return nodes.decide_by_fastmix, view, _text_and_work(number)


_BASELINES: Mapping[str, Callable[[Run, int], _Decided]] = {
    "ngram": _by_ngrams,
    "doremi": _by_doremi,
    "regmix": _by_regmix,
    "mixmin": _by_mixmin,
    "dga": _by_dga,
    "fastmix": _by_fastmix,
}
"""Whoever does not decide by a rule."""


def _text_and_work(number: int) -> list[str]:
    return ["corpus", of_round(number, "baseline_work")]


def _proxy(run: Run, preset: str | None, name: str) -> ModelParameters:
    return proxy_model(preset, run.parameters.model, f"baselines.{name}.preset")


def _with_items(run: Run, own: _Reading) -> _Reading:
    """Say how many items a baseline reads where it is to be as many as TiKMiX-D does."""
    return own.model_copy(update={"items": decision_items(run)}) if own.items == "measured" else own
