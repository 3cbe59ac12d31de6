"""The tokenizer: a byte-level BPE trained on the corpus, or one the user has.

It lives in a folder of Hugging Face's layout, so that `AutoTokenizer.from_pretrained` reads it, and is recognised by
a digest that depends on how it maps text to ids and on nothing else.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json_object, replacing
from tikmix_pipeline.progress import progress_bar

END_OF_TEXT = "<|endoftext|>"

_SAVE_AGAIN = "Save the tokenizer again (AutoTokenizer.save_pretrained)."

_LONGEST_WORD = 4096
_LONG_WORD = re.compile(rf"(\S{{{_LONGEST_WORD}}}|\s{{{_LONGEST_WORD}}})")
_LONG_BLANK = re.compile(rf"\s{{{_LONGEST_WORD}}}")

_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja"),
)


@dataclass(frozen=True)
class CorpusTokenizer:
    """Encodes documents as they stand: no special token is added, and text that spells one is encoded as text."""

    backend: Any
    """The `tokenizers.Tokenizer`."""
    end_of_text_id: int
    """Follows every document."""
    files: Mapping[str, bytes]
    """Name and content of the files of its folder."""

    @classmethod
    def of(cls, backend: Any, end_of_text_id: int, files: Mapping[str, bytes]) -> "CorpusTokenizer":
        """Wrap a copy of a backend: what is set here must not reach the tokenizer that the caller holds."""
        backend = Tokenizer.from_str(backend.to_str())
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, end_of_text_id, files)

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(map(int, self.backend.get_vocab(with_added_tokens=True).values()))

    @property
    def digest(self) -> str:
        """Identifies the mapping from text to ids."""
        return _digest(json.loads(self.files["tokenizer.json"]))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _unknown_id(self) -> int | None:
        """The id of what the vocabulary does not have, where it has one for that."""
        model = json.loads(self.backend.to_str())["model"]
        token = model.get("unk_token")
        found: int | None = model.get("unk_id") if token is None else self.backend.token_to_id(token)
        return found

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return which share of the characters gives no token, or the one for what is unknown.

        White space does not count, nor do marks that a normaliser may join to the letter before.
        """
        total = known = 0
        for text, encoding in zip(texts, self.backend.encode_batch(list(texts), add_special_tokens=False), strict=True):
            is_known = np.zeros(len(text), dtype=bool)
            for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
                is_known[start:stop] |= token != self._unknown_id
            counts = [not (character.isspace() or unicodedata.combining(character)) for character in text]
            total, known = total + sum(counts), known + int(is_known[np.array(counts, dtype=bool)].sum())
        return 1 - known / total if total else 0.0

    def save(self, folder: Path) -> None:
        """Write the tokenizer's folder."""
        with replacing(folder) as temporary:
            temporary.mkdir()
            for name, content in self.files.items():
                (temporary / name).write_bytes(content)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> CorpusTokenizer:
    """Train a byte-level BPE: 256 bytes, the end-of-text token and merges. Equal texts give an equal tokenizer."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with progress_bar("train tokenizer", None, "document") as bar:
        backend.train_from_iterator(_in_words(_counted(texts, bar)), trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
    }
    files = {
        "tokenizer.json": backend.to_str(pretty=True).encode("utf-8"),
        "tokenizer_config.json": (json.dumps(config, indent=2, sort_keys=True) + "\n").encode("utf-8"),
    }
    # the trainer gives its special tokens the first ids
    return CorpusTokenizer.of(backend, 0, files)


def _in_words(texts: Iterable[str]) -> Iterator[str]:
    """Cut what has no white space for long, or nothing else: merging within one word takes quadratic time."""
    for text in texts:
        is_long = max(map(len, text.split()), default=0) > _LONGEST_WORD or _LONG_BLANK.search(text)
        yield from _LONG_WORD.split(text) if is_long else (text,)


def _counted(texts: Iterable[str], bar: Any) -> Iterator[str]:
    for text in texts:
        yield text
        bar.update()


def load_tokenizer(folder: Path, parameter: str = "corpus.tokenizer.path") -> CorpusTokenizer:
    """Load a tokenizer from a folder of Hugging Face's layout: a tokenizer's, or a model checkpoint's.

    Nothing is downloaded, and no code that stands in the folder is run. `parameter` is the one that names the folder,
    for messages.

    Raises:
        TikmixError: there is no such folder, no fast tokenizer in it, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise TikmixError(f"{parameter}: there is no folder {folder}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever the files make it raise
        raise TikmixError(
            f"{parameter}: AutoTokenizer cannot load {folder}: {type(error).__name__}: {error}"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TikmixError(
            f"{parameter}: {folder} holds a tokenizer without a fast version; convert it to tokenizer.json."
        )
    if tokenizer.eos_token_id is None:
        raise TikmixError(
            f"{parameter}: the tokenizer in {folder} has no end-of-text token to separate documents with. "
            "Set `eos_token` in its tokenizer_config.json."
        )
    return CorpusTokenizer.of(backend, tokenizer.eos_token_id, _files_of(folder, tokenizer))


def _files_of(folder: Path, tokenizer: Any) -> dict[str, bytes]:
    """Copy the files as they are; let transformers write those of a folder without tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return {file.name: file.read_bytes() for file in tokenizer_files(folder)}
    with TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        return {path.name: path.read_bytes() for path in sorted(Path(temporary).iterdir()) if path.is_file()}


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder that a tokenizer may consist of."""
    return [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]


def tokenizer_digest(folder: Path) -> str | None:
    """Return the digest of the tokenizer in a folder, or None where the folder holds no tokenizer.json.

    A model checkpoint and a corpus go together when these are equal. A damaged file raises TikmixError.
    """
    path = folder / "tokenizer.json"
    return _digest(read_json_object(path, _SAVE_AGAIN)) if path.is_file() else None


def _digest(tokenizer: dict[str, Any]) -> str:
    # transformers changes these when it saves a tokenizer; without special tokens they change no text's ids
    settings = {"padding", "truncation", "post_processor"}
    content = {key: value for key, value in tokenizer.items() if key not in settings}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def vocabulary_size_of(folder: Path) -> int | None:
    """Return one more than the largest id of what a folder's tokenizer was trained on; None without tokenizer.json.

    Tokens that were added to it are left out: text need not make any of them. A damaged file raises TikmixError.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    content = read_json_object(path, _SAVE_AGAIN)
    try:
        vocabulary = content["model"]["vocab"]  # of a unigram model a list of pieces, else ids by token
        return 1 + max(map(int, vocabulary.values() if isinstance(vocabulary, Mapping) else range(len(vocabulary))))
    except (KeyError, TypeError, ValueError) as error:
        raise TikmixError(f"{path} holds no vocabulary ({type(error).__name__}: {error}). {_SAVE_AGAIN}") from error
