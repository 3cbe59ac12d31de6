import pytest
from reader_examples import read_named

from tikmix_pipeline.errors import TikmixError

ENTRIES = {"00-database-info": b"about\n", "apple": b"apple\n  A fruit.\n", "bear": b"bear\n  An animal.\n" * 130}


def dictionary() -> dict[str, bytes]:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (number(value // 64) if value >= 64 else "") + digits[value % 64]

    offset, lines = 0, []
    for word, entry in ENTRIES.items():
        lines.append(f"{word}\t{number(offset)}\t{number(len(entry))}")
        offset += len(entry)
    lines.append(lines[1].replace("apple", "pomme"))
    return {"x!tiny.dict.dz": b"".join(ENTRIES.values()), "x!tiny.index": "\n".join(lines).encode()}


def test_entries_are_read_once_and_joined_without_those_about_the_dictionary():
    (text,) = read_named("dictd", dictionary())
    assert text == (ENTRIES["apple"] + b"\n" + ENTRIES["bear"]).decode()


def test_an_index_needs_its_dictionary():
    files = dictionary()
    del files["x!tiny.dict.dz"]
    with pytest.raises(TikmixError, match=r"tiny.index comes without .*tiny.dict.dz. Widen `members`"):
        read_named("dictd", files)


def test_a_dictionary_needs_its_index():
    with pytest.raises(TikmixError, match=r"expected a .index and a .dict file, found x!tiny.dict.dz"):
        read_named("dictd", {"x!tiny.dict.dz": b""})


@pytest.mark.parametrize("line", ["apple", "apple\tA", "apple\tA\t", "apple\tA\tB-C", "apple\t0x1F\tä", ""])
def test_a_line_that_is_of_no_index_is_refused_with_its_number(line):
    files = {"x!tiny.dict.dz": b"about", "x!tiny.index": f"00-database-info\tA\tF\n{line}\n".encode()}
    with pytest.raises(TikmixError, match=r"tiny\.index, line 2: expected a headword, an offset and a length"):
        read_named("dictd", files)
