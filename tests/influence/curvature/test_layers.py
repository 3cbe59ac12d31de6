import re

import pytest
import torch
from curvature_fits import GROUPS, fit_curvature
from influence_oracle import ToyLM, random_batches, tiny_model
from torch import nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.layers import chosen_parameters, find_layers, parameter_groups


class Scale(nn.Module):
    """A matrix-valued parameter that no block is known for."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.table


class ScaledEmbedding(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(ids)


class Table(nn.Module):
    """Looks tokens up, and is no nn.Embedding."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.eye(11, 4)[ids]


class Flattened(nn.Module):
    """Hands its layer tokens without sequences, as a router of experts does."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(0, 1)).view(x.shape)


class Unused(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(4, 4)


def shares_a_weight() -> nn.Module:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    layers[1].weight = layers[0].weight
    return layers


@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("llama", True), ("gpt_neox", False), ("gpt2", True)])
def test_every_parameter_is_in_the_group_that_its_name_says(kind, tied):
    model = tiny_model(kind, tied=tied)
    for name, group in parameter_groups(model).items():
        if any(part in name for part in ("embed", "wte", "wpe")):
            assert group == "embedding"
        elif "lm_head" in name:
            assert group == "head"
        else:
            assert group == ("elementwise" if "norm" in name or "ln_" in name else "linear")


def test_a_tied_head_belongs_to_the_embedding():
    model = tiny_model("llama", tied=True)
    assert list(chosen_parameters(model, ["embedding"])) == ["model.embed_tokens.weight"]
    assert {layer.kind for layer in find_layers(model, ["embedding"])} == {"embedding", "head"}
    with pytest.raises(TikmixError, match=r"influence\.groups \(head\) holds no trainable parameter"):
        find_layers(model, ["head"])


@pytest.mark.parametrize("kind", ["diagonal", "kfac", "ekfac"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_gives_the_blocks_that_it_has_among_all(kind, group):
    model = tiny_model("gpt_neox")
    alone = fit_curvature(model, random_batches(1), kind, groups=(group,))
    every = {block.names: block for block in fit_curvature(model, random_batches(1), kind)}
    assert {name for block in alone for name in block.names} == set(chosen_parameters(model, [group]))
    for block in alone:
        torch.testing.assert_close(block.eigenvalues_oi, every[block.names].eigenvalues_oi, rtol=1e-10, atol=1e-14)
    assert alone.report.left_out == pytest.approx(1 - sum(alone.report.coverage().values()))


@pytest.mark.parametrize(
    ("middle", "message", "harmless"),
    [
        (Scale(), r"does not know the kind of layer of middle\.table", "head"),
        (shares_a_weight(), r"cannot handle layers that share middle\.0\.weight", "elementwise"),
        (Flattened(nn.Linear(4, 4)), r"positions in layer middle\.layer", "embedding"),
        (Flattened(nn.LayerNorm(4)), r"sequences in layer middle\.layer", "embedding"),
        (Unused(), r"no gradient reaches layer middle\.spare", "embedding"),
    ],
)
def test_what_cannot_be_covered_is_named_where_it_is_chosen_and_only_there(middle, message, harmless):
    model = ToyLM(nn.Sequential(middle, nn.LayerNorm(4)) if harmless == "elementwise" else middle)
    message = message.replace(r"middle\.", r"middle\.0\.") if harmless == "elementwise" else message
    with pytest.raises(TikmixError, match=message):
        fit_curvature(model, random_batches(1), groups=("linear", "elementwise"))
    assert fit_curvature(model, random_batches(1), groups=(harmless,))


def test_sequences_are_asked_for_where_gradients_of_sequences_are_taken():
    with pytest.raises(TikmixError, match=r"sequences in layer middle\.layer"):
        fit_curvature(ToyLM(Flattened(nn.Linear(4, 4))), random_batches(1), "diagonal")


def test_an_embedding_that_computes_something_else_is_an_embedding_but_has_no_block():
    model = ToyLM(nn.Linear(4, 4))
    model.embedding = ScaledEmbedding(11, 4)
    assert parameter_groups(model)["embedding.weight"] == "embedding"
    with pytest.raises(TikmixError, match=r"does not know the kind of layer of embedding\.weight"):
        fit_curvature(model, random_batches(1))
    assert fit_curvature(model, random_batches(1), groups=("linear", "head"))


def test_a_refusal_names_groups_that_can_be_covered_and_how_much_they_leave_out():
    model = ToyLM(nn.Linear(4, 4))
    model.embedding = ScaledEmbedding(11, 4)
    with pytest.raises(TikmixError) as error:
        fit_curvature(model, random_batches(1))
    told = re.search(
        r"Set influence\.groups=(\S+), which leaves out (\d+)% .* influence\.curvature=identity", str(error.value)
    )
    assert told
    curvature = fit_curvature(model, random_batches(1), groups=told[1].split("+"))
    assert 100 * curvature.report.left_out == pytest.approx(int(told[2]), abs=0.5)
    with pytest.raises(TikmixError, match=r"Set influence\.groups=head, which leaves out"):
        find_layers(model, ["embedding", "head"])


def test_where_every_chosen_group_holds_something_unknown_the_identity_is_named():
    with pytest.raises(TikmixError, match=r"table\. Set influence\.curvature=identity, which takes all parameters"):
        find_layers(Scale(), ["linear"])


def test_a_head_is_not_taken_for_all_of_a_weight_that_it_shares_with_something_unknown():
    model = ToyLM(nn.Linear(4, 4))
    model.embedding, model.out = ScaledEmbedding(11, 4), nn.Linear(4, 11, bias=False)
    model.out.weight = model.embedding.weight
    with pytest.raises(TikmixError, match=r"does not know the kind of layer of embedding\.weight"):
        fit_curvature(model, random_batches(1))


def test_model_without_an_embedding_is_refused():
    model = ToyLM(nn.Linear(4, 4))
    model.embedding = Table()
    with pytest.raises(TikmixError, match=r"reads its tokens through nn\.Embedding"):
        fit_curvature(model, random_batches(1), groups=("linear",))
