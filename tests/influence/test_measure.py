"""The passes of a measurement by real processes, started as a run starts them."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_examples import MODEL, initial_checkpoint, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence import rank_jobs
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.influence.measure import (
    collect_gradients_at,
    collect_until_stable_at,
    fit_factors_at,
    multiply_at,
)
from tikmix_pipeline.influence.measure_between import multiply_domains_at
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.mixture.direct import implied_mixture
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.parameters import InfluenceParameters, OptimizeParameters, TrainParameters

ONE = train_parameters()
TWO = train_parameters(world_size=2)
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


@pytest.fixture
def start(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return initial_checkpoint(token_shards, tmp_path / "initial")


def how(train: TrainParameters) -> dict[str, Any]:
    return {"model": MODEL, "train": train, "influence": INFLUENCE}


def fitted(start: Checkpoint, shards: TokenShards, train: TrainParameters, folder: Path) -> Factors:
    progress = FitProgress(folder / "work", "key")
    write = fit_factors_at(start, shards, **how(train), seed=0, progress=progress)
    write(folder / "factors")
    assert not progress.folder.exists()
    return Factors.load(folder / "factors")


def decision(shards: TokenShards) -> "partial[Any]":
    prior = dict.fromkeys(shards.domains, 1 / len(shards.domains))
    available = {domain: shards.tokens(domain) for domain in shards.domains}
    budget = TokenBudget(round=0, available=available, consumed={}, chunk_tokens=1000, current=prior)
    return partial(implied_mixture, budget=budget, prior=prior, optimize=OptimizeParameters(method="paper"))


@pytest.mark.slow
def test_two_ranks_grow_a_measurement_and_stop_as_one_process_does(start, token_shards, tmp_path):
    """That ranks fit, collect and multiply as one process does is in `tests/pipelines/test_influence_on_ranks.py`."""
    factors = fitted(start, token_shards, ONE, tmp_path)
    assert factors.loss_tokens >= 256
    stopped, products, stores = [], [], []
    for name, train in {"one": ONE, "two": TWO}.items():
        met = {"factors": factors, "horizon": 1.0}
        stores.append(GradientStore(tmp_path / name / "gradients"))
        growing = {**how(train), **met, "seed": 0, "code": "code", "decide": decision(token_shards)}
        stopped.append(collect_until_stable_at(start, token_shards, stores[-1].folder, **growing))
        products.append(multiply_at(start, stores[-1], **how(ONE), **met)[0])
    alone, together = products

    # the bar is 1e-5
    assert np.abs(together - alone).max() / np.abs(alone).max() < 1e-5
    assert stopped[0].reason == stopped[1].reason
    assert stores[0].cost.tokens == stores[1].cost.tokens
    assert not (tmp_path / "two" / "gradients.ranks").exists()

    # what ranks measured, one process need not measure again
    folder = stores[1].folder
    files = {path: path.stat().st_mtime_ns for path in folder.glob("task-*/*")}
    fixed = {**how(ONE), "influence": INFLUENCE.model_copy(update={"tokens": 32})}
    collect_gradients_at(start, token_shards, folder, **fixed, seed=0, code="code")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("task-*/*")} == files


def test_products_come_back_from_ranks_to_the_last_bit(start, token_shards, tmp_path, monkeypatch):
    """Here one process stands for the ranks, which leave files; what they are handed as JSON is tested above."""
    met = {"factors": fitted(start, token_shards, ONE, tmp_path), "horizon": 1.0}
    store = GradientStore(tmp_path / "gradients")
    fixed = {**how(ONE), "influence": INFLUENCE.model_copy(update={"tokens": 64})}
    collect_gradients_at(start, token_shards, store.folder, **fixed, seed=0, code="code")
    alone = multiply_at(start, store, **how(ONE), **met)
    between = multiply_domains_at(start, store, **how(ONE), **met)
    monkeypatch.setattr(rank_jobs, "run_on_ranks", lambda entry, arguments, folder: entry(**arguments))
    products_TMKL, *about = multiply_at(start, store, **how(TWO), **met)
    assert products_TMKL.tobytes() == alone[0].tobytes()
    assert about == list(alone[1:])
    together = multiply_domains_at(start, store, **how(TWO), **met)
    for name in ("linear_KLKL", "curved_KLKL"):
        assert getattr(together, name).tobytes() == getattr(between, name).tobytes()
    assert together.cost == between.cost
    assert not (tmp_path / "gradients.ranks").exists()


def test_a_mistake_of_the_users_is_told_as_by_one_process(start, token_shards, tmp_path, caplog):
    once = train_parameters(world_size=2, max_restarts=0)
    with pytest.raises(TikmixError, match=r"^influence\.curvature=kfac .* needs factors, and none were fitted"):
        multiply_at(start, GradientStore(tmp_path / "store"), **how(once), factors=None, horizon=1.0)
    assert not any("Traceback" in record.getMessage() for record in caplog.records if record.levelno > logging.INFO)


def test_a_launcher_that_does_nothing_lets_no_old_result_pass_for_a_new_one(start, token_shards, tmp_path):
    idle = train_parameters(world_size=2, launch="true {folder}")
    work, store = tmp_path / "work", GradientStore(tmp_path / "store")
    store.finish({"task": {}, "domain": {}}, {})
    with pytest.raises(TikmixError, match=r"ended without a result"):
        collect_gradients_at(start, token_shards, store.folder, **how(idle), seed=0, code="code")
    assert not store.is_finished
    (work / "factors").mkdir(parents=True)
    with pytest.raises(TikmixError, match=r"ended without a result"):
        fit_factors_at(start, token_shards, **how(idle), seed=0, progress=FitProgress(work, "key"))
    ranks = tmp_path / "store.ranks"
    ranks.mkdir()
    (ranks / "products.json").touch()
    with pytest.raises(TikmixError, match=r"ended without a result"):
        multiply_at(start, store, **how(idle), factors=None, horizon=1.0)
