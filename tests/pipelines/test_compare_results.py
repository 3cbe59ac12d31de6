"""What a comparison makes of its arms: which failures are for good, and which measurement stands for all."""

import errno
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.parameters import CompareParameters
from tikmix_pipeline.pipelines.compare import run_arm
from tikmix_pipeline.pipelines.compare.arms import Arm
from tikmix_pipeline.pipelines.compare.results import points_of, scores_of
from tikmix_pipeline.pipelines.compare.run_arm import ArmSetting
from tikmix_pipeline.session.kedro_session import UserError

ARM = Arm("mine", 0, "cmp.mine.0", {})
COMPARE = CompareParameters(
    reference="gradient",
    definitions={
        "gradient": {"influence.curvature": "identity"},
        "other-start": {"tikmix": {"prior": "uniform"}},
        "direct": {},
        "longer": {"train.chunk_tokens": 10},
    },
)


@pytest.mark.parametrize(
    ("cause", "lasting"),
    [(DivergedError("Training diverged"), True), (OSError(errno.ENOSPC, "full"), False), (ValueError("odd"), False)],
)
def test_only_an_arm_that_diverged_is_given_up(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, *, lasting: bool
) -> None:
    """Anything else may pass, or be mended, and the comparison would hold for finished what is not there."""

    def failing(*_: object) -> None:
        raise UserError("in words") from cause

    monkeypatch.setattr(run_arm, "_run", failing)
    failure = run_arm.run_arm(ArmSetting(finished_project, "tiny", {}, tmp_path, on_cpu=True), ARM)
    assert failure is not None
    assert (failure.reason, failure.lasting) == ("in words", lasting)


def test_influence_of_a_mixture_is_that_of_the_comparison_s_own_measurement() -> None:
    """Not of an arm with a curvature of its own, though it comes first, nor at a checkpoint that the others lack."""
    arms = list(COMPARE.definitions)
    influence = pd.DataFrame(
        [(arm, 0, 0, "quiz", domain, float(size)) for size, arm in enumerate(arms) for domain in ("code", "prose")],
        columns=["arm", "seed", "round", "task", "domain", "influence"],
    )
    mixtures = pd.DataFrame(
        [
            (arm, 0, 1, *pair)
            for share, arm in zip((0.2, 0.3, 0.4, 0.5), arms, strict=True)
            for pair in (("code", share), ("prose", 1 - share))
        ],
        columns=["arm", "seed", "round", "domain", "weight"],
    )
    scores = pd.DataFrame(
        [(arm, 0, "in_domain", 1.0) for arm in arms],
        columns=["arm", "seed", "split", "bpb"],
    )
    points = points_of(scores, mixtures, influence, COMPARE)
    assert list(points["arm"]) == ["gradient", "direct"]
    assert points["total"].tolist() == pytest.approx([float(arms.index("direct"))] * 2)


@pytest.mark.parametrize("has_options", [True, False])
def test_scores_have_a_column_of_choices_whether_or_not_a_task_offers_any(*, has_options: bool) -> None:
    rows = [
        ("quiz", "task", "answer", 2.0, np.nan),
        ("quiz", "task", "text", 1.5, np.nan),
        ("code", "domain", "text", 3.0, np.nan),
    ]
    choice = [("quiz", "task", "choice", np.nan, 0.75)] if has_options else []
    columns = ["name", "kind", "measure", "bits_per_byte", "nats_per_item"]
    final = pd.DataFrame([*rows, *choice], columns=columns)
    tikmix = SimpleNamespace(strategy="prior", rounds=2, deciding_rounds=0)
    parameters = SimpleNamespace(tikmix=tikmix, train=SimpleNamespace(tokens_per_chunk=100), optimize=None)
    run = SimpleNamespace(load=lambda _: final, parameters=parameters)
    scores = scores_of(ARM, run, ["quiz"]).set_index("task")
    assert scores.loc["quiz", ["bpb", "bpb_answer"]].tolist() == [1.5, 2.0]
    assert scores.loc["code", "bpb"] == 3.0
    assert scores["choice"].fillna(-1).tolist() == [0.75 if has_options else -1, -1]
