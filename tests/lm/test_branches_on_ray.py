"""Branches on a Ray cluster that the pool starts and ends itself: `pip install -e ".[dev,ray]"`."""

from typing import Any

import pytest
import torch
from lm_examples import FIRST, SECOND

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm.branch_pool import Branch, run_branches
from tikmix_pipeline.parameters import EngineParameters

ray: Any = pytest.importorskip("ray", reason="needs the extra [ray]")

BRANCHES = [Branch("a", FIRST), Branch("b", SECOND), Branch("a", FIRST, 1)]


def test_results_and_their_files_are_those_of_this_process(setting, token_shards, tmp_path):
    windows = token_shards.windows("code", 16, "heldout").take(torch.arange(3).numpy())
    texts = {"code": [TokenBatch.of_windows(windows)]}
    here = run_branches(setting, BRANCHES, texts, folder=tmp_path / "here", key="code", workers=1)
    there = run_branches(
        setting, BRANCHES, texts, folder=tmp_path / "there", key="code", engine=EngineParameters(kind="ray")
    )
    assert there == here
    files = {folder: {f.name: f.read_bytes() for f in (tmp_path / folder).iterdir()} for folder in ("here", "there")}
    assert files["here"] == files["there"]
    assert len(files["here"]) == 3
    assert not ray.is_initialized()
