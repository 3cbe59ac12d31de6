"""How the tests of readers call one."""

from tikmix_pipeline.corpus.readers.registry import READERS


def read(reader: str, *contents: bytes, field: str | None = None) -> list[str]:
    return read_named(reader, {f"file{number}": content for number, content in enumerate(contents)}, field)


def read_named(reader: str, files: dict[str, bytes], field: str | None = None) -> list[str]:
    return list(READERS[reader](files.items(), field))
