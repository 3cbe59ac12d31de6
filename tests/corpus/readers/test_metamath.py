from reader_examples import read


def section(title: str, content: str, rule: str = "=-=-" * 10) -> str:
    return f"$(\n{rule}\n  {title}\n{rule}\n$)\n{content}\n"


THEOREM = "  ax-mp $a |- ps $.\n" * 30


def test_sections_are_documents():
    texts = read("metamath", (section("One", THEOREM, "#*#*" * 10) + section("Two", THEOREM)).encode())
    assert [text.split("\n")[2].strip() for text in texts] == ["One", "Two"]


def test_short_sections_and_those_of_comments_alone_are_dropped():
    comment = "$( was ax-1 $a |- ph $. " + "renamed " * 100 + "$)"
    assert read("metamath", (section("Renames", comment) + section("Short", "ax $a |- ph $.")).encode()) == []


def test_long_sections_are_cut():
    texts = read("metamath", section("Long", THEOREM * 200).encode())
    assert [len(text) // 1000 for text in texts] == [60, 60, 0]
