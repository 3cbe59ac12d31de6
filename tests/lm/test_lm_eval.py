"""Accuracies by lm-eval. What needs lm-eval itself is skipped where the extra `[eval]` is not installed."""

import json
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from lm_examples import MODEL

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import Item, item_batches, tokenise_items
from tikmix_pipeline.corpus.tokenizer import load_tokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.evaluation import text_losses
from tikmix_pipeline.lm.lm_eval import (
    check_lm_eval,
    lm_eval_scores,
    load_scorer,
    write_lm_eval_tasks,
)
from tikmix_pipeline.parameters.comparison import HarnessParameters
from tikmix_pipeline.statistics import wilson_interval

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="the extra [eval] is not installed")

CONTEXT = 16


def choice_items(count: int, *, options: int = 3, seed: int = 0) -> list[Item]:
    """Questions of 1 to 8 words with options of 1 to 4: some longer than the model's context."""
    generator = np.random.default_rng(seed)
    words = ["kati", "xezo", "lome", "nuria", "shawi", "yofel"]

    def text(most: int) -> str:
        return " ".join(generator.choice(words, size=generator.integers(1, most + 1)).tolist())

    items = []
    for _ in range(count):
        texts = tuple(text(4) for _ in range(options))
        gold = int(generator.integers(options))
        items.append(Item(f"{text(8)}?", texts[gold], options=texts, gold=gold))
    return items


def option_losses(start: Checkpoint, shards: TokenShards, items: Sequence[Item]) -> list[list[float]]:
    """Return the nats of every option of every item as bits per byte has them, one option after the other."""
    tokenizer = load_tokenizer(shards.tokenizer_folder)
    model = start.model(MODEL)
    batches = {}
    for row, choice in enumerate(items):
        texts = [Item(choice.question, option, choice.passage) for option in choice.options]
        for column, tokenised in enumerate(tokenise_items(texts, tokenizer)):
            batches[row, column] = item_batches([tokenised], context=CONTEXT, batch_size=1, loss="answer", pad_id=0)
    losses = text_losses(model, batches, device="cpu")
    return [[losses[row, column].nats for column in range(len(items[row].options))] for row in range(len(items))]


def accuracies(items: Sequence[Item], losses: Sequence[Sequence[float]]) -> dict[str, float]:
    rightly = [np.argmin(nats) == item.gold for item, nats in zip(items, losses, strict=True)]
    per_character = [
        np.argmin(np.array(nats) / [len(option) for option in item.options]) == item.gold
        for item, nats in zip(items, losses, strict=True)
    ]
    return {"acc": float(np.mean(rightly)), "acc_norm": float(np.mean(per_character))}


def write_task(folder: Path, **changes: Any) -> None:
    """Write a task of two items of a user's own."""
    folder.mkdir(exist_ok=True)
    name = changes.get("task", "own")
    rows = [{"prompt": "kati", "options": ["lome", "xezo"], "gold": row} for row in range(2)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values | changes))


@pytest.fixture(autouse=True)
def _data_sets_beside_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what `datasets` makes of the tasks' files out of the user's own folder."""
    if find_spec("lm_eval") is not None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def only_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out lm-eval's own tasks, which are thousands: to index them takes 20 s."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **given: TaskManager(**given | {"include_defaults": False}))


def test_tasks_are_written_as_lm_eval_reads_them(tmp_path: Path):
    options = ("weg", "zu Hause – dort")
    choice = Item('Wo ist "{{er}}"?', "zu Hause – dort", "Es regnet.", options, 1)
    assert write_lm_eval_tasks({"quiz": [choice]}, tmp_path / "tasks") == ["tikmix_quiz"]
    config = yaml.safe_load((tmp_path / "tasks" / "quiz.yaml").read_text(encoding="utf-8"))
    assert (config["task"], config["tag"]) == ("tikmix_quiz", "tikmix")
    assert [metric["metric"] for metric in config["metric_list"]] == ["acc", "acc_norm"]
    (line,) = Path(config["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").splitlines()
    row = json.loads(line)
    assert row[config["doc_to_text"]] == choice.prompt
    assert row[config["doc_to_choice"]][row[config["doc_to_target"]]] == choice.answer
    assert config["target_delimiter"] + choice.answer == choice.completion


def test_tasks_of_an_earlier_corpus_do_not_stay(tmp_path: Path):
    write_lm_eval_tasks({"old": choice_items(2)}, tmp_path / "tasks")
    write_lm_eval_tasks({"new": choice_items(2)}, tmp_path / "tasks")
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["new.jsonl", "new.yaml"]


def test_a_missing_library_is_told_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("lm_eval", "lm_eval.tasks", "lm_eval.models.huggingface"):
        monkeypatch.setitem(sys.modules, module, None)
    command = r'pip install -e "\.\[eval\]"'
    with pytest.raises(TikmixError, match=command):
        check_lm_eval(HarnessParameters(tasks=["tikmix"]), ["quiz"], tmp_path)
    with pytest.raises(TikmixError, match=command):
        lm_eval_scores(tmp_path / "no checkpoint", HarnessParameters(tasks=["piqa"]), model=MODEL)


def test_without_tasks_nothing_is_to_be_scored():
    assert not HarnessParameters().enabled
    assert HarnessParameters(tasks=["tikmix"]).enabled


def test_tasks_may_be_given_in_one_word():
    assert HarnessParameters.model_validate({"tasks": "tikmix+piqa"}).tasks == ["tikmix", "piqa"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": ["tikmix", "tikmix_quis"]}, r"tasks: 'tikmix_quis' is none of .* Did you mean 'tikmix_quiz'\?"),
        ({"tasks": ["tikmix"], "include_path": "nowhere"}, r"include_path: there is no folder .*nowhere"),
        ({"tasks": ["tikmix"], "include_path": "a file"}, r"include_path: there is no folder .*a file"),
    ],
)
def test_what_the_project_shows_to_be_wrong_is_told_without_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], message: str
):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    (tmp_path / "a file").touch()
    with pytest.raises(TikmixError, match=rf"compare\.harness\.{message}"):
        check_lm_eval(HarnessParameters.model_validate(values), ["quiz", "riddle"], tmp_path)


@needs_lm_eval
@pytest.mark.parametrize(
    ("name", "message"),
    [("owm", "has no task 'owm'.*Did you mean 'own'"), ("tikmx_quiz", "has no task.*Did you mean 'tikmix_quiz'")],
)
def test_an_unknown_task_is_told_before_there_is_a_checkpoint(
    tmp_path: Path, only_own_tasks: None, name: str, message: str
):
    write_task(tmp_path / "own")
    parameters = HarnessParameters(tasks=["tikmix_quiz", "own", name], include_path="own")
    with pytest.raises(TikmixError, match=rf"compare\.harness\.tasks: .*{message}"):
        check_lm_eval(parameters, ["quiz"], tmp_path)


@needs_lm_eval
def test_tasks_that_are_there_are_let_through(tmp_path: Path):
    write_task(tmp_path / "own")
    parameters = HarnessParameters(tasks=["tikmix", "tikmix_quiz", "own"], include_path="own")
    check_lm_eval(parameters, ["quiz"], tmp_path)


@needs_lm_eval
def test_options_are_scored_as_bits_per_byte_scores_answers(start: Checkpoint, token_shards: TokenShards):
    """Cut questions, and an option longer than the context, included."""
    long = Item("kati?", "xezo " * 20, options=("xezo " * 20, "lome"), gold=0)
    items = [*choice_items(12), long]
    requests = [SimpleNamespace(args=(choice.prompt, f" {option}")) for choice in items for option in choice.options]
    scorer = load_scorer(start.folder, HarnessParameters(batch_size=5), MODEL, "cpu")
    logprobs = [logprob for logprob, _ in scorer.loglikelihood(requests)]
    nats = [value for values in option_losses(start, token_shards, items) for value in values]
    assert np.allclose(logprobs, np.negative(nats), rtol=1e-5, atol=0)


@needs_lm_eval
def test_scores_are_the_accuracies_of_the_options(
    start: Checkpoint, token_shards: TokenShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And no connection is made for them."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"a connection to {arguments[1]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    tasks = {"recall": choice_items(20), "rhyme": choice_items(15, options=2, seed=1)}
    write_lm_eval_tasks(tasks, tmp_path / "tasks")
    scores = lm_eval_scores(
        start.folder, HarnessParameters(tasks=["tikmix"]), include_paths=[tmp_path / "tasks"], model=MODEL, device="cpu"
    )
    expected = {
        (f"tikmix_{task}", metric): value
        for task, items in tasks.items()
        for metric, value in accuracies(items, option_losses(start, token_shards, items)).items()
    }
    assert {(score.task, score.metric): score.value for score in scores} == pytest.approx(expected)
    assert {score.task: score.n for score in scores} == {"tikmix_recall": 20, "tikmix_rhyme": 15}
    assert all((score.low, score.high) == wilson_interval(score.value, score.n) for score in scores)


@needs_lm_eval
def test_a_limit_takes_the_first_items(start: Checkpoint, token_shards: TokenShards, tmp_path: Path):
    items = choice_items(20)
    write_lm_eval_tasks({"recall": items}, tmp_path / "tasks")
    parameters = HarnessParameters(tasks=["tikmix_recall"], limit=6)
    scores = lm_eval_scores(start.folder, parameters, include_paths=[tmp_path / "tasks"], model=MODEL, device="cpu")
    expected = accuracies(items[:6], option_losses(start, token_shards, items[:6]))
    assert {score.metric: score.value for score in scores} == pytest.approx(expected)
    assert {score.n for score in scores} == {6}


@needs_lm_eval
def test_a_group_has_one_score_over_the_items_of_its_tasks(start: Checkpoint, tmp_path: Path):
    write_lm_eval_tasks({"recall": choice_items(20), "rhyme": choice_items(12, seed=1)}, tmp_path / "tasks")
    group = {"group": "both", "task": ["tikmix_recall", "tikmix_rhyme"]}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump(group))
    parameters = HarnessParameters(tasks=["both", "tikmix_rhyme"])
    scores = lm_eval_scores(start.folder, parameters, include_paths=[tmp_path / "tasks"], model=MODEL, device="cpu")
    assert [(score.task, score.n) for score in scores if score.metric == "acc"] == [("both", 32), ("tikmix_rhyme", 12)]
    (recall, _) = lm_eval_scores(
        start.folder,
        HarnessParameters(tasks=["tikmix_recall"]),
        include_paths=[tmp_path / "tasks"],
        model=MODEL,
        device="cpu",
    )
    both, rhyme = (score for score in scores if score.metric == "acc")
    assert both.value * 32 == pytest.approx(recall.value * 20 + rhyme.value * 12)


@needs_lm_eval
def test_a_users_task_has_the_accuracies_that_it_names(start: Checkpoint, tmp_path: Path):
    write_task(tmp_path / "own")
    (score,) = lm_eval_scores(
        start.folder, HarnessParameters(tasks=["own"]), include_paths=[tmp_path / "own"], model=MODEL, device="cpu"
    )
    # the same question twice, once with either option as the gold one
    assert (score.metric, score.value, score.n) == ("acc", 0.5, 2)


@needs_lm_eval
@pytest.mark.parametrize("document_start", [True, False])
def test_the_token_before_a_document_can_be_left_out(start: Checkpoint, document_start: bool):
    scorer = load_scorer(start.folder, HarnessParameters(document_start=document_start), MODEL, "cpu")
    question_ids, _ = scorer._encode_pair("kati", " xezo")
    assert (question_ids[0] == scorer.tokenizer.eos_token_id) is document_start


@needs_lm_eval
@pytest.mark.parametrize(
    ("tasks", "changes", "message"),
    [
        (["owm"], {}, "lm-eval has no task 'owm'.*Did you mean 'own'"),
        (["own"], {"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}, "the data of 'own' cannot be read"),
        (
            ["own"],
            {"metric_list": [{"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}]},
            "'own' is scored by mcc, not by accuracy",
        ),
    ],
    ids=["unknown", "no data", "no accuracy"],
)
def test_what_cannot_be_scored_is_refused_before_the_model_is_read(
    tmp_path: Path, only_own_tasks: None, tasks: list[str], changes: dict[str, Any], message: str
):
    write_task(tmp_path / "own", **changes)
    with pytest.raises(TikmixError, match=rf"compare\.harness\.tasks: .*{message}"):
        lm_eval_scores(
            tmp_path / "no checkpoint", HarnessParameters(tasks=tasks), include_paths=[tmp_path / "own"], model=MODEL
        )


@needs_lm_eval
def test_a_missing_folder_of_tasks_is_named(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"compare\.harness\.include_path: there is no folder .*none"):
        lm_eval_scores(tmp_path, HarnessParameters(tasks=["own"]), include_paths=[tmp_path / "none"], model=MODEL)


@needs_lm_eval
def test_a_checkpoint_without_tokenizer_is_refused(start: Checkpoint, tmp_path: Path):
    write_task(tmp_path / "own")
    for file in start.folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TikmixError, match=r"The tokenizer in .* cannot be read"):
        lm_eval_scores(
            start.folder, HarnessParameters(tasks=["own"]), include_paths=[tmp_path / "own"], model=MODEL, device="cpu"
        )
