"""Wiring of the `optimize` pipeline."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Pipeline

from tikmix_pipeline.baselines.proxy import proxy_model
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.parameters.view import View
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
    strategy = run.parameters.tikmix.strategy
    budget, prior = of_round(number, "token_budget"), of_round(0, "mixture")
    trained = [budget, prior, "corpus", of_round(number, "baseline_work")]
    methods: dict[str, tuple[Callable[..., Any], Callable[[Run], View], list[str]]] = {
        **dict.fromkeys(("uniform", "proportional", "unimax"), (nodes.decide_by_rule, _rule_view, [budget])),
        "ngram": (nodes.decide_by_ngrams, _ngram_view, [budget, "corpus"]),
        "doremi": (nodes.decide_by_doremi, _doremi_view, trained),
        "regmix": (nodes.decide_by_regmix, _regmix_view, trained),
    }
    function, view, inputs = methods[strategy]
    decided = of_round(number, "baseline")
    return Pipeline([cached_node(function, view(run), inputs, decided, name="decide_baseline", number=number)])


def _rule_view(run: Run) -> View:
    parameters = run.parameters
    is_unimax = parameters.tikmix.strategy == "unimax"
    to_come = (parameters.tikmix.rounds - 1) * parameters.train.tokens_per_chunk
    return nodes.RuleView.of(
        parameters,
        unimax=parameters.baselines.unimax if is_unimax else None,
        tokens_to_come=to_come if is_unimax else None,
    )


def _ngram_view(run: Run) -> View:
    return nodes.NgramView.of(run.parameters, ngram=run.parameters.baselines.ngram)


def _doremi_view(run: Run) -> View:
    own = run.parameters.baselines.doremi
    proxy = proxy_model(own.preset, run.parameters.model, "baselines.doremi.preset")
    return nodes.DoremiView.of(run.parameters, model=proxy, doremi=own)


def _regmix_view(run: Run) -> View:
    own = run.parameters.baselines.regmix
    proxy = proxy_model(own.preset, run.parameters.model, "baselines.regmix.preset")
    return nodes.RegmixView.of(run.parameters, model=proxy, regmix=own)
