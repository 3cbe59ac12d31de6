import itertools

import numpy as np
import pytest
from baseline_examples import MODEL, TRAIN, heldout_texts

from tikmix_pipeline.baselines import mixmin as mixmin_module
from tikmix_pipeline.baselines.baseline import proxy_schedule, save_initial
from tikmix_pipeline.baselines.mixmin import mixmin
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import choice_batches
from tikmix_pipeline.corpus.tasks import TaskItems
from tikmix_pipeline.lm.branch_pool import BranchResult, Failure
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.evaluation import TextLoss
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import MixminParameters

DOMAINS = ["code", "prose", "verse"]
STEPS = 8


@pytest.fixture(scope="module", name="checkpoint")
def _checkpoint(token_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "initial"
    save_initial(MODEL, token_shards, folder, context=TRAIN.context, seed=0)
    return Checkpoint(folder)


def decide(checkpoint, shards, folder, *, texts=None, bounds=None, **changes):
    return mixmin(
        checkpoint,
        shards,
        texts or heldout_texts(shards, "code", "verse"),
        model=MODEL,
        train=TRAIN,
        schedule=proxy_schedule(STEPS),
        parameters=MixminParameters.model_validate(
            {"tokens": STEPS * TRAIN.tokens_per_step, "workers": 1, "tolerance": 1e-9, "iterations": 20_000} | changes
        ),
        seed=0,
        folder=folder,
        key="code",
        bounds=bounds,
    )


def batch_of(lengths):
    """Items of so many loss-carrying tokens behind a question of one, padded on the right."""
    loss_BS = np.arange(max(lengths) + 2)[None] < np.array(lengths)[:, None] + 1
    loss_BS[:, 0] = False
    return TokenBatch(np.zeros(loss_BS.shape, dtype=np.int64), loss_BS)


@pytest.fixture
def planted(monkeypatch):
    """Return a function that plants what the branches say of every token, by text; no branch is trained."""

    def plant(nats_by_text, failures=()):
        def respond(setting, branches, texts, **_):
            assert setting.by_token
            assert [branch.mixture[branch.name] for branch in branches] == [1.0] * len(branches)
            return [
                BranchResult(branch, {}, Failure("diverged", "the loss is nan"))
                if branch.name in failures
                else BranchResult(
                    branch,
                    {
                        name: TextLoss(float(nats[k].sum()), nats.shape[1], nats[k].tolist())
                        for name, nats in nats_by_text.items()
                    },
                )
                for k, branch in enumerate(branches)
            ]

        monkeypatch.setattr(mixmin_module, "run_branches", respond)

    return plant


def slow_loss(weights_K, nats_by_text, lengths_by_text, unit):
    """The loss of a mixture of branches in nats per token, text by text and item by item, from the definition."""
    of_texts = []
    for name, nats_KN in nats_by_text.items():
        items, start = [], 0
        for length in lengths_by_text[name]:
            p_Kn = np.exp(-nats_KN[:, start : start + length])
            mixed = np.log(weights_K @ p_Kn.prod(axis=1)) if unit == "item" else np.log(weights_K @ p_Kn).sum()
            items.append((-mixed, length))
            start += length
        by_item = np.mean([loss / length for loss, length in items])
        by_token = sum(loss for loss, _ in items) / sum(length for _, length in items)
        of_texts.append(by_item if unit == "item" else by_token)
    return float(np.mean(of_texts))


@pytest.mark.parametrize("unit", ["item", "token"])
def test_no_mixture_of_a_grid_is_likelier(checkpoint, token_shards, tmp_path, planted, unit):
    generator = np.random.default_rng(0)
    lengths = {"query/quiz": [3, 5, 1, 4], "query/riddle": [2, 2, 6]}
    nats = {name: generator.gamma(2.0, size=(3, sum(of_text))) for name, of_text in lengths.items()}
    planted(nats)
    texts = {name: [batch_of(of_text[:2]), batch_of(of_text[2:])] for name, of_text in lengths.items()}
    found = decide(checkpoint, token_shards, tmp_path, texts=texts, unit=unit)
    weights_K = np.array([found.weights[domain] for domain in DOMAINS])
    assert found.details["loss"] == pytest.approx(slow_loss(weights_K, nats, lengths, unit), rel=1e-9)
    assert found.details["loss_of_uniform"] == pytest.approx(
        slow_loss(np.full(3, 1 / 3), nats, lengths, unit), rel=1e-9
    )
    corners = [slow_loss(corner_K, nats, lengths, unit) for corner_K in np.eye(3)]
    assert [found.details["loss_of_branches"][domain] for domain in DOMAINS] == pytest.approx(corners, rel=1e-9)
    grid = [np.array([a, b, 20 - a - b]) / 20 for a, b in itertools.product(range(21), repeat=2) if a + b <= 20]
    assert found.details["loss"] <= min(slow_loss(w_K, nats, lengths, unit) for w_K in grid) + 1e-9
    assert found.notes == ()


@pytest.mark.parametrize("unit", ["item", "token"])
def test_of_multiple_choice_the_right_option_is_one_observation(choice_shards, checkpoint, tmp_path, planted, unit):
    items = TaskItems.open(choice_shards.tasks_file).choices("recall", "query")
    texts = {"query/recall": choice_batches(items, context=TRAIN.context, batch_size=5, pad_id=0)}
    lengths = {"query/recall": [1] * len(items)}
    nats = {"query/recall": np.random.default_rng(0).gamma(2.0, size=(3, len(items)))}
    planted(nats)
    found = decide(checkpoint, choice_shards, tmp_path, texts=texts, unit=unit)
    weights_K = np.array([found.weights[domain] for domain in DOMAINS])
    assert found.details["loss"] == pytest.approx(slow_loss(weights_K, nats, lengths, unit), rel=1e-9)


def test_branches_are_asked_for_the_right_options(choice_shards, checkpoint, tmp_path):
    """In real branches, of which each item has one loss."""
    items = TaskItems.open(choice_shards.tasks_file).choices("recall", "query")
    texts = {"query/recall": choice_batches(items, context=TRAIN.context, batch_size=5, pad_id=0)}
    found = decide(checkpoint, choice_shards, tmp_path, texts=texts)
    assert found.details["loss"] <= found.details["loss_of_uniform"] + 1e-9
    assert found.details["loss"] <= min(found.details["loss_of_branches"].values()) + 1e-9


def test_mixture_that_text_was_drawn_from_is_recovered(checkpoint, token_shards, tmp_path, planted):
    """Every item comes of one domain's model, of unlike lengths: what the paper's argument is about."""
    generator = np.random.default_rng(1)
    models_KV = generator.dirichlet(np.ones(12), size=3) * 0.99 + 0.01 / 12
    share_K = np.array([0.5, 0.35, 0.15])
    lengths = generator.integers(4, 12, size=3_000)
    origins = generator.choice(3, size=len(lengths), p=share_K)
    tokens = [generator.choice(12, size=n, p=models_KV[k]) for n, k in zip(lengths, origins, strict=True)]
    planted({"query/quiz": -np.log(models_KV[:, np.concatenate(tokens)])})
    found = decide(checkpoint, token_shards, tmp_path, texts={"query/quiz": [batch_of(lengths)]})
    assert [found.weights[domain] for domain in DOMAINS] == pytest.approx(share_K, abs=0.04)


def test_long_items_that_differ_by_thousands_of_nats_are_no_trouble(checkpoint, token_shards, tmp_path, planted):
    nats = np.stack([np.full(2_000, 9.0), np.full(2_000, 1.0), np.full(2_000, 5.0)])
    planted({"query/quiz": nats})
    found = decide(checkpoint, token_shards, tmp_path, texts={"query/quiz": [batch_of([1_000, 1_000])]})
    assert found.weights["prose"] == pytest.approx(1)
    assert found.details["loss"] == pytest.approx(1.0)


def test_domain_whose_branch_failed_gets_nothing_and_is_told(checkpoint, token_shards, tmp_path, planted):
    planted({"query/quiz": np.ones((3, 4))}, failures=("prose",))
    found = decide(checkpoint, token_shards, tmp_path, texts={"query/quiz": [batch_of([4])]})
    assert found.weights == pytest.approx({"code": 0.5, "prose": 0.0, "verse": 0.5})
    assert "branch of 'prose' did not come through" in found.notes[0]
    assert "hardly differ" in found.notes[1]
    assert found.details["trained"] == 3


def test_stopped_early_says_so_in_nats_per_token(checkpoint, token_shards, tmp_path, planted):
    nats = np.random.default_rng(2).gamma(2.0, size=(3, 12))
    planted({"query/quiz": nats})
    texts = {"query/quiz": [batch_of([4, 4, 4])]}
    early = decide(checkpoint, token_shards, tmp_path, texts=texts, iterations=2)
    assert "baselines.mixmin.iterations = 2" in early.notes[0]
    missing = early.details["loss"] - decide(checkpoint, token_shards, tmp_path, texts=texts).details["loss"]
    assert 0 < missing <= float(early.notes[0].split("up to ")[1].split()[0]) * 1.6


def test_text_of_a_domain_is_best_predicted_by_that_domain_s_branch(checkpoint, token_shards, tmp_path):
    found = decide(checkpoint, token_shards, tmp_path, texts=heldout_texts(token_shards, "verse"), tokens=64 * 40)
    assert max(found.weights, key=found.weights.get) == "verse"
    assert found.weights["verse"] > 0.8
    assert sum(found.weights.values()) == pytest.approx(1)


def test_bounds_hold(checkpoint, token_shards, tmp_path, planted):
    planted({"query/quiz": np.array([[1.0], [9.0], [9.0]])})
    bounds = mixture_bounds(OptimizeParameters(max_weight=0.6), dict.fromkeys(DOMAINS, Supply(10_000)), 100)
    found = decide(checkpoint, token_shards, tmp_path, texts={"query/quiz": [batch_of([1])]}, bounds=bounds)
    assert found.weights["code"] == pytest.approx(0.6)
    assert "'code' most" in found.notes[0]


def test_branches_are_trained_once_and_counted(checkpoint, token_shards, tmp_path, monkeypatch):
    texts = heldout_texts(token_shards, "code", "verse")
    first = decide(checkpoint, token_shards, tmp_path, texts=texts)
    config = checkpoint.model(MODEL).config
    scored = 3 * sum(batch.loss_tokens for batches in texts.values() for batch in batches)
    trained = training_cost(config, context=16, tokens=3 * STEPS * 64)
    assert first.cost == trained + scoring_cost(config, context=16, tokens=scored)
    monkeypatch.setattr("tikmix_pipeline.lm.branch_pool.train_branch", None)
    assert decide(checkpoint, token_shards, tmp_path, texts=texts) == first
    assert decide(checkpoint, token_shards, tmp_path, texts=texts, unit="token").weights != first.weights
