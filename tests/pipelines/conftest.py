"""A small project on disk, with text of its own, to run real sessions in."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework import project as project_of_kedro
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project

from tikmix_pipeline.lm import branch_pool
from tikmix_pipeline.run import set_current_run
from tikmix_pipeline.session.kedro_session import TikmixSession, UserError

REPOSITORY = Path(__file__).resolve().parents[2]

Run = Callable[..., dict[str, Any]]


def write_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def make_texts(folder: Path) -> None:
    """Three domains with words of their own, and two tasks that each share the words of one domain."""
    folder.mkdir()
    generator = random.Random(0)  # noqa: S311
    letters = {"code": "abcdef", "prose": "ghijkl", "verse": "mnopqr"}
    words = {name: ["".join(generator.choices(part, k=5)) for _ in range(200)] for name, part in letters.items()}
    for name in letters:
        texts = [{"text": " ".join(generator.choices(words[name], k=120))} for _ in range(120)]
        write_lines(folder / f"{name}.jsonl", texts)
    for task, name in {"quiz": "code", "riddle": "prose"}.items():
        items = [
            {
                "question": " ".join(generator.choices(words[name], k=8)),
                "answer": " ".join(generator.choices(words[name], k=3)),
            }
            for _ in range(40)
        ]
        write_lines(folder / f"{task}.jsonl", items)


PARAMETERS: dict[str, Any] = {
    "experiment": "one",
    "model": {"preset": "llama-tiny"},
    "train": {
        "chunk_tokens": 768,
        "batch_size": 4,
        "context": 32,
        "warmup_tokens": 256,
        "decay_tokens": 256,
        "evaluation_items": 8,
        "evaluation_windows": 4,
        "save_every_steps": 2,
    },
    "influence": {
        "tokens": 256,
        "items_per_task": 8,
        "factor_tokens": 256,
        "micro_batches": 4,
        "rebalance_steps": 2,
    },
    "optimize": {"method": "paper"},  # the quicker one; the default is run by test_response.py and test_smoke.py
    "tikmix": {"rounds": 2},
    "corpus": {
        "name": "tiny",
        "domains": {
            name: {"sources": [{"kind": "files", "path": f"texts/{name}.jsonl"}]} for name in ("code", "prose", "verse")
        },
        "tasks": {name: {"sources": [{"kind": "files", "path": f"texts/{name}.jsonl"}]} for name in ("quiz", "riddle")},
        "tokenizer": {"vocabulary_size": 300, "training_megabytes": 1.0},
        "heldout_fraction": 0.1,
        "max_megabytes": None,
    },
}


def make_project(folder: Path) -> Path:
    """Lay out a project: the repository's base configuration, and an environment `tiny` with its own text."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("pyproject.toml", ".telemetry"):
        shutil.copy2(REPOSITORY / file, folder)
    (folder / "src").mkdir()  # Kedro asks for it; the package itself is installed
    shutil.copytree(REPOSITORY / "conf" / "base", folder / "conf" / "base")
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "tiny").mkdir()
    (folder / "conf" / "tiny" / "parameters.yml").write_text(yaml.safe_dump(PARAMETERS))
    make_texts(folder / "texts")
    return folder


def run_in(project: Path, *names: str, **runtime_params: Any) -> dict[str, Any]:
    """Run pipelines in one session, as `kedro run --env tiny --pipelines ... --params ...` does."""
    if project_of_kedro.PACKAGE_NAME is None:  # reading the project's settings anew takes as long as a small stage
        bootstrap_project(project)
    with TikmixSession.create(project_path=project, env="tiny", runtime_params=runtime_params) as session:
        return session.run(pipeline_names=list(names) or ["__default__"])


@contextlib.contextmanager
def interrupted_at(count: int, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt the run inside once so many branches have begun; `trained` is where they are noted."""
    train = branch_pool.train_branch

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        if len(trained) == count:
            raise KeyboardInterrupt
        return train(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(branch_pool, "train_branch", interrupted)
        with pytest.raises(UserError, match="Interrupted"):
            yield


@pytest.fixture(autouse=True)
def _forget_the_run() -> Iterator[None]:
    yield
    set_current_run(None)
    pipelines.configure("tikmix_pipeline.pipeline_registry")


@pytest.fixture(scope="session")
def untouched_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose default run has ended, to be copied and nothing else."""
    folder = make_project(tmp_path_factory.mktemp("untouched") / "project")
    run_in(folder)
    return folder


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, untouched_project: Path) -> Path:
    """A project whose default run has ended; tests may read it, and write experiments of their own."""
    return Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("finished") / "project"))


@pytest.fixture
def project(tmp_path: Path, untouched_project: Path) -> Path:
    """A copy of the finished project, to do anything with."""
    return Path(shutil.copytree(untouched_project, tmp_path / "project"))


@pytest.fixture(scope="module")
def remixed(tmp_path_factory: pytest.TempPathFactory, finished_project: Path) -> Path:
    """A project with two checkpoints of a run elsewhere, of which the first was remixed; not to be changed."""
    from tests.pipelines.remix_project import make_remixed

    return make_remixed(tmp_path_factory.mktemp("remix") / "project", finished_project)


@pytest.fixture
def elsewhere(tmp_path: Path, remixed: Path) -> Path:
    """A copy to do anything with; its checkpoint keeps its times, by which it is recognised."""
    return Path(shutil.copytree(remixed, tmp_path / "project", symlinks=True))
