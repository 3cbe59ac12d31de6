"""The stages of a measurement by real processes, started as a run starts them."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_examples import MODEL, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.grow import collect_until_stable
from tikmix_pipeline.influence.products import counted_products
from tikmix_pipeline.influence.samples import MeasuredText
from tikmix_pipeline.influence.stopping import Stopping
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.mixture.direct import implied_mixture
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.parameters import InfluenceParameters, OptimizeParameters
from tikmix_pipeline.ranks.job import read_job
from tikmix_pipeline.ranks.measuring import Measuring, collect_on_ranks, fit_on_ranks, multiply_on_ranks

TWO = train_parameters(world_size=2)
ONCE = train_parameters(world_size=2, max_restarts=0)
INFLUENCE = InfluenceParameters(
    tokens="auto",
    max_tokens=512,
    context=None,
    factor_tokens=256,
    items_per_task=8,
    micro_batches=2,
    batch_size=2,
    stable_within=0.02,
    device="cpu",
)


def growth(shards: TokenShards) -> dict[str, Any]:
    prior = dict.fromkeys(shards.domains, 1 / len(shards.domains))
    stock = {
        "round": 0,
        "available": {domain: shards.tokens(domain) for domain in shards.domains},
        "consumed": {},
        "chunk_tokens": 1000,
        "in_force": prior,
    }
    return {"stock": stock, "prior": prior, "optimize": OptimizeParameters().model_dump(mode="json")}


def by_one_process(start: Checkpoint, shards: TokenShards, folder: Path) -> tuple[Any, GradientStore]:
    text = MeasuredText.open(start, shards, model=MODEL, train=train_parameters(), influence=INFLUENCE, seed=0)
    factors = fit_factors(
        text.model, text.factor_batches(), kind="kfac", fisher="true", seed=0, groups=INFLUENCE.groups
    )
    curvature = build_curvature(
        INFLUENCE, text.model, factors=factors, optimizer_state={}, train=train_parameters(), horizon=1.0
    )
    store, targets, decision = GradientStore(folder), text.target_parts(), growth(shards)
    decision["optimize"] = OptimizeParameters.model_validate(decision["optimize"])
    decision["budget"] = TokenBudget.from_json(decision.pop("stock"))
    collect_until_stable(
        text.model,
        targets,
        text.growing_domain_parts(),
        curvature,
        store,
        key=measurement_key(text.model, "code"),
        implied_mixture=implied_mixture(**decision, tasks=list(targets)),
        parameters=INFLUENCE,
    )
    products, _ = counted_products(store, curvature, memory_megabytes=100, device=text.model.device)
    return products, store


def job(stage: str, start: Checkpoint, shards: TokenShards, **rest: Any) -> Measuring:
    return Measuring(
        stage=stage,
        checkpoint=start.folder,
        shards=shards.folder,
        model=MODEL,
        influence=INFLUENCE,
        horizon=1.0,
        code="code",
        **{"train": TWO} | rest,
    )


def test_two_ranks_measure_grow_and_stop_as_one_process_does(start, token_shards, tmp_path):
    alone, store = by_one_process(start, token_shards, tmp_path / "one")

    fitted = fit_on_ranks(job("factors", start, token_shards), tmp_path / "factors.ranks")
    collecting = job(
        "gradients",
        start,
        token_shards,
        store=tmp_path / "two",
        factors=fitted,
        growth=growth(token_shards),
    )
    collect_on_ranks(collecting, tmp_path / "two.ranks")
    multiplying = job("products", start, token_shards, store=tmp_path / "two", factors=fitted)
    together, report, cost = multiply_on_ranks(multiplying, tmp_path / "two.ranks")

    # the bar is 1e-5
    assert np.abs(together - alone).max() / np.abs(alone).max() < 1e-5
    assert together.shape == alone.shape
    assert report.coverage().keys() == {"kronecker", "embedding", "head", "diagonal"}
    assert report.left_out == 0
    assert cost.flops > 0
    both = GradientStore(tmp_path / "two")
    assert Stopping.from_dict(both.notes).reason == Stopping.from_dict(store.notes).reason
    assert both.cost.tokens == store.cost.tokens
    assert not (tmp_path / "two.ranks").exists()

    # what ranks measured, one process need not measure again
    text = MeasuredText.open(start, token_shards, model=MODEL, train=train_parameters(), influence=INFLUENCE, seed=0)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("task-*/*")}
    collect_gradients(
        text.model, {"task": text.target_parts(), "domain": {}}, both, key=measurement_key(text.model, "code")
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("task-*/*")} == files
    assert Factors.load(fitted).loss_tokens >= 256


def test_a_job_is_read_as_it_was_written(start, token_shards, tmp_path):
    written = job("gradients", start, token_shards, store=tmp_path, growth=growth(token_shards), seed=3)
    written.write(tmp_path)
    assert Measuring.of(read_job(tmp_path)) == written


def test_a_mistake_of_the_users_is_told_as_by_one_process(start, token_shards, tmp_path, caplog):
    with pytest.raises(TikmixError, match=r"^influence\.curvature=kfac .* needs factors, and none were fitted"):
        multiply_on_ranks(job("products", start, token_shards, store=tmp_path, train=ONCE), tmp_path / "ranks")
    assert not any("Traceback" in record.getMessage() for record in caplog.records if record.levelno > logging.INFO)


def test_a_launcher_that_does_nothing_lets_no_old_result_pass_for_a_new_one(start, token_shards, tmp_path):
    idle = train_parameters(world_size=2, launch="true {folder}")
    folder, store = tmp_path / "ranks", GradientStore(tmp_path / "store")
    store.finish({"task": {}, "domain": {}}, {})
    with pytest.raises(TikmixError, match=r"ended without a result"):
        collect_on_ranks(job("gradients", start, token_shards, store=store.folder, train=idle), folder)
    assert not store.is_finished
    (folder / "factors").mkdir(parents=True)
    with pytest.raises(TikmixError, match=r"ended without a result"):
        fit_on_ranks(job("factors", start, token_shards, train=idle), folder)
    folder.mkdir(exist_ok=True)
    (folder / "products.json").touch()
    with pytest.raises(TikmixError, match=r"ended without a result"):
        multiply_on_ranks(job("products", start, token_shards, store=store.folder, train=idle), folder)
