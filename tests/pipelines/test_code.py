"""The code a step runs is found by reading it."""

from pathlib import Path

from tikmix_pipeline.corpus import readers as reader_files
from tikmix_pipeline.pipelines import branches, measuring
from tikmix_pipeline.pipelines.code import code_of
from tikmix_pipeline.pipelines.compare import nodes as compare
from tikmix_pipeline.pipelines.corpus import nodes as corpus
from tikmix_pipeline.pipelines.influence import nodes as influence
from tikmix_pipeline.pipelines.optimize import nodes as optimize
from tikmix_pipeline.pipelines.sweep.nodes import fit_surrogate
from tikmix_pipeline.pipelines.sweep.responses import sample_influence, train_candidates
from tikmix_pipeline.pipelines.train_chunk import nodes as train_chunk
from tikmix_pipeline.pipelines.validate import nodes as validate


def test_training_depends_on_trainer_stream_and_what_these_import() -> None:
    reached = set(code_of(train_chunk.train_one_chunk).modules)
    assert {"lm.chunk", "lm.trainer", "lm.optimizer", "lm.schedule", "corpus.stream", "corpus.shares"} <= reached


def test_training_does_not_depend_on_how_text_was_read_or_is_scored() -> None:
    reached = set(code_of(train_chunk.train_one_chunk).modules)
    assert not reached & {"corpus.build", "corpus.sources", "lm.evaluation", "influence.group", "mixture.direct"}


def test_scoring_does_not_depend_on_how_text_was_read() -> None:
    reached = set(code_of(train_chunk.evaluate).modules)
    assert "corpus.tasks" in reached
    assert not reached & {"corpus.build", "corpus.sources", "corpus.readers.registry"}


def test_preparing_text_depends_on_archives_clients_and_every_reader() -> None:
    reached = set(code_of(corpus.prepare).modules)
    readers = {f"corpus.readers.{path.stem}" for path in Path(reader_files.__file__).parent.glob("[a-z]*.py")}
    assert len(readers) > 10
    assert {"corpus.archives", "corpus.clients", "corpus.fetch", "corpus.records", "corpus.text"} | readers <= reached


def test_tables_and_figures_of_a_comparison_depend_on_the_statistics_in_them() -> None:
    assert {"pipelines.compare.results", "pipelines.compare.arms"} <= set(code_of(compare.run_arms).modules)
    tabulated, drawn = (set(code_of(of).modules) for of in (compare.tabulate_comparison, compare.draw_comparison))
    assert {"report.comparison_scores", "report.comparison_table", "pipelines.compare.results"} <= tabulated
    assert {"report.comparison_scores", "report.comparison_figures", "pipelines.compare.results"} <= drawn


def test_preparing_text_depends_on_parsing_and_splitting_of_items() -> None:
    assert {"corpus.tasks", "corpus.split", "corpus.overlap"} <= set(code_of(corpus.prepare).modules)


def test_stages_of_the_measurement_depend_on_what_they_run_and_no_more() -> None:
    fitted = set(code_of(influence.fit_curvature_factors).modules)
    collected = set(code_of(influence.collect_part_gradients).modules)
    computed = set(code_of(influence.compute_influence).modules)
    assert {"influence.curvature.kfac", "influence.curvature.taps", "influence.samples", "lm.loss"} <= fitted
    assert {"influence.collect", "influence.gradients", "influence.samples", "lm.loss"} <= collected
    assert {"influence.products", "influence.standard_error", "influence.effect", "influence.stability"} <= computed
    assert not collected & {"influence.curvature.kfac", "influence.products", "mixture.direct"}
    assert not fitted & {"influence.store", "influence.products", "mixture.direct"}


def test_what_is_imported_above_a_step_is_found_like_what_it_imports_itself() -> None:
    assert "pipelines.measuring" in code_of(influence.compute_influence).modules
    assert "influence.curvature.build" in code_of(influence.compute_influence).modules
    assert "pipelines.branches" in code_of(validate.train_branches).modules


def test_growing_measurement_depends_on_the_decision_too() -> None:
    reached = set(code_of(influence.collect_gradients_until_stable).modules)
    assert {"influence.stopping", "influence.products", "influence.curvature.build", "mixture.direct"} <= reached


def test_a_part_s_gradient_depends_on_neither_curvature_nor_sampling() -> None:
    reached = set(code_of(measuring._measure_a_part).modules)
    assert {"influence.gradients", "lm.loss", "lm.model"} <= reached
    assert not reached & {"influence.samples", "influence.products", "influence.curvature.kfac"}


def test_a_chunk_depends_on_how_ranks_train_and_no_stage_on_what_starts_them() -> None:
    assert {"ranks.training", "lm.ranks.team", "lm.ranks.points"} <= set(code_of(train_chunk.train_one_chunk).modules)
    for node in (train_chunk.train_one_chunk, influence.fit_curvature_factors, influence.compute_influence):
        assert not set(code_of(node).modules) & {"ranks.launch", "ranks.work", "ranks.measuring", "ranks.on_ray"}


def test_two_steps_of_one_file_have_code_of_their_own() -> None:
    assert code_of(train_chunk.evaluate).digest != code_of(train_chunk.evaluate_fully).digest


def test_libraries_that_may_change_the_bits_are_part_of_it() -> None:
    assert {"torch", "numpy", "transformers"} <= code_of(train_chunk.train_one_chunk).libraries.keys()
    assert code_of(optimize.decide).libraries.keys() == {"numpy", "scipy"}


def test_branches_do_not_depend_on_the_curvatures_that_are_held_against_them() -> None:
    trained = set(code_of(validate.train_branches).modules)
    assert {"lm.branch", "lm.branch_pool", "lm.evaluation", "influence.counterfactual"} <= trained
    assert not trained & {"influence.curvature.build", "influence.products", "influence.agreement"}
    alone = set(code_of(branches._train_a_branch).modules)
    assert {"lm.branch", "lm.trainer", "lm.evaluation", "corpus.stream"} <= alone
    assert not {module for module in alone if module.startswith("influence")}


def test_every_kind_of_factors_depends_on_the_fit() -> None:
    for fit in (validate.fit_diagonal, validate.fit_kfac, validate.fit_ekfac):
        assert {"influence.curvature.fit", "influence.samples"} <= set(code_of(fit).modules)


def test_responses_of_a_sweep_depend_on_no_surrogate() -> None:
    for node in (sample_influence, train_candidates):
        modules = code_of(node).modules
        assert "mixture.sweep.surrogates" not in modules
        assert "mixture.sweep.search" not in modules
    assert "lm.branch_pool" in code_of(train_candidates).modules
    assert "mixture.sweep.sampled" in code_of(sample_influence).modules


def test_a_fitted_surrogate_depends_on_its_libraries_but_not_on_the_search() -> None:
    code = code_of(fit_surrogate)
    assert {"sklearn", "xgboost"} <= set(code.libraries)
    assert "mixture.sweep.gaussian_process" in code.modules
    assert "mixture.sweep.search" not in code.modules
