"""What a run is told, and what it shows in MLflow, is text: nothing of it is executed or taken for markup."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kedro.config import MissingConfigException

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.laid_out import Table, laid_out
from tikmix_pipeline.session.config import TikmixConfigLoader
from tikmix_pipeline.session.tracking.store import StoreClient
from tikmix_pipeline.session.tracking.tracker import Tracker


@pytest.mark.parametrize(
    "text", ["experiment: !!python/object/apply:os.mkdir [{}]", "experiment: !!python/name:os.mkdir", "a: !other x"]
)
def test_tag_in_a_parameter_file_makes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "parameters.yml").write_text(text.format(tmp_path / "made"))
    loader = TikmixConfigLoader(str(tmp_path), base_env="base", default_run_env="base")
    with pytest.raises((TikmixError, yaml.YAMLError, MissingConfigException)):
        loader["parameters"]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["a | b", "[x](http://x/y)", "![x](http://x/y.png)", "<img src=x>", "`" * 6000])
def test_description_of_a_run_shows_a_foreign_name_as_text(name: str) -> None:
    """What else a name could be is in tests/report/test_laid_out.py."""
    tags: dict[str, str] = {}
    files: dict[str, str] = {}
    client = SimpleNamespace(
        set_tag=lambda _run, key, value: tags.update({key: value}),
        log_text=lambda _run, text, file: files.update({file: text}),
    )
    tracker: Any = Tracker.__new__(Tracker)
    tracker._client, tracker._run_id = StoreClient(client, "sqlite://"), "run"
    tracker.describe(laid_out([Table(["Mixture", "next"], [[name, "50.0%"]]), f"{name}: at most 0.5"]))
    description = tags["mlflow.note.content"]
    assert not re.search(r"[`<\[!]|://", description)
    assert all(line.count("|") == 3 for line in description.split("\n") if line.startswith("|"))
    assert len(description) <= 5000
    assert name in files["summary.txt"]


def test_page_of_mlflow_is_served_to_this_machine_alone() -> None:
    from tools.ui import HOST

    assert HOST == "127.0.0.1"
