"""Bytes become clean text; what they turn out not to be (UTF-8, JSON) is reported with the name of their file."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator

from tikmix_pipeline.errors import TikmixError


def tidy(text: str) -> str:
    """Normalise white space: LF line ends, no blanks before them, at most one empty line, one newline at the end."""
    text = text.replace("\r\n", "\n").replace("\u00a0", " ").replace("\0", "")
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Turn what is wrong with the bytes read in the body into an error that names `where` they came from."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TikmixError(
            f"{where} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. Convert the file to UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise TikmixError(f"{where} is not valid JSON: {error}.") from error


def decode_leniently(data: bytes) -> str:
    """Decode UTF-8, and as Latin-1 what is not UTF-8: for old collections of one of the two."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
    return data.decode("latin-1") if "\ufffd" in text else text


def grouped(entries: Iterable[str], characters: int) -> Iterator[str]:
    """Join successive small entries to documents of at least `characters`; the last may be shorter."""
    group: list[str] = []
    for entry in entries:
        group.append(entry)
        if sum(map(len, group)) >= characters:
            yield tidy("\n".join(group))
            group = []
    if group:
        yield tidy("\n".join(group))


def slices(text: str, characters: int) -> Iterator[str]:
    """Cut a long text into documents of `characters`, the last of them shorter."""
    for start in range(0, len(text), characters):
        yield tidy(text[start : start + characters])
