"""`wordnet`: the data files of WordNet; one line per set of synonyms: `breathe, respire (verb): draw air into ...`."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import decode_leniently, grouped
from tikmix_pipeline.errors import TikmixError

_GROUP_CHARACTERS = 4000
_SHOWN = 60
"""Characters of a line that a message shows."""
_PARTS_OF_SPEECH = {"adj": "adjective", "adv": "adverb"}


def read_wordnet(files: Files, _field: str | None) -> Iterator[str]:
    """Join successive sets of synonyms, which WordNet orders by kind of thing, to documents of a page or two."""
    for name, data in files:
        part = PurePosixPath(name).suffix.removeprefix(".")
        glosses = _glosses(decode_leniently(data), _PARTS_OF_SPEECH.get(part, part), name)
        yield from grouped(glosses, _GROUP_CHARACTERS)


def _glosses(text: str, part_of_speech: str, name: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        # two blanks: the licence at the head of the file
        if line.startswith("  ") or "|" not in line:
            continue
        fields, gloss = line.split("|", maxsplit=1)
        synonyms = _synonyms(fields.split(), f"{name}, line {number}")
        yield f"{', '.join(synonyms)} ({part_of_speech}): {gloss.strip()}"


def _synonyms(fields: Sequence[str], where: str) -> list[str]:
    """Return the words of a set: after offset, file and part of speech their number, each with a sense beside it."""
    try:
        _, _, _, count, *words = fields
        last = 2 * int(count, 16)
    except ValueError:
        raise TikmixError(
            f"{where}: expected a set of synonyms of WordNet's data files, found {' '.join(fields)[:_SHOWN]!r}. "
            "Narrow `members`, or choose another `reader`."
        ) from None
    return [word.replace("_", " ") for word in words[:last:2]]
