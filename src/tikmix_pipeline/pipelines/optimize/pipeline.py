"""Wiring of the `optimize` pipeline."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Pipeline

from tikmix_pipeline.baselines.baseline import proxy_model
from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import influences, of_round
from tikmix_pipeline.pipelines.optimize import nodes
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Decide the mixture that follows one round, by the run's strategy."""
    run = current_run()
    is_baseline = run.parameters.tikmix.strategy in BASELINES
    return baseline_of_round(run, 0) if is_baseline else decision_of_round(run, run.round_of("optimize"))


def decision_of_round(run: Run, number: int) -> Pipeline:
    """Decide, at the end of round `number`, from its influence and that of the rounds before."""
    kept = run.parameters.tikmix.strategy == "prior"
    view = nodes.DirectView.of(run.parameters, name="prior" if kept else "direct")
    inputs = [of_round(number, "token_budget"), of_round(0, "mixture"), *influences(run, number)]
    decision = of_round(number, "decision")
    return Pipeline([cached_node(nodes.decide, view, inputs, decision, name="optimize_mixture", number=number)])


def baseline_of_round(run: Run, number: int) -> Pipeline:
    """Decide by another method than TiKMiX; the mixture is for all rounds after the first."""
    parameters, own, strategy = run.parameters, run.parameters.baselines, run.parameters.tikmix.strategy
    budget = of_round(number, "token_budget")
    trained = [budget, of_round(0, "mixture"), "corpus", of_round(number, "baseline_work")]
    function: Callable[..., Any]
    view: View
    if strategy == "ngram":
        function, inputs = nodes.decide_by_ngrams, [budget, "corpus"]
        view = nodes.NgramView.of(parameters, ngram=own.ngram)
    elif strategy == "doremi":
        function, inputs = nodes.decide_by_doremi, trained
        proxy = proxy_model(own.doremi.preset, parameters.model, "baselines.doremi.preset")
        view = nodes.DoremiView.of(parameters, model=proxy, doremi=own.doremi)
    elif strategy == "regmix":
        function, inputs = nodes.decide_by_regmix, trained
        proxy = proxy_model(own.regmix.preset, parameters.model, "baselines.regmix.preset")
        view = nodes.RegmixView.of(parameters, model=proxy, regmix=own.regmix)
    else:
        function, inputs = nodes.decide_by_rule, [budget]
        to_come = (parameters.tikmix.rounds - 1) * parameters.train.tokens_per_chunk
        unimax = {"unimax": own.unimax, "tokens_to_come": to_come}
        view = nodes.RuleView.of(parameters, **(unimax if strategy == "unimax" else dict.fromkeys(unimax)))
    decided = of_round(number, "baseline")
    return Pipeline([cached_node(function, view, inputs, decided, name="decide_baseline", number=number)])
