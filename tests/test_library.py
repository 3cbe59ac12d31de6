"""The library: two functions of plain texts, that agree with what a run computes."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import tikmix_pipeline
from tikmix_pipeline import group_influence, solve_mixture
from tikmix_pipeline.errors import TikmixError

WORDS = {"code": "def return class import", "verse": "moon night river silver"}


class Tokenizer:
    """One id per character, as Transformers' tokenizers are called."""

    eos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [1 + ord(letter) % 63 for letter in text]


@pytest.fixture(scope="module")
def model():
    import torch

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=False, **size)).eval()


@pytest.fixture(scope="module")
def measured(model):
    domains = {name: [f"{words} " * 20] * 6 for name, words in WORDS.items()}
    tasks = {
        "poem": ["silver river of the night"] * 8,
        "program": [("import this", " and return class")] * 8,
    }
    return group_influence(model, Tokenizer(), domains=domains, tasks=tasks, context=32)


def test_text_like_a_task_lowers_its_loss_more_than_other_text(measured):
    found = measured.to_dict()
    assert found["poem"]["verse"] > found["poem"]["code"]
    assert found["program"]["code"] > found["program"]["verse"]


TASKS = ("poem", "program")


def test_the_mixture_moves_to_the_text_of_the_task_that_counts(measured):
    prior = {"code": 0.5, "verse": 0.5}
    weights = {}
    for task in TASKS:
        only = dict.fromkeys(TASKS, 0.0) | {task: 1.0}
        weights[task] = solve_mixture(measured, prior, task_weights=only, pareto=False).weights
    assert weights["poem"]["verse"] > 0.5 > weights["program"]["verse"]
    assert sum(weights["poem"].values()) == pytest.approx(1)


def test_influence_alone_is_solved_as_the_paper_does(measured):
    prior = {"code": 0.5, "verse": 0.5}
    alone = solve_mixture(measured.to_dict(), prior, pareto=False)
    both = solve_mixture(measured, prior, method="paper", pareto=False)
    assert alone == both
    rows = np.array([[*row.values()] for row in measured.to_dict().values()])
    normalised_K = (rows / np.abs(rows).max(axis=1, keepdims=True)).sum(axis=0)
    more = max(alone.weights, key=alone.weights.__getitem__)
    assert more == measured.domains[int(normalised_K.argmax())]


def test_the_model_is_left_as_it_was(model, measured):
    before = {name: values.clone() for name, values in model.state_dict().items()}
    domains = {name: [f"{words} " * 20] * 6 for name, words in WORDS.items()}
    group_influence(model, Tokenizer(), domains=domains, tasks={"poem": ["night"] * 4}, context=32)
    assert all(bool((before[name] == values).all()) for name, values in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def influence_of(model, *, domains=None, task=None):
    texts = {name: [f"{words} " * 20] * 6 for name, words in WORDS.items()}
    tasks = {"poem": ["night"] * 4 if task is None else task}
    return group_influence(model, Tokenizer(), domains=texts | (domains or {}), tasks=tasks, context=32)


def test_records_are_items_as_a_corpus_reads_and_prompts_them(model):
    asked = "It rained.\nQuestion: What is silver?\nAnswer:"
    pairs = [(asked, " moon"), (asked, " moon"), "silver river of the night", ["silver ", "river"]]
    expected = influence_of(model, task=pairs).to_dict()
    asked_freely = {"question": "What is silver?", "context": "It rained.", "answer": "moon"}
    choice = asked_freely | {"choices": ["night", "moon"], "answer": "B"}
    for record in (asked_freely, choice):
        records = [record, record, {"text": "silver river of the night"}, pairs[3]]
        assert influence_of(model, task=records).to_dict() == expected
    with pytest.raises(TikmixError, match=r"tasks\['poem'\]\[0\]: the record has no options"):
        influence_of(model, task=[asked_freely, choice])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, r"tasks\['poem'\]\[3\] is NoneType. Expected a text, a pair \(question, answer\), or a record"),
        (("a", "b", "c"), r"tasks\['poem'\]\[3\] is 3 values. Expected a text, a pair"),
        (("a", None), r"tasks\['poem'\]\[3\]\[1\] is NoneType, expected a text"),
        (("a", ""), r"tasks\['poem'\]\[3\]: the answer '' gives no token"),
        ("bad \ud83d", r"tasks\['poem'\]\[3\] holds half a surrogate pair at character 4"),
        ({"question": "a"}, r"tasks\['poem'\]\[3\]: there is no field 'answer'"),
    ],
)
def test_an_item_that_is_none_is_named_by_its_task_and_number(model, item, message):
    with pytest.raises(TikmixError, match=message):
        influence_of(model, task=[*["night"] * 3, item])


@pytest.mark.parametrize("items", ["night", {"question": "a", "answer": "b"}, 3])
def test_items_that_are_no_list_are_refused_by_their_task(model, items):
    with pytest.raises(TikmixError, match=rf"tasks\['poem'\] is {type(items).__name__}, expected a list of items"):
        influence_of(model, task=items)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("def return class " * 99, r"domains\['code'\] is str, expected a list of texts"),
        ({"text": ["def"]}, r"domains\['code'\] is dict, expected a list of texts"),
        (["def", None], r"domains\['code'\]\[1\] is NoneType, expected a text"),
        (["bad \ud83d"], r"domains\['code'\]\[0\] holds half a surrogate pair"),
    ],
)
def test_texts_that_are_none_are_refused_by_their_domain(model, texts, message):
    with pytest.raises(TikmixError, match=message):
        influence_of(model, domains={"code": texts})


def test_what_is_missing_is_named(model, measured):
    texts = {"code": ["def"]}
    with pytest.raises(TikmixError, match=r"Domain 'code' has 4 tokens.*lower context or chunks"):
        group_influence(model, Tokenizer(), domains=texts, tasks={"poem": ["night"] * 4})
    with pytest.raises(TikmixError, match="no value for verse"):
        solve_mixture({"poem": {"code": 1.0, "verse": 2.0}, "program": {"code": 1.0}}, {"code": 0.5, "verse": 0.5})
    with pytest.raises(TikmixError, match=r"optimize\.entropi is not a parameter. Did you mean 'optimize\.entropy'"):
        solve_mixture(measured, {"code": 0.5, "verse": 0.5}, entropi=2)
    with pytest.raises(TikmixError, match="give solve_mixture what group_influence returned"):
        solve_mixture(measured.to_dict(), {"code": 0.5, "verse": 0.5}, method="response")


def test_it_imports_neither_kedro_nor_mlflow_nor_xgboost():
    look = (
        "import sys; from tikmix_pipeline import group_influence, solve_mixture;"
        "solve_mixture({'t': {'a': 1.0, 'b': 2.0}}, {'a': 0.5, 'b': 0.5});"
        "print(sorted({'kedro', 'mlflow', 'xgboost', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_names_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        tikmix_pipeline.solve  # noqa: B018


def test_the_documented_example_runs_as_it_stands(model, tmp_path, monkeypatch, capsys):
    from tokenizers import Tokenizer as Bpe
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Bpe(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(
        WORDS.values(), trainers.BpeTrainer(vocab_size=60, special_tokens=["<end>"], show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>")  # noqa: S106
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    model.save_pretrained(tmp_path / "checkpoint")
    for name, words in WORDS.items():
        (tmp_path / f"{name}.txt").write_text("\n\n".join([f"{words} " * 60] * 8))
    (tmp_path / "quiz.tsv").write_text("silver river\t moon night\n" * 8)
    monkeypatch.chdir(tmp_path)
    example = (Path(__file__).parents[1] / "docs" / "library.md").read_text().partition("```python\n")[2]
    lines = example.partition("```")[0].replace("checkpoint", str(tmp_path / "checkpoint"))
    exec(compile(lines, "library.md", "exec"), {})  # noqa: S102 (our own document)
    effects, weights = map(ast.literal_eval, capsys.readouterr().out.splitlines()[-2:])
    assert set(effects) == {"quiz"}
    assert weights["verse"] > weights["code"] >= 0.05 - 1e-9
