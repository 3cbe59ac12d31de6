"""What a run is told, and what it shows in MLflow, is text: nothing of it is executed or taken for markup."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kedro.config import MissingConfigException

from tikmix_pipeline.errors import TikmixError
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


@pytest.mark.parametrize("text", ["```\n![x](http://x/y.png)\n```", "````", "a ``` b", "plain", "`" * 6000])
def test_description_of_a_run_stays_within_its_fence(text: str) -> None:
    tags: dict[str, str] = {}

    def set_tag(_run: str, name: str, value: str) -> None:
        tags[name] = value

    tracker: Any = Tracker.__new__(Tracker)
    client = SimpleNamespace(set_tag=set_tag, log_text=lambda *_: None)
    tracker._client, tracker._run_id = StoreClient(client), "run"
    tracker.describe(text)
    shown = tags["mlflow.note.content"]
    fence, *lines, end = shown.split("\n")
    assert fence == end == "```"
    assert not any(re.match(r"\s*(```|~~~)", line) for line in lines)
    assert len(shown) <= 5000


def test_page_of_mlflow_is_served_to_this_machine_alone() -> None:
    from tools.ui import HOST

    assert HOST == "127.0.0.1"
