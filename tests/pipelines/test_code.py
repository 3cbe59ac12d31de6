"""The code a step runs is found by reading it."""

from tikmix_pipeline.pipelines.code import code_of
from tikmix_pipeline.pipelines.corpus import nodes as corpus
from tikmix_pipeline.pipelines.influence import nodes as influence
from tikmix_pipeline.pipelines.optimize import nodes as optimize
from tikmix_pipeline.pipelines.train_chunk import nodes as train_chunk


def test_training_depends_on_trainer_stream_and_what_these_import() -> None:
    reached = set(code_of(train_chunk.train_one_chunk).modules)
    assert {"lm.chunk", "lm.trainer", "lm.optimizer", "lm.schedule", "corpus.stream", "corpus.shares"} <= reached


def test_training_does_not_depend_on_how_text_was_read_or_is_scored() -> None:
    reached = set(code_of(train_chunk.train_one_chunk).modules)
    assert not reached & {"corpus.build", "corpus.readers", "lm.evaluation", "influence.group", "mixture.direct"}


def test_preparing_text_depends_on_parsing_and_splitting_of_items() -> None:
    assert {"corpus.tasks", "corpus.split", "corpus.overlap"} <= set(code_of(corpus.prepare).modules)


def test_measuring_depends_on_every_file_of_its_curvature() -> None:
    reached = set(code_of(influence.measure).modules)
    assert {"influence.curvature.kfac", "influence.curvature.taps", "influence.standard_error", "lm.loss"} <= reached


def test_two_steps_of_one_file_have_code_of_their_own() -> None:
    assert code_of(train_chunk.evaluate).digest != code_of(train_chunk.evaluate_fully).digest


def test_libraries_that_may_change_the_bits_are_part_of_it() -> None:
    assert {"torch", "numpy", "transformers"} <= code_of(train_chunk.train_one_chunk).libraries.keys()
    assert code_of(optimize.decide).libraries.keys() == {"numpy", "scipy"}
