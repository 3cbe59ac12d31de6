"""The mixture that a growing measurement waits for is the one that the decision makes."""

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.mixture.implied import implied_mixture
from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters
from tikmix_pipeline.pipelines.optimize.nodes import decide

DOMAINS, TASKS = ["books", "code", "web"], ["reading", "coding"]
STOCK = {
    "round": 0,
    "available": dict.fromkeys(DOMAINS, 1e9),
    "consumed": {},
    "chunk_tokens": 1000,
    "in_force": {"books": 0.7, "code": 0.1, "web": 0.2},
}


@pytest.mark.parametrize("anchor", ["uniform", "current"])
def test_it_is_anchored_like_the_decision(anchor: str) -> None:
    influence_TK = np.array([[1.0, 0.3, 0.5], [0.2, 1.0, 0.4]])
    prior = {"weights": {"books": 0.4, "code": 0.3, "web": 0.3}}
    optimize = OptimizeParameters.model_validate({"anchor": anchor})
    table = pd.DataFrame(
        [
            {"task": task, "domain": domain, "influence": influence_TK[t, k], "stderr": 0.1}
            for t, task in enumerate(TASKS)
            for k, domain in enumerate(DOMAINS)
        ]
    )
    decision = decide(STOCK, prior, optimize, TikmixParameters(), table)
    implied_K = implied_mixture(STOCK, prior["weights"], optimize, TASKS)(influence_TK)
    assert implied_K.tolist() == pytest.approx([decision["weights"][domain] for domain in DOMAINS], abs=1e-9)
