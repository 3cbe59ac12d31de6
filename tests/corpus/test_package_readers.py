import contextlib
import hashlib
import json
import struct
import zlib

import pytest
from corpus_examples import read_bytes, read_named

from tikmix_pipeline.corpus.text import tidy
from tikmix_pipeline.errors import TikmixError


def test_the_first_literal_is_cut_into_slices_without_brackets():
    source = 'Bible("""' + "[was] word " * 4000 + '""", """titles""")'
    texts = read_bytes("kjv", source.encode())
    assert [len(text) for text in texts] == [20_001, 16_000]
    assert "[" not in texts[0]
    assert "titles" not in texts[1]


def test_a_file_without_a_literal_is_refused():
    with pytest.raises(TikmixError, match="file0: expected a text between triple quotes"):
        read_bytes("kjv", b"Bible()")


def test_sections_are_headings_and_facts_are_lines():
    country = {
        "Introduction": {"Background": {"text": "Once <b>an</b> empire."}},
        "Geography": {
            "Area": {"total": {"text": "83 sq km"}, "land": {"text": None}},
            "Climate": {"text": "mild", "note": "wet"},
        },
    }
    (text,) = read_bytes("factbook", json.dumps(country).encode())
    assert text == (
        "Introduction\nBackground: Once an empire.\n"
        "\nGeography\n\nArea\ntotal: 83 sq km\n\nland\nClimate: mild\nnote: wet\n"
    )


def test_entries_are_joined_to_pages_and_crumbs_dropped():
    entries = ["A first saying of some length, n\b\u00f6.", "crumb", "z" * 1500, "The last one stands on its own page."]
    texts = read_bytes("fortunes", "\n%\n".join(entries).encode())
    assert [len(text) > 1500 for text in texts] == [True, False]
    assert "crumb" not in texts[0]
    assert "\b" not in texts[0]


def test_headers_short_texts_and_those_that_begin_alike_are_dropped():
    long = "Permission is granted " * 40
    header = "---\nkey: mit\n---\n"
    texts = read_bytes("licences", (header + long).encode(), long.upper().encode() + b"and more", b"short")
    assert texts == [tidy(long)]


def section(title: str, content: str, rule: str = "=-=-" * 10) -> str:
    return f"$(\n{rule}\n  {title}\n{rule}\n$)\n{content}\n"


THEOREM = "  ax-mp $a |- ps $.\n" * 30


def test_sections_are_documents():
    texts = read_bytes("metamath", (section("One", THEOREM, "#*#*" * 10) + section("Two", THEOREM)).encode())
    assert [text.split("\n")[2].strip() for text in texts] == ["One", "Two"]


def test_short_sections_and_those_of_comments_alone_are_dropped():
    comment = "$( was ax-1 $a |- ph $. " + "renamed " * 100 + "$)"
    assert read_bytes("metamath", (section("Renames", comment) + section("Short", "ax $a |- ph $.")).encode()) == []


def test_long_sections_are_cut():
    texts = read_bytes("metamath", section("Long", THEOREM * 200).encode())
    assert [len(text) // 1000 for text in texts] == [60, 60, 0]


def test_title_lists_and_values_are_written_without_metadata():
    recipe = {
        "title": "Toast",
        "url": "u",
        "time": "5 min",
        "empty": None,
        "steps": ["Cut.", "Toast."],
        "notes": "n" * 40,
    }
    (text,) = read_bytes("recipes", json.dumps({"toast": recipe}).encode())
    assert text == "Toast\nTime: 5 min\nSteps:\n- Cut.\n- Toast.\nNotes:\n" + "n" * 40 + "\n"


@pytest.mark.parametrize("entry", ["toast", ["toast"], None, 5])
def test_a_recipe_that_is_no_object_is_refused_by_its_key(entry):
    with pytest.raises(TikmixError, match="file0, recipe 'toast': expected a JSON object"):
        read_bytes("recipes", json.dumps({"toast": entry}).encode())


def test_title_and_extract_are_joined_and_stubs_dropped():
    entries = {"a": {"title": "A", "extract": "x" * 101}, "b": {"title": "B", "extract": "too short"}}
    assert read_bytes("extracts", json.dumps(entries).encode()) == ["A\n\n" + "x" * 101 + "\n"]


def test_facts_nested_as_deep_as_json_can_be_read_are_told():
    for depth in range(700, 1000, 3):
        with contextlib.suppress(TikmixError):
            read_bytes("factbook", b'{"a":' * depth + b'"b"' + b"}" * depth)


@pytest.mark.parametrize("reader", ["extracts", "recipes", "factbook"])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(reader: str):
    whole = {"a": {"title": "\\ud83d\\ude00", "extract": "x" * 101}}
    data = json.dumps(whole).replace("\\\\", "\\")
    assert read_bytes(reader, data.encode())
    with pytest.raises(TikmixError, match="file0 holds half a surrogate pair, which UTF-8 cannot write"):
        read_bytes(reader, data.replace("\\ude00", "").encode())


def test_an_entry_without_extract_is_refused_by_its_key():
    with pytest.raises(TikmixError, match="file0, entry 'a': there is no field 'extract'"):
        read_bytes("extracts", b'{"a": {"title": "A"}}')


VERBS = (
    b"  1 This software and database is being provided to you  \n"
    b"00001740 29 v 03 breathe 0 take_a_breath 0 suspire 3 021 * 00005041 v 0000 | draw air into the lungs; "
    b'"Breathe!"  \n'
    b"00002325 29 v 01 respire 1 005 $ 00001740 v 0000 | undergo respiration  \n"
)


def test_synonyms_and_gloss_make_a_line():
    (text,) = read_named("wordnet", {"x!data.verb": VERBS})
    assert text == (
        'breathe, take a breath, suspire (verb): draw air into the lungs; "Breathe!"\n'
        "respire (verb): undergo respiration\n"
    )


def test_parts_of_speech_have_their_names():
    texts = read_named("wordnet", {f"x!data.{part}": VERBS for part in ("adj", "adv", "noun")})
    assert [text[text.index("(") : text.index(":")] for text in texts] == ["(adjective)", "(adverb)", "(noun)"]


@pytest.mark.parametrize("line", ["| a table | of text |", "a | b", "00001740 29 v many breathe 0 | draw air"])
def test_a_line_that_is_no_set_of_synonyms_is_refused_with_its_number(line):
    with pytest.raises(TikmixError, match=r"x!data\.verb, line 2: expected a set of synonyms"):
        read_named("wordnet", {"x!data.verb": f"  1 This software\n{line}\n".encode()})


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


def serialised(lines: list[str]) -> bytes:
    """Write a vector of strings as R does, less what stands before the first."""
    return b"X\n" + b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line.encode() for line in lines)


def lazy_load_file(*vectors: list[str]) -> bytes:
    objects = [serialised(lines) for lines in vectors]
    return b"".join(struct.pack(">I", len(content)) + zlib.compress(content) for content in objects)


def novel(word: str) -> list[str]:
    return [f"{word} {row} " + "prose " * 10 for row in range(2000)]


def test_long_texts_are_cut_into_slices_and_short_ones_left_out():
    texts = read_bytes("rdata", lazy_load_file(novel("emma"), ["a table"], novel("anne")))
    first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    assert min(len(text) for text in (*first[:-1], *second[:-1])) > 7_800
    assert [text.split("\n")[0] for text in (first[0], second[0])] == [
        f"{word} 0 {'prose ' * 9}prose" for word in ("emma", "anne")
    ]
    assert "a table" not in "".join(texts)


def test_a_text_that_a_package_holds_twice_is_read_once():
    once = read_bytes("rdata", lazy_load_file(novel("emma")))
    assert read_bytes("rdata", lazy_load_file(novel("emma"), novel("emma"))) == once


def test_bytes_that_look_like_an_object_are_passed_over():
    assert read_bytes("rdata", b"\0\0\0\x09x\x9cnot compressed" + lazy_load_file(novel("emma"))) != []
    assert read_bytes("rdata", b"\0\0\0\x09x\x9cnot compressed") == []


SAMPLES = {
    "kjv": b'Bible("""' + b"In the beginning God [was] good.\r\n\n\n" * 900 + b'""", """titles""")',
    "fortunes": b"\n%\n".join(b"\tA saying n\b\xe9 of %d words, and more of them.\a" % number for number in range(90)),
    "licences": b"---\nkey: mit\n---\n" + b"Permission is granted, \xc2\xa7 4.  \n" * 40,
    "metamath": (section("One", THEOREM, "#*#*" * 10) + section("Two", THEOREM * 200)).encode(),
    "rdata": lazy_load_file(novel("emma"), ["a table"], novel("anne")),
}
DIGESTS = {
    "kjv": "edcce039ce23479e",
    "fortunes": "bbb20e37a5693835",
    "licences": "cef59055efdff718",
    "metamath": "0fd35bd9430c0a37",
    "rdata": "4225d2f97a526f19",
}


@pytest.mark.parametrize("reader", SAMPLES)
def test_documents_are_those_that_earlier_releases_made(reader: str):
    documents = read_bytes(reader, SAMPLES[reader])
    assert hashlib.sha256("\0".join(documents).encode()).hexdigest()[:16] == DIGESTS[reader]
