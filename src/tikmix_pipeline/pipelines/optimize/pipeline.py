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
    parameters, of = run.parameters, partial(of_round, number)
    kept = parameters.tikmix.strategy == "prior"
    anchoring = _anchor(run, number)
    measured = [*influences(run, number), *domain_products(run, number), *(node.outputs[0] for node in anchoring)]
    inputs = [of("token_budget"), of_round(0, "mixture"), *measured]
    deciding = partial(cached_node, outputs=of("decision"), name="optimize_mixture", number=number)
    name = "prior" if kept else "direct"
    if kept or parameters.optimize.method == "paper" or not parameters.optimize.branches:
        view = nodes.DirectView.of(parameters, name=name)
        return Pipeline([*anchoring, deciding(nodes.decide, view, inputs)])
    told = [of(one) for one in ("response_ratios", "response_losses", "measurement")]
    guardrails = parameters.optimize.guardrails.values()
    in_bytes = any(one is not None and one.unit == "bits_per_byte" for one in guardrails)
    branched = nodes.BranchedView.of(
        parameters, name=name, task_loss=parameters.influence.task_loss if in_bytes else None
    )
    on_branches = deciding(nodes.decide_on_branches, branched, [*inputs[:2], *told, "corpus", *measured])
    return Pipeline([*anchoring, *_branches(run, number, inputs), on_branches])


def _anchor(run: Run, number: int) -> list[Node]:
    """Find the mixture of n-gram models, if the entropy is to be relative to it."""
    parameters = run.parameters
    if parameters.optimize.anchor != "ngram":
        return []
    view = nodes.NgramModelView.of(parameters, ngram=_with_items(run, parameters.baselines.ngram))
    return [cached_node(nodes.anchor_by_ngrams, view, ["corpus"], of_round(number, "anchor"), number=number)]


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
        to_come = (parameters.tikmix.rounds - 1) * parameters.train.tokens_per_chunk
        unimax = {"unimax": own.unimax, "tokens_to_come": to_come}
        view = nodes.RuleView.of(parameters, **(unimax if strategy == "unimax" else dict.fromkeys(unimax)))
    decided = of_round(number, "baseline")
    return Pipeline([cached_node(function, view, inputs, decided, name="decide_baseline", number=number)])


def _with_items(run: Run, own: _Reading) -> _Reading:
    """Say how many items a baseline reads where it is to be as many as TiKMiX-D does."""
    return own.model_copy(update={"items": decision_items(run)}) if own.items == "measured" else own
