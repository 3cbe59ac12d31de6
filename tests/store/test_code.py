"""The code that a node runs is found by reading it, definition by definition."""

import ast
from collections.abc import Callable
from typing import Any

import pytest

from tikmix_pipeline.pipelines import views
from tikmix_pipeline.pipelines.compare import nodes as compare
from tikmix_pipeline.pipelines.corpus import nodes as corpus
from tikmix_pipeline.pipelines.influence import nodes as influence
from tikmix_pipeline.pipelines.optimize import nodes as optimize
from tikmix_pipeline.pipelines.sweep import nodes as sweep
from tikmix_pipeline.pipelines.train_chunk import nodes as train_chunk
from tikmix_pipeline.pipelines.validate import nodes as validate
from tikmix_pipeline.store import code
from tikmix_pipeline.store.code import code_of


def reached(function: Callable[..., Any]) -> set[str]:
    return set(code_of(function).definitions)


def test_a_decision_depends_on_the_rule_that_turns_auto_into_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OptimizeParameters.gain_of`, which stands in no science room and once left every decision fresh."""
    before = code_of(optimize.decide).digest
    assert "parameters.decision:ObjectiveParameters" in reached(optimize.decide)
    parse = ast.parse

    def changed(source: str, *rest: Any) -> ast.Module:
        return parse(source.replace("_TASKS_OF_PAPER / max(targets, 1)", "_TASKS_OF_PAPER / max(targets, 2)"), *rest)

    monkeypatch.setattr(code.ast, "parse", changed)
    forget()
    assert code_of(optimize.decide).digest != before
    monkeypatch.undo()
    forget()
    assert code_of(optimize.decide).digest == before


def forget() -> None:
    for cached in (code.code_of, code._module):
        cached.cache_clear()


def test_training_depends_on_trainer_stream_and_what_these_import() -> None:
    modules = code_of(train_chunk.train_one_chunk).modules
    assert {"lm.chunk", "lm.trainer", "lm.optimizer", "lm.schedule", "corpus.stream"} <= modules


def test_training_does_not_depend_on_how_text_was_read_or_is_scored() -> None:
    modules = code_of(train_chunk.train_one_chunk).modules
    assert not modules & {"corpus.build", "corpus.sources", "lm.evaluation", "influence.group", "mixture.direct"}


def test_scoring_does_not_depend_on_how_text_was_read() -> None:
    modules = code_of(train_chunk.evaluate).modules
    assert "corpus.tasks" in modules
    assert not modules & {"corpus.build", "corpus.sources"}


def test_code_of_an_input_is_found_by_its_annotation() -> None:
    assert "lm.checkpoint:Checkpoint" in reached(train_chunk.evaluate)
    assert "corpus.shards:TokenShards" in reached(train_chunk.count_tokens)


def test_preparing_text_depends_on_archives_clients_and_every_reader() -> None:
    assert {"corpus.packages", "corpus.records", "corpus.text"} <= code_of(corpus.prepare).modules
    readers = {name for name in reached(corpus.prepare) if name.startswith("corpus.readers")}
    assert len(readers) > 15


def test_preparing_text_depends_on_parsing_and_splitting_of_items() -> None:
    assert {"corpus.tasks", "corpus.text", "corpus.overlap"} <= code_of(corpus.prepare).modules


def test_parameters_of_other_stages_are_no_part_of_it() -> None:
    """A new parameter of the sweep must not make trained chunks stale."""
    found = reached(train_chunk.train_one_chunk)
    assert "parameters.training:StepParameters" in found
    assert not {name for name in found if name.startswith(("parameters.sweep", "parameters.decision"))}
    assert "parameters.training:TrainParameters" not in found


def test_stages_of_the_measurement_depend_on_what_they_run_and_no_more() -> None:
    fitted, collected = (code_of(of).modules for of in (influence.fit_factors, influence.collect_gradients))
    computed = code_of(influence.compute_influence).modules
    assert {"influence.curvature.kfac", "influence.samples", "lm.loss"} <= fitted
    assert {"influence.collect", "influence.gradients", "influence.samples", "lm.loss"} <= collected
    assert {"influence.products", "influence.standard_error", "influence.group"} <= computed
    assert not collected & {"influence.curvature.kfac", "influence.products", "mixture.direct"}
    # a fit leaves gradients behind for the next stage
    assert "influence.store" in fitted
    assert not fitted & {"influence.products", "mixture.direct"}


def test_growing_measurement_depends_on_the_decision_too() -> None:
    assert {"influence.products", "influence.curvature.build", "mixture.direct"} <= code_of(
        influence.collect_gradients_until_stable
    ).modules


def test_kept_gradients_and_branches_are_told_apart_by_the_code_that_makes_them_alone() -> None:
    from tikmix_pipeline.influence.gradients import mean_gradient
    from tikmix_pipeline.lm.branch_pool import train_and_score

    assert "lm.loss" in code_of(mean_gradient).modules
    assert not code_of(mean_gradient).modules & {"influence.samples", "influence.products", "influence.curvature.kfac"}
    assert {"lm.branch_pool", "lm.trainer", "lm.evaluation", "corpus.stream"} <= code_of(train_and_score).modules
    assert not {module for module in code_of(train_and_score).modules if module.startswith("influence")}
    assert views.branch_key() == code_of(train_and_score).key


def test_a_chunk_depends_on_how_ranks_train_and_no_stage_on_what_starts_them() -> None:
    assert {"distributed.sharding", "lm.resume"} <= code_of(train_chunk.train_one_chunk).modules
    for node in (train_chunk.train_one_chunk, influence.fit_factors, influence.compute_influence):
        assert not {module for module in code_of(node).modules if module.startswith(("jobs", "progress"))}
        assert not code_of(node).modules & {"distributed.launch", "distributed.rendezvous"}


def test_two_nodes_of_one_file_have_code_of_their_own() -> None:
    assert code_of(train_chunk.evaluate).digest != code_of(train_chunk.evaluate_by_item).digest


def test_libraries_that_may_change_the_bits_are_part_of_it() -> None:
    assert {"torch", "numpy", "transformers"} <= code_of(train_chunk.train_one_chunk).libraries.keys()
    assert code_of(optimize.decide).libraries.keys() == {"numpy", "scipy"}
    assert {"sklearn", "xgboost"} <= code_of(sweep.fit_surrogate).libraries.keys()


def test_branches_do_not_depend_on_the_curvatures_that_are_held_against_them() -> None:
    trained = code_of(validate.train_branches).modules
    assert {"lm.branch_pool", "lm.evaluation", "influence.counterfactual"} <= trained
    assert not trained & {"influence.curvature.build", "influence.products"}
    compared = {name for name in reached(validate.train_branches) if name.startswith("influence.agreement")}
    assert compared == {"influence.agreement:BASELINE", "influence.agreement:raised"}, "the names of branches alone"


def test_every_kind_of_factors_depends_on_the_fit() -> None:
    assert {"influence.curvature.fit", "influence.samples"} <= code_of(influence.fit_factors).modules


def test_responses_of_a_sweep_depend_on_no_surrogate() -> None:
    for node in (sweep.sample_influence, sweep.train_candidates):
        assert not code_of(node).modules & {"mixture.sweep.surrogates", "mixture.sweep.search"}
    assert "lm.branch_pool" in code_of(sweep.train_candidates).modules
    assert "mixture.sweep.sampled" in code_of(sweep.sample_influence).modules


def test_tables_of_a_comparison_depend_on_the_statistics_in_them() -> None:
    assert {"pipelines.compare.results", "pipelines.compare.arms"} <= code_of(compare.run_arms).modules
    assert {"report.comparison_table", "report.comparison_scores"} <= code_of(compare.tabulate_comparison).modules
    assert "report.comparison_figures" in code_of(compare.draw_comparison).modules


def test_a_fitted_surrogate_depends_on_its_model_but_not_on_the_search() -> None:
    modules = code_of(sweep.fit_surrogate).modules
    assert "mixture.sweep.gaussian_process" in modules
    assert "mixture.sweep.search" not in modules
