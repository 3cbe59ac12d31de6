import torch

from tikmix_pipeline.influence.curvature.hooks import draw_uniform, sample_labels


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
