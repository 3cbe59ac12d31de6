"""`influence.gradients=stream` against gradients that are kept, and gradients kept in bfloat16 against float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from group_examples import DOMAINS, TASKS, GradientsAlive, collected, curvature_of, dealt
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence import streamed, task_rows
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.group import GroupInfluence, group_influence, influence_of
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.influence.streamed import StreamedInfluence, stream_influence

MEMORY = 100.0


def stream(
    folder: Path, model: torch.nn.Module, curvature: Curvature | None = None, memory: float = MEMORY
) -> StreamedInfluence:
    curvature = curvature or curvature_of(model)
    return stream_influence(model, dealt(), curvature, folder, key="one", memory_megabytes=memory)


def matrix(found: StreamedInfluence) -> GroupInfluence:
    return influence_of(found, found.products_TMKL, found.curvature)


@pytest.mark.parametrize("name", ["identity", "adam", "diagonal", "kfac", "ekfac"])
@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("gpt2", True)])
def test_streaming_finds_what_kept_gradients_give(tmp_path, kind, tied, name):
    model = tiny_model(kind, tied=tied)
    curvature = curvature_of(model, name)
    found = stream(tmp_path / "streamed", model, curvature)
    kept = group_influence(collected(tmp_path / "kept", model), curvature)
    largest = np.abs(kept.products_TMKL).max()
    np.testing.assert_allclose(found.products_TMKL, kept.products_TMKL, rtol=1e-9, atol=1e-11 * largest)
    assert found.sets("task") == tuple(TASKS)
    assert found.sets("domain") == tuple(DOMAINS)
    assert found.curvature == kept.curvature
    influence = matrix(found)
    np.testing.assert_array_equal(influence.task_tokens_TM, kept.task_tokens_TM)
    np.testing.assert_allclose(influence.domain_loss_K, kept.domain_loss_K, rtol=1e-12)


def test_rows_that_do_not_fit_into_the_memory_are_multiplied_in_bands(tmp_path):
    model = tiny_model("llama", tied=True)
    whole, in_bands = stream(tmp_path / "whole", model), stream(tmp_path / "bands", model, memory=0.01)
    np.testing.assert_allclose(in_bands.products_TMKL, whole.products_TMKL, rtol=1e-9)


@pytest.mark.parametrize("name", ["identity", "diagonal", "kfac", "ekfac"])
def test_large_tables_are_cut_into_segments_of_their_own(tmp_path, monkeypatch, name):
    model = tiny_model("gpt2", tied=True)
    curvature = curvature_of(model, name)
    whole = stream(tmp_path / "whole", model, curvature)
    monkeypatch.setattr(task_rows, "_SEGMENT_BYTES", 2000)
    monkeypatch.setattr(streamed.TaskRows, "discard", lambda _: None)
    in_segments = stream(tmp_path / "segments", model, curvature)
    np.testing.assert_allclose(in_segments.products_TMKL, whole.products_TMKL, rtol=1e-12)
    paths = list((tmp_path / "segments" / "tasks").glob("*.safetensors"))
    assert len(paths) > len(curvature) + 3


def test_memory_that_holds_no_row_is_refused(tmp_path):
    with pytest.raises(TikmixError, match=r"influence\.memory_megabytes .* is too little for one gradient"):
        stream(tmp_path, tiny_model("llama"), memory=0.0001)


@pytest.mark.parametrize("way", ["streamed", "kept"])
def test_bfloat16_moves_influence_by_less_than_a_tenth_of_its_standard_error(tmp_path, way):
    model = tiny_model("llama", tied=True).float()
    exact = group_influence(collected(tmp_path / "exact", model), curvature_of(model))
    if way == "streamed":
        found = matrix(stream(tmp_path / "streamed", model))
    else:
        store = GradientStore(tmp_path / "bfloat16", precision="bfloat16")
        collect_gradients(model, dealt(), store, key="checkpoint")
        found = group_influence(store, curvature_of(model))
    assert (np.abs(found.influence_TK - exact.influence_TK) < 0.1 * exact.stderr_TK).all()
    assert (found.influence_TK != exact.influence_TK).all()


def test_a_gradient_is_let_go_before_the_next_is_summed(tmp_path, monkeypatch):
    alive = GradientsAlive(streamed, monkeypatch)
    stream(tmp_path, tiny_model("llama"))
    assert alive.at_begin == [0] * sum(len(chunks) for sets in dealt().values() for chunks in sets.values())


def test_nothing_of_a_domain_is_written_and_tasks_take_two_bytes_a_scalar(tmp_path, monkeypatch):
    model = tiny_model("llama").float()
    monkeypatch.setattr(streamed.TaskRows, "discard", lambda _: None)
    stream(tmp_path, model)
    paths = list(tmp_path.rglob("*.safetensors"))
    scalars = sum(parameter.numel() for parameter in model.parameters())
    headers = 200 * len(paths)
    assert sum(path.stat().st_size for path in paths) < 2 * scalars * 3 * len(TASKS) + headers
    assert {path.parent.name for path in paths} == {"tasks"}


@pytest.mark.parametrize("before", [0, 4, 9, 12])
def test_killed_measurement_measures_only_what_is_missing_and_ends_in_the_same_numbers(tmp_path, monkeypatch, before):
    def counting(stop_after: int | None) -> Callable[..., object]:
        def measure(*arguments, **options):
            if len(measured) == stop_after:
                raise KeyboardInterrupt
            measured.append(options["of"])
            return mean_gradient(*arguments, **options)

        return measure

    mean_gradient, measured = streamed.mean_gradient, []
    model = tiny_model("llama").float()
    whole = stream(tmp_path / "whole", model)
    monkeypatch.setattr(streamed, "mean_gradient", counting(before))
    with pytest.raises(KeyboardInterrupt):
        stream(tmp_path / "killed", model)
    monkeypatch.setattr(streamed, "mean_gradient", counting(None))
    found = stream(tmp_path / "killed", model)
    assert len(measured) == 3 * (len(TASKS) + len(DOMAINS))
    assert (found.products_TMKL == whole.products_TMKL).all()
    assert (found.gradient_cost, found.matrix_cost) == (whole.gradient_cost, whole.matrix_cost)


def test_kill_while_tasks_are_multiplied_loses_no_block_that_was_done(tmp_path, monkeypatch):
    model = tiny_model("llama").float()
    whole = stream(tmp_path / "whole", model)
    multiply, blocks = streamed.TaskRows._multiply, []

    def interrupted(rows, block, *rest):
        if len(blocks) == 3:
            raise KeyboardInterrupt
        blocks.append(block.names)
        multiply(rows, block, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(streamed.TaskRows, "_multiply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream(tmp_path / "killed", model)
    found = stream(tmp_path / "killed", model)
    assert (found.products_TMKL == whole.products_TMKL).all()
    assert found.matrix_cost == whole.matrix_cost


def test_rows_of_another_key_count_for_nothing(tmp_path):
    model = tiny_model("llama")
    before = stream(tmp_path, model)
    other = tiny_model("gpt2")
    found = stream_influence(other, dealt(), curvature_of(other), tmp_path, key="two", memory_megabytes=MEMORY)
    assert found.products_TMKL.shape == before.products_TMKL.shape
    assert not np.allclose(found.products_TMKL, before.products_TMKL)


def test_gradient_that_is_not_finite_is_named(tmp_path):
    model = tiny_model("llama")
    curvature = curvature_of(model)
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(TikmixError, match="gradient of the task 'arc' is not finite"):
        stream_influence(model, dealt(), curvature, tmp_path, key="one", memory_megabytes=MEMORY)


def test_full_disk_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "mean_gradient", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr("tikmix_pipeline.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(TikmixError, match=r"gradients of 9 chunks of the tasks need .* Free some space, or lower"):
        stream(tmp_path, tiny_model("llama"))


def test_one_task_and_one_domain_are_enough(tmp_path):
    model = tiny_model("llama")
    sets = dealt({"one": random_batches(1)}, {"only": random_batches(2)})
    found = stream_influence(model, sets, curvature_of(model), tmp_path, key="one", memory_megabytes=MEMORY)
    assert found.products_TMKL.shape == (1, 3, 1, 3)


def test_rows_go_when_all_is_multiplied_and_what_is_left_gives_the_same_again(tmp_path, monkeypatch):
    model = tiny_model("llama")
    first = stream(tmp_path, model)
    assert not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr(streamed, "mean_gradient", lambda *_, **__: pytest.fail("measured again"))
    again = stream(tmp_path, model)
    assert (again.products_TMKL == first.products_TMKL).all()
    assert (again.gradient_cost, again.matrix_cost) == (first.gradient_cost, first.matrix_cost)


def test_parameter_without_an_axis_is_a_segment_of_its_own(tmp_path):
    model = tiny_model("llama")
    model.register_parameter("scale", torch.nn.Parameter(torch.tensor(1.5).double()))
    curvature = curvature_of(model, "identity")
    found = stream(tmp_path / "streamed", model, curvature)
    kept = group_influence(collected(tmp_path / "kept", model), curvature)
    np.testing.assert_allclose(found.products_TMKL, kept.products_TMKL, rtol=1e-9)
