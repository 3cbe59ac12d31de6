"""`wordnet`: the data files of WordNet; one line per set of synonyms: `breathe, respire (verb): draw air into ...`."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, grouped

_GROUP_CHARACTERS = 4000
_PARTS_OF_SPEECH = {"adj": "adjective", "adv": "adverb"}


def read_wordnet(files: Files, _field: str | None) -> Iterator[str]:
    """Join successive sets of synonyms, which WordNet orders by kind of thing, to documents of a page or two."""
    for name, data in files:
        part = PurePosixPath(name).suffix.removeprefix(".")
        yield from grouped(_glosses(decode_leniently(data), _PARTS_OF_SPEECH.get(part, part)), _GROUP_CHARACTERS)


def _glosses(text: str, part_of_speech: str) -> Iterator[str]:
    for line in text.splitlines():
        # two blanks: the licence at the head of the file
        if line.startswith("  ") or "|" not in line:
            continue
        fields, gloss = line.split("|", maxsplit=1)
        _, _, _, count, *words = fields.split()
        synonyms = [word.replace("_", " ") for word in words[: 2 * int(count, 16) : 2]]
        yield f"{', '.join(synonyms)} ({part_of_speech}): {gloss.strip()}"
