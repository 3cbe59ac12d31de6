import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpus_examples import corpus_in, without_other_letters

from tikmix_pipeline.corpus.build import build_tokenizer, prepare_text, write_corpus
from tikmix_pipeline.corpus.records import PreparedText
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import Item, TaskItems
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer, tokenizer_digest
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import CorpusParameters


def stages(root: Path, **changes: Any) -> tuple[CorpusParameters, PreparedText, CorpusTokenizer]:
    parameters = corpus_in(root, **changes)
    prepared = prepare_text(parameters, root=root, downloads=root / "downloads")
    return parameters, prepared, build_tokenizer(parameters.tokenizer, prepared, root=root)


def all_ids(shards: TokenShards, domain: str, split: str) -> list[int]:
    files = shards.manifest.domains[domain][split].files
    return np.concatenate([np.fromfile(shards.folder / file.file, dtype="<u2") for file in files]).tolist()


def test_shards_hold_every_document_followed_by_the_end_of_text(tmp_path: Path):
    parameters, prepared, tokenizer = stages(tmp_path)
    shards = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
    for domain, splits in prepared.documents.items():
        for split, texts in splits.items():
            expected = [token for text in texts for token in [*tokenizer.encode([text])[0], tokenizer.end_of_text_id]]
            assert all_ids(shards, domain, split) == expected
            assert shards.tokens(domain, split) == len(expected)
            assert shards.documents(domain, split) == len(texts)
            size = sum(len(text.encode()) for text in texts)
            assert shards.bytes_per_token(domain, split) == pytest.approx(size / len(expected))


def test_the_folder_holds_tokenizer_tasks_and_provenance(tmp_path: Path):
    parameters, prepared, tokenizer = stages(tmp_path)
    shards = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
    assert tokenizer_digest(shards.tokenizer_folder) == shards.tokenizer_digest == tokenizer.digest
    tasks = TaskItems.open(shards.tasks_file)
    assert [len(tasks.items("quiz", half)) for half in ("query", "evaluation")] == [10, 10]
    assert shards.manifest.overlap == prepared.overlap
    assert shards.manifest.sources == prepared.sources


def test_a_task_whose_answers_the_tokenizer_does_not_know_is_named_before_anything_is_written(tmp_path: Path):
    parameters, prepared, tokenizer = stages(tmp_path)
    prepared.items["quiz"]["evaluation"][3] = Item("bima dul?", "红")
    message = (
        r"corpus\.tasks\.quiz: the tokenizer has no token for .* of 1 of 10 items, .* 'bima dul\?' is answered by '红'"
    )
    with pytest.raises(TikmixError, match=message):
        write_corpus(parameters, prepared, without_other_letters(tokenizer), tmp_path, tmp_path / "corpus")
    assert not list(tmp_path.glob("*corpus*"))


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path):
    digests = []
    for name in ("one", "two"):
        parameters, prepared, tokenizer = stages(tmp_path)
        shards = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / name)
        digests.append(TokenShards.open(shards.folder).manifest_digest)
    assert digests[0] == digests[1]


def test_small_shards_hold_the_same_tokens(tmp_path: Path):
    parameters, prepared, tokenizer = stages(tmp_path, shard_megatokens=0.001)
    shards = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "small")
    whole = write_corpus(corpus_in(tmp_path), prepared, tokenizer, tmp_path, tmp_path / "whole")
    assert len(shards.manifest.domains["prose"]["train"].files) > 1
    assert all_ids(shards, "prose", "train") == all_ids(whole, "prose", "train")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parameters, prepared, tokenizer = stages(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TikmixError, match=r"Token shards need .* MB in .*corpus, but only 0 MB are free"):
        write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "data" / "corpus")
    assert not (tmp_path / "data").exists()


def test_a_failure_leaves_the_older_corpus_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parameters, prepared, tokenizer = stages(tmp_path)
    before = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus").manifest_digest

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CorpusTokenizer, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
    assert TokenShards.open(tmp_path / "corpus").manifest_digest == before
    assert not list(tmp_path.glob(".corpus*"))


@pytest.fixture
def token_corpus(tmp_path: Path) -> tuple[CorpusParameters, PreparedText, CorpusTokenizer]:
    """The tiny corpus with a third domain of 1500 pre-tokenised ids in two files."""
    _, _, tokenizer = stages(tmp_path)
    tokenizer.save(tmp_path / "mine")
    ids = np.random.default_rng(0).integers(0, tokenizer.vocabulary_size, size=1500).astype("<u2")
    ids[ids == tokenizer.end_of_text_id] += 1
    ids[:1000].tofile(tmp_path / "a.bin")
    ids[1000:].tofile(tmp_path / "b.bin")
    source = {"kind": "shards", "path": "*.bin", "bytes_per_token": 3.0}
    return stages(
        tmp_path,
        tokenizer={"path": "mine"},
        domains={"prose": corpus_in(tmp_path).domains["prose"].model_dump(), "tokens": {"sources": [source]}},
    )


def token_ids(root: Path) -> list[int]:
    return np.concatenate([np.fromfile(root / name, dtype="<u2") for name in ("a.bin", "b.bin")]).tolist()


def test_pretokenised_files_are_split_at_their_end(
    tmp_path: Path, token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer]
):
    shards = write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")
    assert shards.domains == ("prose", "tokens")
    assert all_ids(shards, "tokens", "train") == token_ids(tmp_path)[:1350]
    assert all_ids(shards, "tokens", "heldout") == token_ids(tmp_path)[1350:]
    assert shards.bytes_per_token("tokens") == 3.0
    assert shards.documents("tokens") == 0


@pytest.mark.parametrize(
    ("ends", "cut"),
    [
        ([200, 1349, 1400], 1350),
        ([1348, 1350, 1351], 1351),
        ([1000, 1424, 1499], 1425),
        ([1348, 1425, 1499], 1350),
    ],
)
def test_pretokenised_documents_stay_in_one_split_where_one_ends_near_it(
    tmp_path: Path, token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer], ends: list[int], cut: int
):
    ids = np.array(token_ids(tmp_path), dtype="<u2")
    ids[ends] = token_corpus[2].end_of_text_id
    ids[:1360].tofile(tmp_path / "a.bin")
    ids[1360:].tofile(tmp_path / "b.bin")
    shards = write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")
    assert all_ids(shards, "tokens", "train") == ids[:cut].tolist()
    assert all_ids(shards, "tokens", "heldout") == ids[cut:].tolist()
    assert shards.documents("tokens") == sum(end < cut for end in ends)


def test_the_overlap_report_says_that_pretokenised_domains_were_not_checked(
    token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer],
):
    rows = token_corpus[1].overlap
    (unchecked,) = [row for row in rows if row.domain == "tokens"]
    assert unchecked.model_dump().keys() == rows[0].model_dump().keys()
    assert unchecked.evaluation == "not checked for overlap or duplicates"
    assert unchecked.share_left is None


def test_pretokenised_files_are_capped(
    tmp_path: Path,
    token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer],
    caplog: pytest.LogCaptureFixture,
):
    parameters, prepared, tokenizer = token_corpus
    parameters = parameters.model_copy(update={"max_megabytes": 0.003})
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        shards = write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
    assert caplog.messages[0] == "corpus.domains.tokens: kept 0.003 MB (corpus.max_megabytes)"
    assert all_ids(shards, "tokens", "train") + all_ids(shards, "tokens", "heldout") == token_ids(tmp_path)[:1000]


@pytest.mark.parametrize("ends", [[], [700]])
def test_pretokenised_text_in_which_no_document_ends_is_told(
    tmp_path: Path,
    token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer],
    caplog: pytest.LogCaptureFixture,
    ends: list[int],
):
    ids = np.array(token_ids(tmp_path)[:1000], dtype="<u2")
    ids[ends] = token_corpus[2].end_of_text_id
    ids.tofile(tmp_path / "a.bin")
    write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")
    told = [message for message in caplog.messages if "none of its 1500 tokens is the end-of-text token 0" in message]
    assert len(told) == (not ends)


def test_pretokenised_ids_beyond_the_vocabulary_are_refused(
    tmp_path: Path, token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer]
):
    np.array([1, 2, 60_000], dtype="<u2").tofile(tmp_path / "b.bin")
    with pytest.raises(TikmixError, match=r"b.bin holds the token id 60000, but the tokenizer .* has only 400 ids"):
        write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_a_pretokenised_domain_too_small_for_its_held_out_split_is_refused(
    tmp_path: Path, token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer]
):
    (tmp_path / "b.bin").unlink()
    np.arange(5, dtype="<u2").tofile(tmp_path / "a.bin")
    with pytest.raises(TikmixError, match=r"corpus.domains.tokens: too small for its held-out split: of 5 tokens"):
        write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")


def test_token_files_that_are_named_twice_are_refused(
    tmp_path: Path, token_corpus: tuple[CorpusParameters, PreparedText, CorpusTokenizer]
):
    (tmp_path / "c.bin").symlink_to(tmp_path / "a.bin")
    with pytest.raises(TikmixError, match=r"corpus.domains.tokens: its sources name more than once .*a.bin"):
        write_corpus(*token_corpus, tmp_path, tmp_path / "corpus")


@pytest.mark.parametrize(("known", "said"), [("abcdefghijklmnopqrs", "warned"), ("ab", "refused")])
def test_a_tokenizer_that_does_not_know_the_text_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, known: str, said: str
):
    parameters, prepared, tokenizer = stages(tmp_path)
    tokenizer = without_other_letters(tokenizer, known)
    told = r"corpus.(domains.prose|tasks.quiz): the tokenizer does not know \d+(\.\d+)? % of the characters of its text"
    if said == "refused":
        with pytest.raises(TikmixError, match=f"{told}: .*corpus.tokenizer.path"):
            write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
    else:
        write_corpus(parameters, prepared, tokenizer, tmp_path, tmp_path / "corpus")
        assert len(re.findall(told, caplog.text)) == 2
