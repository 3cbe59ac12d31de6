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
from tikmix_pipeline.parameters.measurement import TaskLossParameters
from tikmix_pipeline.parameters.training import ModelParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import counted_rounds, domain_products, influences, of_round, parts_of_influence
from tikmix_pipeline.pipelines.optimize import baselines, branches, nodes
from tikmix_pipeline.pipelines.views import branch_schedule, decision_items
from tikmix_pipeline.run import Run, current_run

_Reading = TypeVar("_Reading", NgramParameters, RegmixParameters, MixminParameters, DgaParameters, FastmixParameters)
_Decided = tuple[Callable[..., Any], View, list[str]]
"""A node's function, its view, and its inputs; of a baseline those after the token budget."""


def create_pipeline(**_: Any) -> Pipeline:
    """Decide the mixture that follows one round, by the run's strategy."""
    run = current_run()
    is_baseline = run.parameters.tikmix.strategy in BASELINES
    return baseline_of_round(run, 0) if is_baseline else decision_of_round(run, run.round_of("optimize"))


def decision_of_round(run: Run, number: int) -> Pipeline:
    """Decide, at the end of round `number`, from its influence and that of the rounds before."""
    kept = run.parameters.tikmix.strategy == "prior"
    name = "prior" if kept else "direct"
    anchoring = _anchor(run, number)
    inputs, measured = _inputs(run, number)
    deciding = partial(cached_node, outputs=of_round(number, "decision"), name="optimize_mixture", number=number)
    if kept or not _rests_on_branches(run):
        view = nodes.DirectView.of(run.parameters, name=name)
        drawing = [] if kept else [_drawing(run, number)]
        return Pipeline([*anchoring, deciding(nodes.decide, view, [*inputs, *measured]), *drawing])
    branched = nodes.BranchedView.of(run.parameters, name=name, influence=_task_loss(run))
    on_branches = deciding(nodes.decide_on_branches, branched, [*inputs, *_told_by_branches(number), *measured])
    branching = _branches(run, number, [*inputs, *measured])
    return Pipeline([*anchoring, *branching, on_branches, _drawing(run, number)])


def _drawing(run: Run, number: int) -> Node:
    """Draw what the decision of round `number` rested on."""
    optimize, of = run.parameters.optimize, partial(of_round, number)
    rounds = len(counted_rounds(run, number))
    anchor = "n-gram models" if optimize.is_drawn_to_ngrams else ""
    view = nodes.DecisionFigureView.of(run.parameters, number=number, rounds=rounds, anchor=anchor)
    decided = [of("decision"), of("token_budget")]
    return cached_node(nodes.draw_decision, view, decided, of("decision_figure"), number=number)


def asked_of_round(run: Run, number: int) -> Node:
    """Say what each task would have got, had it alone decided at the end of round `number`, by TiKMiX-D."""
    asking = _on_problem(run, number, nodes.ask_tasks, nodes.ask_tasks_on_branches)
    return cached_node(*asking, "asked_mixtures", name="ask_tasks", stage="tikmix")


def problem_of_round(run: Run, number: int) -> Pipeline:
    """State what the decision of round `number` was made of, if gains are of second order."""
    if run.parameters.optimize.method != "response":
        return Pipeline([])
    stating = _on_problem(run, number, nodes.state_problem, nodes.state_problem_on_branches)
    return Pipeline([cached_node(*stating, of_round(number, "problem"), name="state_problem", number=number)])


def _on_problem(run: Run, number: int, alone: Callable[..., Any], on_branches: Callable[..., Any]) -> _Decided:
    """Return which of two functions fits what a decision rests on, with its view and its inputs."""
    inputs, measured = _inputs(run, number)
    if not _rests_on_branches(run):
        return alone, nodes.MixtureView.of(run.parameters), [*inputs, *measured]
    view = nodes.BranchedMixtureView.of(run.parameters, influence=_task_loss(run))
    return on_branches, view, [*inputs, *_told_by_branches(number), *measured]


def _inputs(run: Run, number: int) -> tuple[list[str], list[str]]:
    """Return the token budget and the prior, and what was measured that a decision rests on."""
    budget = [of_round(number, "token_budget"), of_round(0, "mixture")]
    anchor = [of_round(number, "anchor")] if run.parameters.optimize.entropy_anchor == "ngram" else []
    parts = parts_of_influence(run, number)
    return budget, [*influences(run, number), *domain_products(run, number), *parts, *anchor]


def _rests_on_branches(run: Run) -> bool:
    return run.parameters.optimize.method == "response" and run.parameters.optimize.branches > 0


def _told_by_branches(number: int) -> list[str]:
    return [*(of_round(number, name) for name in ("response_ratios", "response_losses", "measurement")), "corpus"]


def _task_loss(run: Run) -> TaskLossParameters | None:
    """Return what a task's loss is, where a guardrail asks for bits per byte."""
    guardrails = run.parameters.optimize.guardrails.values()
    is_asked = any(one is not None and one.unit == "bits_per_byte" for one in guardrails)
    return run.parameters.influence.narrowed(TaskLossParameters) if is_asked else None


def _anchor(run: Run, number: int) -> list[Node]:
    """Find the mixture of n-gram models, if the entropy is to be relative to it."""
    parameters = run.parameters
    if parameters.optimize.entropy_anchor != "ngram":
        return []
    view = baselines.NgramModelView.of(parameters, ngram=_with_items(run, parameters.baselines.ngram))
    return [cached_node(baselines.anchor_by_ngrams, view, ["corpus"], of_round(number, "anchor"), number=number)]


def _branches(run: Run, number: int, inputs: list[str]) -> list[Node]:
    """Train the branches that measure how the checkpoint responds; `inputs` are those of a decision without them."""
    of, node, parameters = partial(of_round, number), partial(cached_node, number=number), run.parameters
    steps = parameters.optimize.branch_steps(parameters.train)
    chosen = branches.BranchesView.of(parameters, count=parameters.optimize.branches)
    response = branches.ResponseView.of_steps(run, number, steps=steps)
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
    to_come = max(1, parameters.tikmix.total_rounds - 1) * parameters.train.tokens_per_chunk
    unimax = {"unimax": parameters.baselines.unimax, "tokens_to_come": to_come}
    counting = unimax if parameters.tikmix.strategy == "unimax" else dict.fromkeys(unimax)
    return baselines.decide_by_rule, baselines.RuleView.of(parameters, **counting), []


def _by_ngrams(run: Run, _: int) -> _Decided:
    view = baselines.NgramView.of(run.parameters, ngram=_with_items(run, run.parameters.baselines.ngram))
    return baselines.decide_by_ngrams, view, ["corpus"]


def _by_doremi(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.doremi
    view = baselines.DoremiView.of(run.parameters, model=_proxy(run, own.preset, "doremi"), doremi=own)
    return baselines.decide_by_doremi, view, [of_round(0, "mixture"), *_text_and_work(number)]


def _by_regmix(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.regmix
    proxy = _proxy(run, own.preset, "regmix")
    view = baselines.RegmixView.of(run.parameters, model=proxy, regmix=_with_items(run, own))
    return baselines.decide_by_regmix, view, [of_round(0, "mixture"), *_text_and_work(number)]


def _by_mixmin(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.mixmin
    schedule = branch_schedule(run, number, steps=own.steps(run.parameters.train), anneal=True)
    view = baselines.MixminView.of(run.parameters, mixmin=_with_items(run, own), schedule=schedule)
    return baselines.decide_by_mixmin, view, [of_round(number, "checkpoint"), *_text_and_work(number)]


def _by_dga(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.dga
    schedule = branch_schedule(run, number, steps=own.steps(run.parameters.train), anneal=False)
    view = baselines.DgaView.of(run.parameters, dga=_with_items(run, own), schedule=schedule)
    start = [of_round(number, "mixture"), of_round(number, "checkpoint")]
    return baselines.decide_by_dga, view, [*start, *_text_and_work(number)]


def _by_fastmix(run: Run, number: int) -> _Decided:
    own = run.parameters.baselines.fastmix
    proxy = _proxy(run, own.preset, "fastmix")
    view = baselines.FastmixView.of(run.parameters, model=proxy, fastmix=_with_items(run, own))
    return baselines.decide_by_fastmix, view, _text_and_work(number)


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
