"""A measurement whose model computes in bfloat16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from curvature_fits import FISHER_KINDS
from group_examples import collected, curvature_of
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.lm.model import compute_in_bfloat16


def model(kind: str, *, low: bool) -> torch.nn.Module:
    found = tiny_model(kind, exact_norms=False).float()
    if low:
        compute_in_bfloat16(found)
    return found


def test_gradients_are_rounded_but_summed_and_kept_in_float32():
    gradients = [mean_gradient(model("llama", low=low), random_batches(1), of="set").gradient for low in (False, True)]
    for name, exact in gradients[0].items():
        rounded = gradients[1][name]
        assert rounded.dtype == torch.float32
        assert not (rounded == exact).all()
        assert torch.linalg.norm(rounded - exact) < 0.05 * torch.linalg.norm(exact)


@pytest.mark.parametrize("curvature", ["identity", *FISHER_KINDS])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_influence_is_near_that_of_float32(tmp_path: Path, kind: str, curvature: str):
    influence_TK = [
        group_influence(
            collected(tmp_path / str(low), model(kind, low=low)), curvature_of(model(kind, low=low), curvature)
        ).influence_TK
        for low in (False, True)
    ]
    assert np.abs(influence_TK[1] - influence_TK[0]).max() < 0.1 * np.abs(influence_TK[0]).max()
    assert np.corrcoef(influence_TK[0].ravel(), influence_TK[1].ravel())[0, 1] > 0.99
