"""Wiring of the `optimize` pipeline."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.baselines.baseline import proxy_model
from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.parameters.baselines import NgramParameters, RegmixParameters
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import domain_products, influences, of_round
from tikmix_pipeline.pipelines.optimize import branches, nodes
from tikmix_pipeline.pipelines.views import branch_schedule, decision_items
from tikmix_pipeline.run import Run, current_run

_Reading = TypeVar("_Reading", NgramParameters, RegmixParameters)


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
    parameters, own, strategy = run.parameters, run.parameters.baselines, run.parameters.tikmix.strategy
    budget = of_round(number, "token_budget")
    trained = [budget, of_round(0, "mixture"), "corpus", of_round(number, "baseline_work")]
    function: Callable[..., Any]
    view: View
    if strategy == "ngram":
        function, inputs = nodes.decide_by_ngrams, [budget, "corpus"]
        view = nodes.NgramView.of(parameters, ngram=_with_items(run, own.ngram))
    elif strategy == "doremi":
        function, inputs = nodes.decide_by_doremi, trained
        proxy = proxy_model(own.doremi.preset, parameters.model, "baselines.doremi.preset")
        view = nodes.DoremiView.of(parameters, model=proxy, doremi=own.doremi)
    elif strategy == "regmix":
        function, inputs = nodes.decide_by_regmix, trained
        proxy = proxy_model(own.regmix.preset, parameters.model, "baselines.regmix.preset")
        view = nodes.RegmixView.of(parameters, model=proxy, regmix=_with_items(run, own.regmix))
    else:
        function, inputs = nodes.decide_by_rule, [budget]
        to_come = max(1, parameters.tikmix.total_rounds - 1) * parameters.train.tokens_per_chunk
        unimax = {"unimax": own.unimax, "tokens_to_come": to_come}
        view = nodes.RuleView.of(parameters, **(unimax if strategy == "unimax" else dict.fromkeys(unimax)))
    decided = of_round(number, "baseline")
    return Pipeline([cached_node(function, view, inputs, decided, name="decide_baseline", number=number)])


def _with_items(run: Run, own: _Reading) -> _Reading:
    """Say how many items a baseline reads where it is to be as many as TiKMiX-D does."""
    return own.model_copy(update={"items": decision_items(run)}) if own.items == "measured" else own
