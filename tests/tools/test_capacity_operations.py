"""The formulas against the counter, on real models of three families and three sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedModel

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
from tools.capacity.costs import (
    covariance_flops,
    dot_flops,
    eigendecomposition_flops,
    factor_pass_flops,
    forward_flops,
    precondition_flops,
    training_flops,
)
from tools.capacity.shape import shape_of

pytestmark = pytest.mark.usefixtures("single_thread")

VOCABULARY, CONTEXT, PARTS = 200, 24, 2
LAYERS_AND_WIDTH = [(2, 32), (3, 64), (4, 96)]
SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def llama(layers: int, width: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=layers == 3,
        **SPECIAL,
    )


def gpt2(layers: int, width: int) -> GPT2Config:
    return GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=width, n_layer=layers, n_head=4, **SPECIAL)


def neox(layers: int, width: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        **SPECIAL,
    )


FAMILIES = pytest.mark.parametrize("family", [llama, gpt2, neox])
SIZES = pytest.mark.parametrize(("layers", "width"), LAYERS_AND_WIDTH)


def model_of(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def batches(seed: int, sequences: int = 4) -> list[TokenBatch]:
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, (sequences, CONTEXT + 1))
    return [TokenBatch.of_windows(tokens)]


@FAMILIES
@SIZES
def test_passes_take_what_the_counter_says(family: Any, layers: int, width: int) -> None:
    config = family(layers, width)
    shape, model = shape_of(config.to_dict()), model_of(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    trained = training_cost(config, context=CONTEXT, tokens=1)
    scored = scoring_cost(config, context=CONTEXT, tokens=1)
    assert training_flops(shape, CONTEXT) == pytest.approx(trained.flops, rel=0.02)
    assert forward_flops(shape, CONTEXT) == pytest.approx(scored.flops, rel=0.02)


@FAMILIES
@SIZES
def test_influence_takes_what_the_counter_says(family: Any, layers: int, width: int, tmp_path: Path) -> None:
    config = family(layers, width)
    shape, model = shape_of(config.to_dict()), model_of(config)
    parameters = InfluenceParameters()
    factors = fit_factors(model, batches(0), kind="kfac", fisher=parameters.fisher, seed=0, groups=parameters.groups)
    curvature = build_curvature(
        parameters, model, factors=factors, optimizer_state={}, train=TrainParameters(), horizon=None
    )
    tokens = 4 * CONTEXT
    assert factors.cost.flops == pytest.approx(
        tokens * (factor_pass_flops(shape, CONTEXT) + covariance_flops(shape)), rel=0.02
    )
    assert curvature.cost.flops == pytest.approx(eigendecomposition_flops(shape), rel=0.02)
    sets = {
        "task": deal_sets("task", {"quiz": batches(1)}, PARTS),
        "domain": deal_sets("domain", {"web": batches(2), "code": batches(3), "mail": batches(4)}, PARTS),
    }
    store = GradientStore(tmp_path)
    collect_gradients(model, sets, store, key="")
    assert store.cost.flops == pytest.approx(4 * tokens * training_flops(shape, CONTEXT), rel=0.02)
    found = group_influence(store, curvature)
    products = PARTS * precondition_flops(shape) + PARTS * 3 * PARTS * dot_flops(shape)
    assert found.cost.flops == pytest.approx(products, rel=0.02)
