import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from group_examples import DOMAINS, TASKS, GradientsAlive, collected, dealt
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence import collect
from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.cost import FlopCounter, tokens_read
from tikmix_pipeline.lm.cost_records import NO_COST, Cost


class Watched:
    """Counts the chunks that are measured, and ends the run after so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured: list[str] = []
        self.stop_after: int | None = None
        self._measure = collect.mean_gradient
        monkeypatch.setattr(collect, "mean_gradient", self)

    def __call__(self, model, chunk, *, of, **rest):
        if len(self.measured) == self.stop_after:
            raise KeyboardInterrupt
        self.measured.append(of)
        return self._measure(model, chunk, of=of, **rest)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_chunk_is_measured_once_tasks_first(tmp_path, watched):
    collected(tmp_path)
    assert watched.measured == [f"task '{name}'" for name in TASKS for _ in range(3)] + [
        f"domain '{name}'" for name in DOMAINS for _ in range(3)
    ]


def test_a_gradient_is_let_go_before_the_next_is_summed(tmp_path, monkeypatch):
    alive = GradientsAlive(collect, monkeypatch)
    collected(tmp_path)
    assert alive.at_begin == [0] * 3 * (len(TASKS) + len(DOMAINS))


@pytest.mark.parametrize("parts_before", [0, 4, 14])
def test_killed_collection_measures_only_what_is_missing_and_ends_in_the_same_bytes(tmp_path, watched, parts_before):
    collected(tmp_path / "whole")
    watched.measured.clear()
    watched.stop_after = parts_before
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path / "killed")
    with pytest.raises(TikmixError, match="no finished collection"):
        GradientStore(tmp_path / "killed").sets("task")
    watched.stop_after = None
    collected(tmp_path / "killed")
    assert len(watched.measured) == 15
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_finished_collection_measures_nothing_again(tmp_path, watched):
    collected(tmp_path)
    before = contents(tmp_path)
    watched.measured.clear()
    collected(tmp_path)
    assert not watched.measured
    assert contents(tmp_path) == before


def test_another_task_measures_only_that_task(tmp_path, watched):
    collected(tmp_path)
    watched.measured.clear()
    more = dealt(tasks={"mmlu": random_batches(40), **TASKS})
    store = collected(tmp_path, sets=more)
    assert watched.measured == ["task 'mmlu'"] * 3
    assert store.sets("task") == ("mmlu", *TASKS)


def test_a_new_domain_and_the_parts_of_a_split_one_measure_only_themselves(tmp_path, watched):
    collected(tmp_path)
    watched.measured.clear()
    parts = {f"code {side}": random_batches(50 + side, batches=2, sequences=3, loss="all") for side in (0, 1)}
    store = collected(tmp_path, sets=dealt(domains={"web": DOMAINS["web"], **parts}))
    assert watched.measured == [f"domain '{name}'" for name in parts for _ in range(3)]
    assert store.sets("domain") == ("web", *parts)


def test_task_that_was_left_out_for_a_while_is_not_measured_again(tmp_path, watched):
    collected(tmp_path)
    fewer = collected(tmp_path, sets=dealt(domains={"web": DOMAINS["web"]}, tasks={"arc": TASKS["arc"]}))
    assert (fewer.sets("task"), fewer.sets("domain")) == (("arc",), ("web",))
    watched.measured.clear()
    assert collected(tmp_path).sets("task") == tuple(TASKS)
    assert not watched.measured


def test_parts_of_other_text_are_replaced(tmp_path, watched):
    collected(tmp_path)
    watched.measured.clear()
    store = collected(tmp_path, sets=dealt(domains={**DOMAINS, "code": random_batches(60, sequences=3)}))
    assert watched.measured == ["domain 'code'"] * 3
    assert store.sets("domain") == tuple(DOMAINS)


def test_parts_of_another_checkpoint_are_never_used_and_removed(tmp_path, watched):
    other = tiny_model("llama", seed=1)
    collected(tmp_path, sets=dealt(tasks={"gone": random_batches(3), **TASKS}))
    watched.measured.clear()
    collect_gradients(other, dealt(), GradientStore(tmp_path), key="another")
    assert len(watched.measured) == 15
    collected(tmp_path / "fresh", other)
    assert sorted(p.name for p in tmp_path.glob("task-*")) == [f"task-{name}" for name in sorted(TASKS)]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_chunk_is_measured_again(tmp_path, watched, damage):
    store = collected(tmp_path)
    before = contents(tmp_path)
    path = store.path("task", "boolq", 2)
    path.write_bytes({"truncated": path.read_bytes()[:-5], "garbage": b"x" * 500, "empty": b""}[damage])
    watched.measured.clear()
    collected(tmp_path)
    assert watched.measured == ["task 'boolq'"]
    assert contents(tmp_path) == before


def cost_of(sets) -> Cost:
    """Count every pass."""
    batches = [batch for by_name in sets.values() for chunks in by_name.values() for chunk in chunks for batch in chunk]
    with FlopCounter() as counter:
        mean_gradient(tiny_model("llama"), batches, of="all")
    return Cost(sum(map(tokens_read, batches)), counter.flops)


def test_cost_is_that_of_the_chunks_of_the_measurement_whenever_they_were_measured(tmp_path, watched):
    assert collected(tmp_path).cost == cost_of(dealt())
    fewer = dealt(domains={"web": DOMAINS["web"]}, tasks={"arc": TASKS["arc"]})
    watched.stop_after = 0
    assert collected(tmp_path, sets=fewer).cost == cost_of(fewer) != NO_COST


def test_part_that_does_not_say_what_it_cost_is_measured_again(tmp_path, watched):
    store = collected(tmp_path)
    before = contents(tmp_path)
    path = store.path("domain", "web", 1)
    path.write_bytes(path.read_bytes().replace(b'\\"cost\\"', b'\\"none\\"'))
    with pytest.raises(TikmixError, match="is not the gradient that was collected"):
        _ = GradientStore(tmp_path).cost
    watched.measured.clear()
    collected(tmp_path)
    assert watched.measured == ["domain 'web'"]
    assert contents(tmp_path) == before


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    collected(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "task-arc" / ".0001.safetensors.999999.tmp").write_bytes(b"half")
    collected(tmp_path)
    assert contents(tmp_path) == before


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    others = [tmp_path / "task-notes" / "plan.txt", tmp_path / "my-data" / "0001.safetensors"]
    for path in others:
        path.parent.mkdir()
        path.write_text("mine")
    collected(tmp_path)
    assert all(path.read_text() == "mine" for path in others)


def test_full_disk_is_told_before_any_pass_with_the_parameter_that_helps(tmp_path, watched, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TikmixError, match=r"gradients of 15 chunks need .* influence\.micro_batches"):
        collected(tmp_path)
    assert not watched.measured


def test_key_is_of_weights_architecture_and_code_and_not_of_the_place(tmp_path):
    model = tiny_model("llama")
    key = measurement_key(model, "code")
    assert key == measurement_key(tiny_model("llama"), "code")
    model.config._name_or_path = "elsewhere"
    assert key == measurement_key(model, "code")
    assert key != measurement_key(model, "other code")
    model.config.rms_norm_eps *= 2
    assert key != measurement_key(model, "code")
    changed = tiny_model("llama")
    with torch.no_grad():
        changed.model.norm.weight[0] += 1e-12
    assert key != measurement_key(changed, "code")


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_weights_have_their_gradients_summed_in_float32(tmp_path, precision):
    """Kept in the weights' own precision, the sum of a large set would stop growing."""
    model = tiny_model("gpt2").to(precision)
    store = collected(tmp_path, model)
    assert store.dtype("transformer.wte.weight") == torch.float32
    exact = collected(tmp_path / "exact", tiny_model("gpt2").to(precision).double())
    for name in ("transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"):
        rows, expected = (s.rows("domain", ["web"], name).double() for s in (store, exact))
        assert (rows - expected).norm() < 0.05 * expected.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_on_the_gpu_are_those_on_the_cpu(tmp_path):
    stores = [collected(tmp_path / device, tiny_model("llama").to(device)) for device in ("cpu", "cuda")]
    for name in stores[0].shapes():
        on_cpu, on_gpu = (store.rows("task", list(TASKS), name) for store in stores)
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-9, atol=1e-12)
