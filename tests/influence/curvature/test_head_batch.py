import pytest
import torch
from influence_oracle import random_batches
from lm_examples import tied_model, tiny_model

from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.curvature.head_batch import draw_uniform, sample_labels
from tikmix_pipeline.lm import output_head


def test_labels_follow_the_predicted_distribution_and_never_an_impossible_token():
    probability = torch.tensor([[0.0, 0.1, 0.6, 0.0, 0.3, 0.0]]).expand(20_000, -1)
    labels = sample_labels(probability, draw_uniform(len(probability), torch.Generator().manual_seed(0)))
    frequency = torch.bincount(labels, minlength=6) / len(labels)
    torch.testing.assert_close(frequency, probability[0], rtol=0, atol=0.015)
    assert set(labels.tolist()) == {1, 2, 4}


def test_labels_do_not_depend_on_how_rows_are_cut_into_batches():
    probability = torch.rand(30, 7).softmax(1)
    generator = torch.Generator().manual_seed(5)
    parts = [sample_labels(rows, draw_uniform(len(rows), generator)) for rows in probability.split([4, 1, 25])]
    whole = sample_labels(probability, draw_uniform(30, torch.Generator().manual_seed(5)))
    assert torch.cat(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("kind", ["diagonal", "kfac", "ekfac"])
@pytest.mark.parametrize("build", [tied_model, tiny_model])
def test_head_that_is_taken_in_chunks_gives_the_factors_of_whole_logits(build, kind, fisher, monkeypatch):
    model, batches = build().eval(), random_batches(2)
    arguments = {"kind": kind, "fisher": fisher, "seed": 0, "groups": ["linear", "embedding", "head", "elementwise"]}
    whole = fit_factors(model, batches, **arguments)
    monkeypatch.setattr(output_head, "MOST_LOGITS", 5 * 320)
    chunked = fit_factors(model, batches, **arguments)
    assert set(chunked.tensors) == set(whole.tensors)
    for name, expected in whole.tensors.items():
        if name.endswith(("/rows", "/columns")):
            continue  # eigenvectors turn with the last bit of their factor
        assert (chunked.tensors[name] - expected).norm() <= 1e-5 * expected.norm(), name
