"""Bytes by formula against what small models keep, write and read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence import products, streamed
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature import build
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.store import GradientStore, Sets
from tikmix_pipeline.influence.streamed import stream_influence
from tikmix_pipeline.lm import output_head
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
from tikmix_pipeline.pipelines.influence import streaming
from tools.capacity import space
from tools.capacity.costs import Workload
from tools.capacity.devices import DEVICES
from tools.capacity.shape import SHAPES, DecoderShape, shape_of

pytestmark = pytest.mark.usefixtures("single_thread")

CONTEXT, SEQUENCES, VOCABULARY = 16, 4, 100
SMALL = SHAPES["1B"]
WORK = Workload(domains=3, tasks=2, parts=2)


def model_of(
    *, heads: int = 4, tied: bool = True, vocabulary: int = VOCABULARY
) -> tuple[DecoderShape, PreTrainedModel]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=heads,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return shape_of(config.to_dict()), AutoModelForCausalLM.from_config(config).eval()


def batches(seed: int, vocabulary: int = VOCABULARY) -> list[TokenBatch]:
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (SEQUENCES, CONTEXT + 1))
    return [TokenBatch.of_windows(tokens)]


def sets() -> Sets:
    return {
        "task": deal_sets("task", {f"task{n}": batches(n) for n in range(WORK.tasks)}, WORK.parts),
        "domain": deal_sets("domain", {f"domain{n}": batches(9 + n) for n in range(WORK.domains)}, WORK.parts),
    }


def curvature_of(model: PreTrainedModel, folder: Path) -> build.Curvature:
    parameters = InfluenceParameters()
    factors = fit_factors(model, batches(99), kind="kfac", fisher=parameters.fisher, seed=0, groups=parameters.groups)
    factors.save(folder)
    return build.build_curvature(
        parameters, model, factors=factors, optimizer_state={}, train=TrainParameters(), horizon=None
    )


def files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_limits_are_those_of_the_package() -> None:
    assert space.MOST_LOGITS == output_head.MOST_LOGITS
    assert space.MOST_OPEN == build._KEPT_SCALARS
    assert space.MOST_KEPT == streaming._MOST_KEPT_BYTES


@pytest.mark.parametrize("rows", [1, 4, 36])
def test_room_for_products_is_that_of_the_package(rows: int) -> None:
    room = products.Room(10**9, 4)
    assert space._needed(rows) == room.needed(rows)
    for size in (10**5, 10**6, 8192 * 2048):
        assert space._rows(1e9, size) == room.task_rows(size)


@pytest.mark.parametrize("heads", [1, 4])
def test_activations_are_what_a_pass_keeps_for_the_way_back(heads: int) -> None:
    shape, model = model_of(heads=heads)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(values: torch.Tensor) -> torch.Tensor:
        kept.setdefault(values.untyped_storage().data_ptr(), values)
        return values

    tokens_BS = torch.from_numpy(batches(0)[0].tokens_BS[:, :-1])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        model.model(input_ids=tokens_BS, use_cache=False)
    found = sum(values.untyped_storage().nbytes() for place, values in kept.items() if place not in weights)
    assert space.activations(shape, tokens_BS.numel(), DEVICES["cpu"]) == pytest.approx(found, rel=0.15)


@pytest.mark.parametrize("tied", [False, True])
def test_disk_is_what_a_measurement_takes(tmp_path: Path, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, model = model_of(tied=tied)
    curvature = curvature_of(model, tmp_path / "factors")
    assert space.factor_disk(shape) == pytest.approx(files(tmp_path / "factors"), rel=0.05)
    for precision in ("float32", "bfloat16"):
        collect_gradients(model, sets(), GradientStore(tmp_path / precision, precision=precision), key="")
        kept = space.gradient_disk(shape, WORK, "keep", precision)
        assert kept == pytest.approx(files(tmp_path / precision), rel=0.05)
    largest = _watched_after(streamed.TaskRows, "_lay_out", tmp_path / "stream", monkeypatch)
    stream_influence(model, sets(), curvature, tmp_path / "stream", key="", memory_megabytes=100.0)
    assert space.gradient_disk(shape, WORK, "stream") == pytest.approx(max(largest), rel=0.05)


def _watched_after(owner: type, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how large the files of a folder are after every call of a method."""
    called: Callable[..., Any] = getattr(owner, name)
    sizes: list[int] = []

    def calling(*arguments: Any, **options: Any) -> Any:
        result = called(*arguments, **options)
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        return result

    monkeypatch.setattr(owner, name, calling)
    return sizes


@pytest.mark.parametrize("megabytes", [100.0, 1.3])
def test_products_read_as_many_numbers_as_the_formula_says(
    tmp_path: Path, megabytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, model = model_of(tied=False)
    store = GradientStore(tmp_path / "gradients")
    collect_gradients(model, sets(), store, key="")
    curvature = curvature_of(model, tmp_path / "factors")
    read, rows = [], GradientStore.rows

    def counting(*arguments: Any, **options: Any) -> torch.Tensor:
        found = rows(*arguments, **options)
        read.append(found.numel())
        return found

    monkeypatch.setattr(GradientStore, "rows", counting)
    group_influence(store, curvature, memory_megabytes=megabytes)
    work = Workload(domains=WORK.domains, tasks=WORK.tasks, parts=WORK.parts, memory_megabytes=megabytes)
    assert space.numbers_read(shape, work) == pytest.approx(sum(read), rel=0.02)
    assert (sum(read) > 1.2 * shape.parameters * sum(WORK.rows)) is (megabytes < 2)


def test_a_larger_vocabulary_costs_tables_and_no_more_logits() -> None:
    cpu, work = DEVICES["cpu"], Workload(pass_tokens=512)
    few, many = (model_of(vocabulary=vocabulary)[0] for vocabulary in (100_000, 200_000))
    rows = 100_000 * few.width
    grown = space.gradient_memory(many, work, cpu, 1) - space.gradient_memory(few, work, cpu, 1)
    # weight, sum and the head's gradient; a chunk of logits is as large as before
    assert grown == pytest.approx(3 * 4 * rows, rel=0.01)


def test_factors_are_a_square_for_every_covariance_and_a_triangle_on_disk() -> None:
    widths = {"2048": 16 * 6 + 2, "8192": 16 * 3, "512": 16 * 2}
    squares = sum(count * int(width) ** 2 for width, count in widths.items())
    assert space.factor_bytes(SMALL) == 4 * (squares + 2 * SMALL.vocabulary)
    diagonals = sum(count * int(width) for width, count in widths.items())
    assert space.factor_disk(SMALL) == 4 * ((squares + diagonals) / 2 + 2 * SMALL.vocabulary)
