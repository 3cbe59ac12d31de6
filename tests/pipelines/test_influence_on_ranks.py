"""The stages of a measurement by two real processes: the same files, the same figures, and nothing left behind."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tikmix_pipeline.files import read_json, remove

CHANGE = {"factor_tokens": 128, "factor_mixture": "current", "items_per_task": 7, "tokens": 128}
MADE = ("factors", "gradients", "influence.parquet", "measurement.json")


@pytest.mark.slow
def test_two_ranks_make_what_one_process_makes(project: Path, tmp_path: Path) -> None:
    folder = project / "data" / "07_model_output" / "one" / "round_0"
    run_in(project, "influence", round=0, influence=CHANGE, train={"world_size": 2})
    for name in MADE:
        shutil.move(folder / name, tmp_path / name)
        remove(folder / f"{name}.recipe.json")
    before = sorted(path.name for path in folder.iterdir())
    run_in(project, "influence", round=0, influence=CHANGE)
    after = {path.name for path in folder.iterdir()} - set(MADE) - {f"{name}.recipe.json" for name in MADE}
    # no folder of the ranks and no half-done factors; what the fit began with stays, for one that is lost
    assert sorted(after - {"factors.progress"}) == before
    assert [path.name for path in (folder / "factors.progress").iterdir()] == ["began_with.json"]

    both, alone = (pd.read_parquet(of / "influence.parquet") for of in (tmp_path, folder))
    assert both[["task", "domain"]].equals(alone[["task", "domain"]])
    difference = np.abs(both["influence"] - alone["influence"]).max() / np.abs(alone["influence"]).max()
    assert difference < 1e-5
    reports = [read_json(of / "measurement.json") for of in (tmp_path, folder)]
    tokens = {
        part: [report["cost"]["parts"][part]["tokens"] for report in reports] for part in ("factors", "gradients")
    }
    assert len(set(tokens["gradients"])) == 1
    assert tokens["factors"][0] > tokens["factors"][1] == 0  # one process fits on what passes for the gradients
    assert reports[0]["coverage"].keys() == {"kronecker", "embedding", "head", "diagonal"}
    assert reports[0]["coverage"] == pytest.approx(reports[1]["coverage"])
    assert reports[0]["curvature"]["left_out"] == reports[1]["curvature"]["left_out"] == 0
    assert reports[0]["cost"]["flops"] > 0
