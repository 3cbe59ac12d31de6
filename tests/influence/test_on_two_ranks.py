"""Two processes that share a model, or have a copy each, measure what one process measures."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from choice_examples import choice_items
from curvature_fits import FISHER_KINDS, GROUPS
from group_examples import dealt
from in_ranks import in_ranks
from influence_oracle import VOCABULARY, random_batches, tiny_model

from tikmix_pipeline.corpus.choices import choice_batches
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.distributed.sharding import RankMesh, rank_mesh
from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.store import GradientStore, Sets
from tikmix_pipeline.lm import output_head
from tikmix_pipeline.lm.model import blocks_of
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters

MODELS = [("llama", False), ("llama", True), ("gpt2", True)]


def sets_with_choices() -> Sets:
    """Cut sets into chunks, some of one sequence, or one item of multiple choice: a rank has nothing to do."""
    choices = choice_batches(choice_items(7, vocabulary=VOCABULARY), context=15, batch_size=4, pad_id=0)
    sets = dealt(chunks=5)
    return {"task": {**sets["task"], **deal_sets("task", {"choice": choices}, 5)}, "domain": sets["domain"]}


def measured(kind: str, tied: bool, folder: Path, mesh: Mesh = SINGLE_MESH) -> dict[str, Any]:
    """Measure a tiny model's sets with every curvature; return what there is to compare."""
    model = tiny_model(kind, tied=tied, exact_norms=False)
    mesh.place_for_measuring(model, blocks_of(model), device="cpu")
    store = GradientStore(folder / "gradients", mesh)
    key = measurement_key(model, "code", mesh)
    collect_gradients(model, sets_with_choices(), store, key=key)
    found: dict[str, Any] = {"key": key, "cost": store.cost, "matrix": {}, "report": {}, "kept": {}}
    found["weights"] = sum(mesh.local_tensor(parameter)[0].numel() for parameter in model.parameters())
    for curvature in ("identity", *FISHER_KINDS):
        parameters = InfluenceParameters(curvature=curvature, inverse="damped", damping=0.1)
        factors = None
        if parameters.needs_factors:
            batches = random_batches(30, batches=6, sequences=3) + random_batches(31, batches=1, sequences=1)
            fitted = fit_factors(model, batches, kind=curvature, fisher="empirical", seed=3, groups=GROUPS, mesh=mesh)
            fitted.save(folder / curvature, mesh.world)
            factors = Factors.load(folder / curvature)
            found["kept"][curvature] = {name: values.numel() for name, values in fitted.tensors.items()}
        built = build_curvature(
            parameters,
            model,
            factors=factors,
            optimizer_state={},
            train=TrainParameters(),
            horizon=None,
            process_group=mesh.world,
        )
        influence = group_influence(store, built)
        found["matrix"][curvature] = influence.influence_TK
        found["report"][curvature] = built.report
    return found


def measured_in_ranks(mesh: RankMesh, folder: Path) -> dict[tuple[int, str], Any]:
    """Measure every model by layout: `shard` ranks have a copy of it between them."""
    layouts = {shard: rank_mesh(mesh.device, shard) for shard in (2, 1)}
    found = {
        (shard, f"{kind}-{tied}"): measured(kind, tied, folder / f"{shard}-{kind}-{tied}", layout)
        for shard, layout in layouts.items()
        for kind, tied in MODELS
    }
    output_head.MOST_LOGITS = 3 * VOCABULARY  # three tokens at a time, and never as many on either rank
    found |= {
        (shard, "chunks"): measured("llama", True, folder / f"{shard}-chunks", layouts[shard]) for shard in (2, 1)
    }
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[tuple[int, str], Any]]:
    """What each of two ranks measures."""
    return in_ranks(2, measured_in_ranks, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], dict[str, Any]]:
    """What one process measures of a model, measured once."""
    return cache(lambda kind, tied: measured(kind, tied, tmp_path_factory.mktemp("alone")))


def require_shared_out(alone: dict[str, Any], ranks: list[dict[str, Any]], shard: int) -> None:
    """Every moment is kept by one rank, neither keeps most, and ranks that share a copy have half of it each."""
    for curvature, whole in alone["kept"].items():
        kept = [rank["kept"][curvature] for rank in ranks]
        assert sorted([*kept[0], *kept[1]]) == sorted(whole)
        assert max(sum(sizes.values()) for sizes in kept) < 0.75 * sum(whole.values())
    assert sum(rank["weights"] for rank in ranks) == alone["weights"] * len(ranks) // shard
    assert max(rank["weights"] for rank in ranks) < (0.6 if shard == 2 else 1.1) * alone["weights"]


@pytest.mark.parametrize("shard", [2, 1], ids=["one copy between them", "a copy each"])
@pytest.mark.parametrize(("kind", "tied"), MODELS)
def test_two_ranks_measure_what_one_process_measures(
    both: dict[int, Any], alone: Callable[[str, bool], dict[str, Any]], kind: str, tied: bool, shard: int
) -> None:
    one = alone(kind, tied)
    ranks = [found[shard, f"{kind}-{tied}"] for found in both.values()]
    require_shared_out(one, ranks, shard)
    for together in ranks:
        assert together["key"] == one["key"]
        assert together["cost"] == one["cost"]
        for curvature, expected in one["matrix"].items():
            difference = abs(together["matrix"][curvature] - expected).max() / abs(expected).max()
            assert difference < 1e-12, curvature
            ours, theirs = together["report"][curvature], one["report"][curvature]
            assert {block.parameters for block in ours.blocks} == {block.parameters for block in theirs.blocks}
            assert ours.left_out == pytest.approx(theirs.left_out)


@pytest.mark.parametrize("shard", [2, 1], ids=["one copy between them", "a copy each"])
def test_two_ranks_take_the_head_in_chunks(
    both: dict[int, Any], alone: Callable[[str, bool], dict[str, Any]], shard: int
) -> None:
    """A tied one; its head is taken at once by the one process."""
    for together in (found[shard, "chunks"] for found in both.values()):
        for curvature, expected in alone("llama", True)["matrix"].items():
            difference = abs(together["matrix"][curvature] - expected).max() / abs(expected).max()
            assert difference < 1e-11, curvature
