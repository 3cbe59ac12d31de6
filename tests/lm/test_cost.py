import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lm_examples import gpt2_model, tied_model, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm.cost import FlopCounter, SequenceFlops, ShapeCounter, scoring_cost, tokens_read, training_cost
from tikmix_pipeline.lm.cost_records import Cost, cost_report
from tikmix_pipeline.lm.loss import summed_loss

MODELS = [tiny_model, tied_model, gpt2_model]


def windows(sequences: int, context: int) -> TokenBatch:
    return TokenBatch.of_windows(np.ones((sequences, context + 1), dtype=np.int64))


def operations(model: nn.Module, batch: TokenBatch, *, training: bool) -> float:
    """Count a real pass."""
    with FlopCounter() as counter, torch.set_grad_enabled(training):
        loss, _ = summed_loss(model, batch)
        if training:
            loss.backward()
    return counter.flops


def test_linear_layer_costs_two_operations_per_weight_and_row_on_each_of_three_products():
    layer, rows = nn.Linear(8, 5), torch.ones(3, 7, 8, requires_grad=True)
    with FlopCounter() as counter:
        outputs = layer(rows)
    assert counter.flops == 2 * 21 * 8 * 5
    with FlopCounter() as counter:
        outputs.sum().backward()
    assert counter.flops == 2 * (2 * 21 * 8 * 5)


def test_eigendecompositions_are_counted():
    with FlopCounter() as counter:
        torch.linalg.eigh(torch.eye(10).expand(3, 10, 10))
    assert counter.flops == 3 * 9 * 1000


def test_block_inside_a_block_counts_in_both():
    matrix = torch.ones(4, 4)
    with FlopCounter() as outer:
        matrix @ matrix
        with FlopCounter() as inner:
            matrix @ matrix
    assert (inner.flops, outer.flops) == (128, 256)


@pytest.mark.parametrize("context", [5, 16])
@pytest.mark.parametrize("build", MODELS)
def test_cost_from_the_configuration_is_that_of_a_real_pass(build, context):
    """The real model runs a fused attention, grouped where it is a Llama; the other one is written out."""
    model, batch = build().eval(), windows(3, context)
    trained = training_cost(model.config, context=context, tokens=3 * context)
    scored = scoring_cost(model.config, context=context, tokens=3 * context)
    assert (trained.tokens, scored.tokens) == (3 * context, 3 * context)
    assert trained.flops == operations(model, batch, training=True)
    assert scored.flops == operations(model, batch, training=False)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("build", MODELS)
def test_two_lengths_say_what_batches_of_all_lengths_take(build, training):
    model = build().eval()
    flops = SequenceFlops.of(model, 14, training=training)
    batches = [windows(sequences, context) for sequences, context in ((1, 1), (2, 7), (5, 16))]
    expected = sum(operations(model, batch, training=training) for batch in batches)
    assert flops.cost(batches) == Cost(1 + 14 + 80, expected)
    assert flops.of_windows(5, 16) == flops.cost(batches[2:])


def test_counting_sequences_leaves_the_model_as_it_was():
    model = gpt2_model().eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    SequenceFlops.of(model, 8, training=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_parameters_need_no_gradient_of_their_own():
    model = tiny_model().eval()
    whole = SequenceFlops.of(model, 8, training=True)
    model.lm_head.weight.requires_grad_(False)
    head = model.lm_head.weight.numel()
    assert whole.per_token - SequenceFlops.of(model, 8, training=True).per_token == 2 * head


def test_padding_and_what_predicts_nothing_is_not_read():
    loss_BS = np.zeros((3, 6), dtype=np.bool_)
    loss_BS[0, 2:4] = loss_BS[1, 5] = True
    assert tokens_read(TokenBatch(np.ones((3, 6), dtype=np.int64), loss_BS)) == 3 + 5
    assert tokens_read(windows(4, 9)) == 36


def test_batches_of_one_shape_are_counted_once_and_all_of_them_added():
    counter, matrix = ShapeCounter(), torch.ones(4, 4)
    batches = [windows(2, 3), windows(2, 3), windows(1, 3)]
    for number, batch in enumerate(batches):
        with counter.batch(batch):
            for _ in range(len(batch) + 10 * (number == 1)):
                matrix @ matrix
        if number == 0:
            counter = ShapeCounter.of_dict(asdict(counter))
    assert counter.cost == Cost(6 + 6 + 3, 128 * (2 + 2 + 1))


def test_costs_add_up():
    report = cost_report(one=Cost(3, 5.0), two=Cost(flops=2.0) * 2, none=Cost())
    assert (report.tokens, report.flops) == (3, 9.0)
    assert report.to_json()["parts"]["two"] == {"tokens": 0, "flops": 4.0}
    assert report.to_json()["parts"]["none"] == {"tokens": 0, "flops": 0.0}


def test_counting_does_not_bring_the_compiler_in():
    """Its import takes longer than a small measurement."""
    code = (
        "import sys, torch; from tikmix_pipeline.lm.cost import FlopCounter\n"
        "with FlopCounter() as counter: torch.ones(2, 2) @ torch.ones(2, 2)\n"
        "print(counter.flops, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["16.0", "False"]
