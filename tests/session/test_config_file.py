"""What can be wrong with a parameter file is told at once, by file and key; nothing in one takes unbounded time."""

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.run import Run, set_current_run
from tikmix_pipeline.session.config import TikmixConfigLoader
from tikmix_pipeline.session.run_hooks import start_run
from tikmix_pipeline.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).resolve().parents[2] / "conf"
FUZZED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=timedelta(seconds=20),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
)
"""The time is that of one case; it is a thousandth of that where nothing else runs. FUZZ_EXAMPLES=5000 looks longer."""
DOUBLING = "\n".join(["x0: aaaa", *(f"x{n}: ${{x{n - 1}}}${{x{n - 1}}}" for n in range(1, 40))])
FILE = "conf/mine/parameters.yml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(CONF / "base", folder / "conf" / "base")
    (folder / "conf" / "mine").mkdir()
    return folder


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose base says as little as a base can, so that many of its kind take little time."""
    folder = tmp_path_factory.mktemp("small")
    for environment in ("base", "mine"):
        (folder / "conf" / environment).mkdir(parents=True)
    source = {"sources": [{"kind": "standard_library"}]}
    least = {"corpus": {"domains": {"code": source}, "tasks": {"piqa": source}}}
    (folder / "conf" / "base" / "parameters.yml").write_text(yaml.safe_dump(least))
    (folder / "conf" / "base" / "catalog.yml").write_text("text: {type: none, filepath: data}")
    return folder


@pytest.fixture(autouse=True)
def _forget_the_run() -> Iterator[None]:
    yield
    set_current_run(None)


def started(root: Path, content: str | bytes, **runtime_params: Any) -> Run:
    (root / FILE).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    loader = TikmixConfigLoader(str(root / "conf"), env="mine", runtime_params=runtime_params, **CONFIG_LOADER_ARGS)
    return start_run(loader, root)


def refusal(root: Path, content: str | bytes, **runtime_params: Any) -> str:
    with pytest.raises(TikmixError) as error:
        started(root, content, **runtime_params)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('experiment: "${team}-first"', "experiment: Interpolation key 'team' not found"),
        ("train:\n  context: ${oc.env:HOME}", "train.context: Unsupported interpolation type oc.env"),
        ("experiment: ${runtime_params:x}", "experiment: Runtime parameter 'x' not found"),
        ("experiment: ${globals:team}", "experiment: Globals key 'team' not found"),
        ("experiment: ${experiment}", "experiment: Recursive interpolation"),
        ("experiment: ${", "experiment"),
        (
            "x0: aaaa\n" + "\n".join(f"x{n}: ${{x{n - 1}}}${{x{n - 1}}}" for n in range(1, 40)),
            "with its interpolations written out",
        ),
        ("- experiment\n- one", "a list or a single value"),
        ("experiment", "a list or a single value"),
        ("corpus: 3", "corpus: input should be a valid dictionary"),
        ("corpus: [3]", "corpus: input should be a valid dictionary"),
        ("corpus: null", "corpus: input should be a valid dictionary"),
        ("corpus: {domains: [a, b]}", "corpus.domains: input should be a valid dictionary, got ['a', 'b']"),
        ("corpus: {tasks: 3}", "corpus.tasks: input should be a valid dictionary"),
        ("train: {context: 1, context: 2}", "found duplicate key context"),
        ("train: {lerning_rate: 1}", "train.lerning_rate is not a parameter"),
        ("'experiment[': 1", "experiment[ is not a parameter"),
        ("train: {context: -1}", "train.context: input should be greater"),
        ("a: !!python/object/apply:os.system [exit]", "python/object/apply:os.system"),
        ("a: !!set {x}", "not a supported primitive type"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: &a [*a]", "*a stands for something that it is in"),
        ("a:\x07", "not allowed"),
        (b"experiment: x # caf\xe9\n", "line 1: the byte 0xe9 is no UTF-8"),
    ],
)
def test_what_no_run_can_be_told_names_file_and_key(root: Path, content: str | bytes, key: str) -> None:
    message = refusal(root, content)
    assert key in message
    assert FILE in message


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(f"k{number}: {number}" for number in range(60_000)),
        "\n".join(f"key_number_{number}: {number}" for number in range(1_000_000)),
        "a: " + "[" * 100_000,
        "a: " + "[" * 200 + "]" * 200,
        "a0: &a0 [x, x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)),
        "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{b: *a{n - 1}, c: *a{n - 1}}}" for n in range(1, 40)),
        "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 250)),
    ],
    ids=[
        "many keys",
        "a million keys",
        "open brackets",
        "deep",
        "bomb of lists",
        "bomb of mappings",
        "deep by aliases",
    ],
)
def test_files_larger_than_any_configuration_are_refused_unread(root: Path, content: str) -> None:
    assert FILE in refusal(root, content)


def test_a_command_line_that_cannot_be_told_names_itself(root: Path) -> None:
    assert "--params: experiment: Interpolation key 'x'" in refusal(root, "", experiment="${x}")
    assert "got -1 (--params)" in refusal(root, "train: {context: 64}", train={"context": -1})
    assert "--params" in refusal(root, "", corpus=[3])


def test_of_many_mistakes_the_first_are_listed(root: Path) -> None:
    message = refusal(root, "\n".join(f"k{number}: 1" for number in range(3000)))
    assert len(message.splitlines()) == 22
    assert message.endswith("2980 more")


SOURCES = "{sources: [{kind: files, path: a.jsonl}]}"


@pytest.mark.parametrize(("word", "line"), [("no", 3), ("true", 3), ("2023", 3), ("1.5", 3), ("null", 3), ("~", 3)])
def test_a_name_that_yaml_takes_for_something_else_is_shown_with_its_quotes(root: Path, word: str, line: int) -> None:
    content = f"corpus:\n  domains:\n    {word}: {SOURCES}\n    en: {SOURCES}\n"
    message = refusal(root, content)
    assert f"line {line}: the key {word} is YAML's word" in message
    assert f'as "{word}"' in message
    quoted = content.replace(f"    {word}:", f'    "{word}":')
    assert word == "~" or list(started(root, quoted).parameters.corpus.domains) == [word, "en"]


def test_a_word_of_yaml_in_the_place_of_a_name_asks_for_quotes(root: Path) -> None:
    assert "got False; YAML takes no" in refusal(root, "influence: {tasks: [no, en]}")


def test_a_pattern_is_shown_as_it_is(root: Path) -> None:
    assert "pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', got 'bad name'" in refusal(root, "experiment: bad name")


def test_globals_of_the_base_count_in_an_environment(root: Path) -> None:
    """Also where the environment has domains of its own, and what `--params` says is interpolated."""
    shared = root / "conf" / "base" / "globals.yml"
    shared.write_text("root: /texts\nteam: x\n")
    domain = {"sources": [{"kind": "files", "path": "${globals:root}/a.jsonl"}]}
    own = {"experiment": "${globals:team}-1", "seed": "${runtime_params:seed}", "corpus": {"domains": {"own": domain}}}
    try:
        parameters = started(root, yaml.safe_dump(own), seed=3).parameters
    finally:
        shared.unlink()
    assert (parameters.experiment, parameters.seed) == ("x-1", 3)
    (source,) = parameters.corpus.domains["own"].sources
    assert getattr(source, "path", "") == "/texts/a.jsonl"


KNOWN = ["experiment", "seed", "corpus", "domains", "tasks", "train", "context", "optimize", "guardrails", "sweep"]
WORDS = ["", "no", "null", "~", "1", "${x}", "${", "}", "${globals:a}", "\\${a}", "*a", "&a", "<<", "???", "é", "\x00"]
SIGNS = [": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ", ", "!!", "|", ">"]
KEYS = st.one_of(st.sampled_from(KNOWN), st.sampled_from(WORDS), st.text(max_size=5))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), KEYS, st.dates(), st.binary(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=9,
)
TEXTS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    VALUES.map(yaml.safe_dump),
    st.lists(st.sampled_from([*KNOWN, *WORDS, *SIGNS])).map("".join),
    st.binary(max_size=40),
)


@FUZZED
@given(content=TEXTS)
def test_any_file_is_taken_or_refused_in_one_message(small_root: Path, content: str | bytes) -> None:
    try:
        started(small_root, content)
    except TikmixError as error:
        assert str(error)  # noqa: PT017


FIELDS = st.sampled_from(
    [
        *("train.context", "corpus.domains", "corpus.tasks.piqa", "corpus.domains.code.sources", "corpus.tokenizer"),
        *("tikmix.prior", "optimize.bounds.code", "optimize.guardrails", "optimize.groups", "compare.definitions"),
        *("influence.task_loss", "sweep.table", "remix.sizes", "validate.candidates", "reweight.exports", "engine"),
    ]
)


@FUZZED
@given(field=FIELDS, value=VALUES)
def test_any_value_of_a_parameter_is_taken_or_refused_in_one_message(small_root: Path, field: str, value: Any) -> None:
    for part in reversed(field.split(".")):
        value = {part: value}
    try:
        started(small_root, yaml.safe_dump(value))
    except TikmixError as error:
        assert str(error)  # noqa: PT017
