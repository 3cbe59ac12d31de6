import struct
import zlib

from reader_examples import read


def serialised(lines: list[str]) -> bytes:
    """Write a vector of strings as R does, less what stands before the first."""
    return b"X\n" + b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line.encode() for line in lines)


def lazy_load_file(*vectors: list[str]) -> bytes:
    objects = [serialised(lines) for lines in vectors]
    return b"".join(struct.pack(">I", len(content)) + zlib.compress(content) for content in objects)


def novel(word: str) -> list[str]:
    return [f"{word} {row} " + "prose " * 10 for row in range(2000)]


def test_long_texts_are_cut_into_slices_and_short_ones_left_out():
    texts = read("rdata", lazy_load_file(novel("emma"), ["a table"], novel("anne")))
    first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    assert min(len(text) for text in (*first[:-1], *second[:-1])) > 7_800
    assert [text.split("\n")[0] for text in (first[0], second[0])] == [
        f"{word} 0 {'prose ' * 9}prose" for word in ("emma", "anne")
    ]
    assert "a table" not in "".join(texts)


def test_a_text_that_a_package_holds_twice_is_read_once():
    once = read("rdata", lazy_load_file(novel("emma")))
    assert read("rdata", lazy_load_file(novel("emma"), novel("emma"))) == once


def test_bytes_that_look_like_an_object_are_passed_over():
    assert read("rdata", b"\0\0\0\x09x\x9cnot compressed" + lazy_load_file(novel("emma"))) != []
    assert read("rdata", b"\0\0\0\x09x\x9cnot compressed") == []
