import numpy as np
import pytest
import torch
from baseline_examples import MODEL, TRAIN, heldout_texts

from tikmix_pipeline.baselines import alignment as alignment_module
from tikmix_pipeline.baselines.alignment import AlignedTraining, Alignments, Rule
from tikmix_pipeline.baselines.baseline import proxy_schedule, save_initial
from tikmix_pipeline.corpus.choices import choice_batches
from tikmix_pipeline.corpus.tasks import TaskItems
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.choice import summed_terms
from tikmix_pipeline.lm.cost import FlopCounter, ShapeCounter, tokens_read, training_cost
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.loss import summed_loss
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.parameters.baselines import AlignmentParameters
from tikmix_pipeline.store.keyed import KeyedEntry

STEPS = 7


def model_of(shards, dtype=torch.float64):
    return build_model(MODEL, vocabulary_size=shards.vocabulary_size, context=TRAIN.context, seed=0).to(dtype)


def alignments_of(shards, *, head_only=False, texts=None, **changes):
    parameters = AlignmentParameters.model_validate({"rows": 3, "drawn_items": 1_000, "every": 2} | changes)
    texts = texts or heldout_texts(shards, "code", "verse")
    return Alignments(shards, texts, parameters, TRAIN.context, 0, head_only=head_only)


def loss_of_targets(model, texts):
    """The mean over the targets of the loss per token, of multiple choice per item."""
    losses = [
        sum(summed_terms(model, batch) for batch in batches) / sum(batch.terms for batch in batches)
        for batches in texts.values()
    ]
    return sum(losses) / len(losses)


def choices_and_text(shards):
    """A target of multiple choice, in batches of unlike width, beside one of text."""
    items = TaskItems.open(shards.tasks_file).choices("recall", "query")
    choices = choice_batches(items, context=TRAIN.context, batch_size=5, pad_id=0)
    return {"query/recall": choices} | heldout_texts(shards, "verse")


@pytest.mark.parametrize("with_choices", [False, True])
@pytest.mark.parametrize("head_only", [False, True])
def test_is_what_a_small_step_on_a_domain_takes_off_the_targets(token_shards, choice_shards, head_only, with_choices):
    """Against a difference of losses along each domain's own gradient."""
    token_shards = choice_shards if with_choices else token_shards
    model = model_of(token_shards)
    texts = choices_and_text(token_shards) if with_choices else heldout_texts(token_shards, "code", "verse")
    alignments = alignments_of(token_shards, head_only=head_only, texts=texts)
    found_K = alignments.measure(model, 5, ShapeCounter())
    generator = np.random.default_rng([0, 5])
    for batches in texts.values():
        generator.permutation(
            sum(getattr(batch, "options_I", batch.tokens_BS).shape[0] for batch in batches)
        )  # all items
    by = [model.get_output_embeddings().weight] if head_only else list(model.parameters())
    slow_K = []
    for domain in token_shards.domains:
        loss, tokens = summed_loss(model, alignments._rows_of(domain, generator))
        gradient = torch.autograd.grad(loss / tokens, by)
        sides = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                for parameter, direction in zip(by, gradient, strict=True):
                    parameter.sub_(step * direction)
                sides.append(loss_of_targets(model, texts).item())
                for parameter, direction in zip(by, gradient, strict=True):
                    parameter.add_(step * direction)
        slow_K.append((sides[1] - sides[0]) / 2e-4)
    # norms and rotations of the model are in single precision whatever its weights are
    np.testing.assert_allclose(found_K, slow_K, rtol=1e-3)


def test_other_steps_draw_other_rows_and_the_same_step_the_same(token_shards):
    model, alignments = model_of(token_shards), alignments_of(token_shards, drawn_items=2)
    first, again, other = (alignments.measure(model, step, ShapeCounter()).tolist() for step in (4, 4, 5))
    assert first == again
    assert first != other


def test_text_is_best_served_by_its_own_domain(token_shards):
    texts = heldout_texts(token_shards, "verse")
    found_K = alignments_of(token_shards, texts=texts, rows=32).measure(model_of(token_shards), 0, ShapeCounter())
    assert token_shards.domains[int(found_K.argmax())] == "verse"


def test_gradient_that_is_not_finite_is_told(token_shards):
    model = model_of(token_shards)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"not finite after step 3.*train\.learning_rate"):
        alignments_of(token_shards).measure(model, 3, ShapeCounter())


class Leaning(Rule):
    """A rule that leans to the domain that was best served."""

    def __init__(self, domains):
        super().__init__(domains, weights=np.full(domains, 1 / domains))

    @property
    def mixture(self):
        return self.state["weights"]

    def _answer(self, alignment_K):
        self.state["weights"] = 0.7 * self.mixture + 0.3 * np.eye(len(alignment_K))[int(alignment_K.argmax())]


def train(shards, folder, *, key="code", **changes):
    save_initial(MODEL, shards, folder / "initial", context=TRAIN.context, seed=0)
    training = AlignedTraining(
        start=Checkpoint(folder / "initial"),
        shards=shards,
        model=MODEL,
        train=TRAIN,
        schedule=proxy_schedule(STEPS),
        seed=0,
        steps=STEPS,
        kept=KeyedEntry(folder / "kept", key),
        description="Training",
    )
    rule = Leaning(len(shards.domains))
    cost = training.run(rule, alignments_of(shards, **changes))
    return {name: value.tolist() for name, value in rule.state.items()}, cost


def weights_of(folder):
    return (folder / "kept" / "model.safetensors").read_bytes()


def test_gradients_are_measured_every_so_many_steps_and_training_follows(token_shards, tmp_path):
    state, _ = train(token_shards, tmp_path, every=3)
    assert state["measurements"] == [3]
    saved = Checkpoint(tmp_path / "kept").training_state()
    assert saved["step"] == STEPS
    domains = token_shards.domains
    assert [saved["stream"]["weights"][domain] for domain in domains] == pytest.approx(state["weights"])


@pytest.mark.parametrize("last", [1, 2, 3])
def test_stopped_anywhere_and_called_again_is_undisturbed(token_shards, tmp_path, last):
    whole = train(token_shards, tmp_path / "whole")
    measured = []

    def interrupted(*arguments, **keywords):
        if len(measured) == last:
            raise KeyboardInterrupt
        measured.append(None)
        return steps(*arguments, **keywords)

    steps = alignment_module.train_steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment_module, "train_steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(token_shards, tmp_path / "stopped")
    assert train(token_shards, tmp_path / "stopped") == whole
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")


def test_finished_training_is_not_done_again_and_that_of_another_key_is(token_shards, tmp_path, monkeypatch):
    first = train(token_shards, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(alignment_module, "train_steps", None)
        assert train(token_shards, tmp_path) == first
        with pytest.raises(TypeError):
            train(token_shards, tmp_path, key="other code")


def test_cost_counts_the_training_and_every_gradient(token_shards, tmp_path):
    _, cost = train(token_shards, tmp_path, every=7)
    model, texts = model_of(token_shards, torch.float32), heldout_texts(token_shards, "code", "verse")
    counter = ShapeCounter()
    alignments_of(token_shards).measure(model, 0, counter)
    items = sum(tokens_read(batch) for batches in texts.values() for batch in batches)
    assert counter.cost.tokens == items + 3 * 3 * TRAIN.context
    assert cost == counter.cost + training_cost(model.config, context=16, tokens=STEPS * TRAIN.tokens_per_step)
    with FlopCounter() as counted:
        alignments_of(token_shards).measure(model, 0, ShapeCounter())
    assert counter.cost.flops == pytest.approx(counted.flops)
