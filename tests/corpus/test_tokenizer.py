import json
from pathlib import Path

import pytest
import tokenizers
from corpus_examples import random_text
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.corpus.tokenizer import (
    END_OF_TEXT,
    CorpusTokenizer,
    load_tokenizer,
    tokenizer_digest,
    train_tokenizer,
    vocabulary_size_of,
)
from tikmix_pipeline.errors import TikmixError

TEXTS = [random_text(seed) for seed in range(30)]
TOKENIZER = train_tokenizer(TEXTS, 400)


def decode(tokenizer: CorpusTokenizer, ids: list[int]) -> str:
    return str(tokenizer.backend.decode(ids))


def test_training_twice_gives_the_same_tokenizer():
    assert train_tokenizer(TEXTS, 400).files == TOKENIZER.files
    assert train_tokenizer(TEXTS, 300).digest != TOKENIZER.digest


def test_the_vocabulary_has_the_asked_for_size():
    assert train_tokenizer(TEXTS, 300).vocabulary_size == 300


def test_too_little_text_gives_a_smaller_vocabulary():
    assert train_tokenizer(["ab ab"], 300).vocabulary_size < 300


@settings(deadline=None)
@given(st.text())
def test_any_text_survives_encoding(text: str):
    (ids,) = TOKENIZER.encode([text])
    assert decode(TOKENIZER, ids) == text
    assert len(ids) <= len(text.encode("utf-8"))


def test_text_cannot_forge_the_end_of_a_document():
    (ids,) = TOKENIZER.encode([f"one{END_OF_TEXT}two"])
    assert TOKENIZER.end_of_text_id not in ids
    assert decode(TOKENIZER, ids) == f"one{END_OF_TEXT}two"


def test_a_saved_tokenizer_loads_in_transformers_and_here(tmp_path: Path):
    from transformers import AutoTokenizer

    TOKENIZER.save(tmp_path / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"), local_files_only=True)
    ours = load_tokenizer(tmp_path / "tokenizer")
    assert theirs(TEXTS)["input_ids"] == TOKENIZER.encode(TEXTS) == ours.encode(TEXTS)
    assert theirs.eos_token_id == theirs.pad_token_id == TOKENIZER.end_of_text_id == ours.end_of_text_id
    assert len(theirs) == ours.vocabulary_size == TOKENIZER.vocabulary_size
    assert tokenizer_digest(tmp_path / "tokenizer") == ours.digest == TOKENIZER.digest


def test_the_digest_survives_transformers_saving_it_again(tmp_path: Path):
    """So a checkpoint that transformers saved is known to go with the corpus."""
    from transformers import AutoTokenizer

    TOKENIZER.save(tmp_path / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"), local_files_only=True)
    theirs(TEXTS, padding=True, truncation=True, max_length=8)
    theirs.save_pretrained(str(tmp_path / "again"))
    assert tokenizer_digest(tmp_path / "again") == TOKENIZER.digest


def test_the_digest_changes_with_the_vocabulary_and_not_with_the_layout(tmp_path: Path):
    TOKENIZER.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert tokenizer_digest(tmp_path) == TOKENIZER.digest
    content["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert tokenizer_digest(tmp_path) != TOKENIZER.digest


def test_a_folder_without_a_tokenizer_has_no_digest(tmp_path: Path):
    assert tokenizer_digest(tmp_path) is None


def test_a_missing_tokenizer_folder_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"corpus.tokenizer.path: there is no folder .*nosuch"):
        load_tokenizer(tmp_path / "nosuch")


def test_a_folder_that_holds_no_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"corpus.tokenizer.path: AutoTokenizer cannot load"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_of_text_token_is_refused(tmp_path: Path):
    TOKENIZER.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(TikmixError, match="has no end-of-text token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "[" * 10**5])
def test_a_damaged_tokenizer_is_refused_with_its_file(tmp_path: Path, content: str):
    (tmp_path / "tokenizer.json").write_text(content)
    for read in (tokenizer_digest, vocabulary_size_of):
        with pytest.raises(TikmixError, match=rf"{tmp_path / 'tokenizer.json'} .* Save the tokenizer again"):
            read(tmp_path)


@pytest.mark.parametrize("model", [None, [], {}, {"vocab": 3}, {"vocab": {}}, {"vocab": {"a": "x"}}])
def test_a_tokenizer_without_a_vocabulary_is_refused_with_its_file(tmp_path: Path, model: object):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(TikmixError, match=r"tokenizer\.json holds no vocabulary .* Save the tokenizer again"):
        vocabulary_size_of(tmp_path)


def test_tokens_that_were_added_to_a_tokenizer_are_none_that_text_must_make(tmp_path: Path):
    assert vocabulary_size_of(tmp_path) is None
    TOKENIZER.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 5000, "content": "[PAD]"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert vocabulary_size_of(tmp_path) == TOKENIZER.vocabulary_size
    assert load_tokenizer(tmp_path).vocabulary_size > TOKENIZER.vocabulary_size


@pytest.mark.parametrize("character", ["a", " ", "\0"])
def test_what_has_no_white_space_for_long_or_nothing_else_is_trained_on_in_pieces(character: str):
    """Merging within one word takes time in the square of its length."""
    long = character * 4096
    whole = train_tokenizer([f"{long * 3}{character} some words"], 290)
    assert whole.digest == train_tokenizer([long, long, long, f"{character} some words"], 290).digest
    assert train_tokenizer([f"some{character * 4000}"], 290).digest != whole.digest


def of_model(model: object, split: object) -> CorpusTokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = split
    return CorpusTokenizer.of(backend, 0, {})


def test_characters_that_give_no_token_or_that_for_all_are_unknown():
    words = tokenizers.pre_tokenizers.Whitespace()
    texts = ["ab ab\n", "ab \u4e2d\u6587"]
    without = of_model(tokenizers.models.BPE({"a": 0, "b": 1}, []), words)
    by_word = of_model(tokenizers.models.WordLevel({"ab": 0, "[UNK]": 1}, "[UNK]"), words)
    unigram = of_model(tokenizers.models.Unigram([("<unk>", 0.0), ("ab", -1.0)], unk_id=0), words)
    for tokenizer in (without, by_word, unigram):
        assert tokenizer.unknown_share(texts) == pytest.approx(2 / 8)
    assert train_tokenizer(["ab"], 257).unknown_share(texts) == 0
    assert without.unknown_share([" "]) == 0
