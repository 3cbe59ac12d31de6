import numpy as np
import pytest
from baseline_examples import MODEL, PRIOR, TRAIN, heldout_texts
from scipy.optimize import minimize

from tikmix_pipeline.baselines import alignment as alignment_module
from tikmix_pipeline.baselines.baseline import proxy_schedule, save_initial
from tikmix_pipeline.baselines.dga import MovingMirrorDescent, dga
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import DgaParameters


@pytest.fixture(scope="module", name="checkpoint")
def _checkpoint(token_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "initial"
    save_initial(MODEL, token_shards, folder, context=TRAIN.context, seed=0)
    return Checkpoint(folder)


def decide(checkpoint, shards, folder, *, texts=None, current=PRIOR, bounds=None, key="code", **changes):
    values = {"tokens": 64 * 8, "every": 2, "rows": 8, "drawn_items": 8, "eta": 100.0, "beta": 0.5}
    parameters = DgaParameters.model_validate(values | changes)
    return dga(
        checkpoint,
        shards,
        texts or heldout_texts(shards, "verse"),
        current,
        model=MODEL,
        train=TRAIN,
        schedule=proxy_schedule(parameters.steps(TRAIN)),
        parameters=parameters,
        seed=0,
        folder=folder,
        key=key,
        bounds=bounds,
    )


def test_a_step_is_the_best_mixture_at_its_distance_from_the_last_one():
    """Mirror descent with the entropy: the maximum of `η a·w − KL(w ‖ w_t)`, found by a general solver."""
    start_K, alignment_K = np.array([0.5, 0.3, 0.2]), np.array([-0.1, 0.4, 0.2])
    rule = MovingMirrorDescent(start_K, eta=2.0, beta=1.0)
    rule.update(alignment_K)
    solved = minimize(
        lambda w: float(w @ np.log(w / start_K) - 2.0 * alignment_K @ w),
        start_K,
        bounds=[(1e-9, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(rule.mixture, solved.x, atol=1e-6)


def test_average_moves_by_its_share_of_each_step():
    start_K, alignment_K = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 2.0])
    whole, part = (MovingMirrorDescent(start_K, eta=1.0, beta=beta) for beta in (1.0, 0.1))
    for rule in (whole, part):
        rule.update(alignment_K)
    np.testing.assert_allclose(part.mixture, 0.9 * start_K + 0.1 * whole.mixture)


def test_domain_without_a_share_gets_none_whatever_its_alignment():
    rule = MovingMirrorDescent(np.array([0.0, 0.6, 0.4]), eta=1e6, beta=0.5)
    rule.update(np.array([5.0, -3.0, -2.0]))
    np.testing.assert_allclose(rule.mixture, [0.0, 0.3, 0.7])


def test_target_draws_the_mixture_to_its_own_domain(checkpoint, token_shards, tmp_path):
    found = decide(checkpoint, token_shards, tmp_path)
    assert found.weights["verse"] > PRIOR["verse"] + 0.2
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.details["measurements"] == 4
    assert max(found.details["alignment"], key=found.details["alignment"].get) == "verse"


def test_copy_is_trained_once_and_again_for_another_mixture_or_target(checkpoint, token_shards, tmp_path, monkeypatch):
    before = {file.name: file.read_bytes() for file in checkpoint.folder.iterdir()}
    first = decide(checkpoint, token_shards, tmp_path)
    assert {file.name: file.read_bytes() for file in checkpoint.folder.iterdir()} == before
    trained = []
    steps = alignment_module.train_steps
    monkeypatch.setattr(alignment_module, "train_steps", lambda *a, **k: (trained.append(None), steps(*a, **k)))
    assert decide(checkpoint, token_shards, tmp_path) == first
    assert not trained
    for change in (
        {"current": {"code": 0.2, "prose": 0.3, "verse": 0.5}},
        {"texts": heldout_texts(token_shards, "code")},
        {"eta": 50.0},
        {"key": "other code"},
    ):
        trained.clear()
        decide(checkpoint, token_shards, tmp_path, **change)
        assert trained, change


def test_bounds_hold(checkpoint, token_shards, tmp_path):
    bounds = mixture_bounds(OptimizeParameters(max_weight=0.45), dict.fromkeys(PRIOR, Supply(10_000)), 100)
    found = decide(checkpoint, token_shards, tmp_path, bounds=bounds, current=dict.fromkeys(PRIOR, 1 / 3))
    assert found.weights["verse"] == pytest.approx(0.45)


def test_mixture_of_other_domains_is_refused(checkpoint, token_shards, tmp_path):
    with pytest.raises(TikmixError, match="the current mixture"):
        decide(checkpoint, token_shards, tmp_path, current={"code": 0.5, "prose": 0.5})
