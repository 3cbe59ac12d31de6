"""Nothing is trained or measured that no decision could follow: what sizes and text show is refused beforehand."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import Node, Pipeline

from tests.pipelines.conftest import make_project, run_in
from tikmix_pipeline.pipelines.compare.pipeline import comparison_of
from tikmix_pipeline.pipelines.remix.pipeline import remix_of
from tikmix_pipeline.pipelines.tikmix.pipeline import loop_of
from tikmix_pipeline.run import current_run
from tikmix_pipeline.session.kedro_session import UserError

TOO_LONG = {"chunk_tokens": 10_000_000}
CHECKPOINT = "data/06_models/one/round_1"
SPENDING = {
    *("train_chunk", "rebalance", "fit_factors", "collect_gradients", "collect_gradients_until_stable"),
    *("compute_influence", "measure_own_tokens", "train_candidates", "decide_baseline", "train_branches", "run_arms"),
}
"""Nodes that pass text through a model."""


def refusal(project: Path, *pipelines: str, **runtime_params: Any) -> str:
    with pytest.raises(UserError) as error:
        run_in(project, *pipelines, **runtime_params)
    return str(error.value)


def folders(project: Path, experiment: str) -> list[str]:
    """Return what an experiment has made, its lock left out."""
    made = [*project.glob(f"data/06_models/{experiment}*/*"), *project.glob(f"data/07_model_output/{experiment}*/*")]
    return sorted(path.relative_to(project / "data").as_posix() for path in made)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, finished_project: Path) -> Path:
    """A project with text, a checkpoint and nothing else."""
    project = make_project(tmp_path_factory.mktemp("bare") / "project")
    shutil.copytree(finished_project / CHECKPOINT, project / "checkpoint")
    return project


@pytest.fixture
def fresh(tmp_path: Path, bare: Path) -> Path:
    return Path(shutil.copytree(bare, tmp_path / "project"))


def test_a_run_longer_than_its_text_allows_ends_once_the_corpus_is_there_and_before_a_model_is(fresh: Path) -> None:
    message = refusal(fresh, train=TOO_LONG)
    assert (fresh / "data/03_primary/tiny/manifest.json").is_file()
    assert folders(fresh, "one") == []
    assert "The chunks of rounds 1 to 2 (tikmix.rounds and the one that the last round decides)" in message
    assert re.search(r"There are \d+ tokens of text \('\w+' \d+, '\w+' \d+, '\w+' \d+\)", message)
    assert re.search(r"lower train.chunk_tokens to \d+, or raise optimize.max_epochs to [\d.]+, or", message)


def test_the_chunk_that_the_message_advises_is_long_enough_for_the_whole_run(fresh: Path) -> None:
    epochs = {"max_epochs": 0.02}
    (advised,) = re.findall(r"lower train.chunk_tokens to (\d+)", refusal(fresh, train=TOO_LONG, optimize=epochs))
    train = {"chunk_tokens": int(advised), "evaluation_items": 8, "evaluation_windows": 4}
    assert "lower train.chunk_tokens" in refusal(
        fresh, train=train | {"chunk_tokens": int(advised) + 1}, optimize=epochs
    )
    run_in(fresh, train=train, optimize=epochs)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": TOO_LONG},
        {"tikmix": {"rounds": 6}, "optimize": {"max_epochs": 0.02}},
        {"optimize": {"max_epochs": 0.01}},
        {"optimize": {"max_epochs": 0.02, "bounds": {"code": {"min": 0.9}}}},
        {"optimize": {"max_epochs": 0.02, "groups": {"text": {"domains": ["prose", "verse"], "max": 0.1}}}},
        {"optimize": {"max_epochs": 0.02, "pinned": {"verse": 0.9}}},
        {"optimize": {"max_epochs": 0.01}, "tikmix": {"strategy": "regmix"}},
        {"optimize": {"max_epochs": 0.01}, "tikmix": {"strategy": "surrogate"}},
    ],
)
def test_a_loop_that_could_not_end_is_refused_before_its_first_step(project: Path, changes: dict[str, Any]) -> None:
    message = refusal(project, experiment="new", **changes)
    assert "optimize.max_epochs" in message
    assert folders(project, "new") == []


@pytest.mark.parametrize("stage", ["train_chunk", "influence", "optimize", "sweep", "reweight", "validate"])
def test_a_single_stage_of_a_run_that_could_not_end_is_refused_and_makes_nothing(project: Path, stage: str) -> None:
    before = folders(project, "one/round_0"), folders(project, "one/round_1")
    kinds = {"sweep": {"response": "lookahead", "branch_tokens": 256, "candidates": 12}} if stage == "sweep" else {}
    assert "optimize.max_epochs" in refusal(project, stage, round=0, optimize={"max_epochs": 0.001}, **kinds)
    assert (folders(project, "one/round_0"), folders(project, "one/round_1")) == before


def test_a_round_whose_chunk_left_too_little_for_the_rest_is_refused_before_it_is_measured(fresh: Path) -> None:
    """Half of `code` is asked for in every chunk to come, and the first of them takes nearly all of it."""
    run_in(fresh, "corpus")
    tokens = sum(int(file.stat().st_size / 2) for file in (fresh / "data/03_primary/tiny/code").glob("train*.bin"))
    told: dict[str, Any] = {
        "tikmix": {"prior": {"code": 0.1, "prose": 0.45, "verse": 0.45}},
        "optimize": {
            "max_epochs": (0.1 + 0.5 * 2 + 0.02) * 768 / tokens,
            "bounds": {"code": {"min": 0.5}},
            "task_weights": {"quiz": 1.0, "riddle": 0.0},
            "entropy": 0.0,
            "pareto": False,
        },
    }
    message = refusal(fresh, **told)
    assert "optimize.bounds.code.min = 0.5; optimize.max_epochs" in message
    assert message.startswith("The chunk of round 2")
    made = folders(fresh, "one/round_1")
    assert "06_models/one/round_1/model.safetensors" in made
    assert not [name for name in made if "gradients" in name or "factors" in name or "balanced" in name]
    # and once more from where it stands: nothing is trained or measured then either
    assert refusal(fresh, **told) == message
    assert folders(fresh, "one/round_1") == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tikmix": {"strategy": "ngram"}, "baselines": {"ngram": {"order": 40}}}, "baselines.ngram.order is 40"),
        (
            {"tikmix": {"strategy": "unimax"}, "baselines": {"unimax": {"epochs": 0.001}}},
            "baselines.unimax.epochs = 0.001",
        ),
        (
            {"influence": {"micro_batches": 64, "items_per_task": None, "tokens": 4096}},
            "The target 'quiz' has 20 sequences to measure influence on, fewer than influence.micro_batches (64)",
        ),
        ({"tikmix": {"strategy": "surrogate"}, "optimize": {"pinned": {"code": 0.3, "verse": 0.3}}}, "1 of 3 domains"),
    ],
)
def test_what_a_strategy_cannot_decide_with_the_corpus_is_refused_before_the_first_step(
    project: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in refusal(project, experiment="new", **changes)
    assert folders(project, "new") == []


def external(**remix: Any) -> dict[str, Any]:
    return {
        "experiment": "elsewhere",
        "corpus": {"name": "sampled"},
        "model": {"checkpoint": "checkpoint"},
        "remix": remix,
    }


@pytest.mark.parametrize("again", [False, True], ids=["corpus made by the run", "corpus there already"])
def test_remix_of_a_chunk_longer_than_all_text_is_refused_before_anything_is_measured(fresh: Path, again: bool) -> None:
    if again:
        run_in(fresh, "remix", **external(chunk_tokens=768))
        shutil.rmtree(fresh / "data/07_model_output/elsewhere")
        shutil.rmtree(fresh / "data/06_models/elsewhere")
    message = refusal(fresh, "remix", **external(chunk_tokens=10**9, consumed=3000))
    assert "The coming chunk (remix.chunk_tokens): 1000000000 tokens are to be read" in message
    assert "3000 were read already" in message
    assert "say how much text there really is (remix.sizes), or correct what was read (remix.consumed)." in message
    assert folders(fresh, "elsewhere") == []


def test_remix_whose_sizes_show_it_is_refused_before_any_text_is_read(fresh: Path) -> None:
    sizes = {name: {"tokens": 1e6} for name in ("code", "prose", "verse")}
    message = refusal(fresh, "remix", **external(chunk_tokens=10**9, sizes=sizes))
    assert "There are 3000000 tokens of text" in message
    assert "lower remix.chunk_tokens to 12000000, or raise optimize.max_epochs to 334, or" in message
    assert not (fresh / "data/02_intermediate").exists()


def test_remix_with_bounds_that_the_text_cannot_fill_is_refused_before_anything_is_measured(fresh: Path) -> None:
    told = external(
        chunk_tokens=10**6, sizes={"code": {"tokens": 1e4}, "prose": {"tokens": 1e9}, "verse": {"tokens": 1e9}}
    )
    message = refusal(fresh, "remix", **told, optimize={"bounds": {"code": {"min": 0.2}}})
    assert "optimize.bounds.code.min = 0.2; optimize.max_epochs = 4" in message
    assert folders(fresh, "elsewhere") == []


def test_a_plan_longer_than_the_text_allows_is_refused_though_the_rounds_at_hand_are_not(project: Path) -> None:
    planned: dict[str, Any] = {"tikmix": {"planned_rounds": 60}, "optimize": {"max_epochs": 0.1}}
    message = refusal(project, experiment="new", **planned)
    assert message.startswith("The chunks of rounds 1 to 59 (tikmix.planned_rounds): ")
    assert "or lower tikmix.planned_rounds, or give more text." in message
    assert folders(project, "new") == []
    run_in(project, "corpus", optimize={"max_epochs": 0.1})


def test_remix_of_a_run_that_its_text_does_not_reach_to_the_end_of_is_refused(fresh: Path) -> None:
    sizes = {name: {"tokens": 1e6} for name in ("code", "prose", "verse")}
    message = refusal(fresh, "remix", **external(chunk_tokens=10**6, remaining_tokens=10**8, sizes=sizes))
    assert message.startswith("The rest of the run (remix.remaining_tokens): 100000000 tokens are to be read")
    assert "lower remix.remaining_tokens to 12000000, or raise optimize.max_epochs to 33.4, or" in message
    told = external(chunk_tokens=10**6, remaining_tokens=8 * 10**6, sizes=sizes | {"code": {"tokens": 1e5}})
    message = refusal(fresh, "remix", **told, optimize={"bounds": {"code": {"min": 0.2}}})
    assert "optimize.bounds.code.min = 0.2; optimize.max_epochs = 4" in message
    assert "leaves of the next 8000000 tokens at most 0.05 to 'code'" in message
    assert not (fresh / "data/02_intermediate").exists()


def test_a_comparison_names_the_arm_that_could_not_end_before_any_arm_begins(project: Path) -> None:
    arms = {"definitions": {"greedy": {"optimize.max_epochs": 0.01}}, "arms": ["proportional", "greedy"], "seeds": 1}
    message = refusal(project, "compare", experiment="arms", compare=arms)
    assert message.startswith("compare.definitions.greedy: The chunks of rounds 1 to 2")
    assert folders(project, "arms") == []


def test_a_comparison_that_no_arm_could_end_does_not_blame_an_arm(project: Path) -> None:
    message = refusal(project, "compare", experiment="arms", train=TOO_LONG, compare={"seeds": 1})
    assert message.startswith("The chunks of rounds 1 to 2")


def _spending(pipeline: Pipeline) -> Iterator[Node]:
    return (node for node in pipeline.nodes if node.name.rpartition(".")[2] in SPENDING)


def test_whatever_trains_or_measures_comes_after_what_is_checked(fresh: Path) -> None:
    """Of all nodes before the ones that spend, in any order that the data allow, the corpus is made by one."""
    run_in(fresh, "corpus", tikmix={"strategy": "surrogate"}, **{k: v for k, v in external().items() if k == "model"})
    run = current_run()
    for pipeline in (loop_of(run), remix_of(run), comparison_of(run)):
        found = list(_spending(pipeline))
        assert found
        for node in found:
            before = pipeline.to_nodes(node.name)
            assert "corpus" in before.all_outputs(), node.name
            number = re.match(r"round_(\d+)\.", node.name)
            if number and "train_chunk" not in node.name:
                assert f"round_{number[1]}_checkpoint" in before.all_outputs(), node.name
