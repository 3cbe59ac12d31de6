"""What a run ends with, on a page of Markdown: tables stay tables, and names stay text."""

import html
import re

import pytest
from markdown_it import MarkdownIt

from tikmix_pipeline.report.laid_out import Table, laid_out, plain, shortened

PAGE = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

NAMES = [
    "```\n![x](http://x/y.png)\n```",
    "[click](javascript:alert(1))",
    "![](http://x/y.png)",
    "a | b",
    "a \\| b",
    "`a` **b** _c_ ~~d~~",
    "<img src=x onerror=alert(1)>",
    "<http://x>",
    "&lt;b&gt; &#91;x&#93;",
    "http://x.org www.x.org a@b.org",
    "# head",
    "- item",
    "+ item",
    "> quote",
    "1. item",
    "12) item",
    "===",
    "---",
    "    four blanks",
    "[x]: http://x",
    "@name :smile: \u00a8D $x$",
    "line\u2028two\x00\x1b[1m",
    "héé 日本",
]
KINDS = {"paragraph_open", "paragraph_close", "inline"}


def shown(text: str) -> str:
    """What a reader should see of a text on one line."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_nothing_but_text_in_a_sentence(name: str) -> None:
    tokens = PAGE.parse(plain(name))
    assert {token.type for token in tokens} == KINDS
    assert {inner.type for token in tokens for inner in token.children or []} <= {"text", "text_special"}
    assert html.unescape(re.sub("<[^>]*>", "", PAGE.render(plain(name)))).strip() == shown(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_end_the_cell_that_it_stands_in(name: str) -> None:
    markdown = laid_out([Table(["Mixture", name], [[name, "50.0%"], ["code", name]])]).markdown
    rendered = PAGE.render(markdown)
    assert rendered.count("<table>") == 1
    cells = [html.unescape(cell).lstrip("\u2003") for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", rendered)]
    assert cells == ["", shown(name), shown(name), "50.0%", "code", shown(name)]
    heading = PAGE.render(laid_out([Table([name, "next"], [["code", "1"]])]).markdown).split("\n")[0]
    assert html.unescape(heading) == f"<h4><strong>{shown(name)}</strong></h4>"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_showdown_takes_for_an_address_or_for_its_own_is_left(name: str) -> None:
    """MLflow's renderer makes links of bare addresses and of names after an @, and has marks of its own."""
    assert not re.search(r"://|www\.|[@`<\[\]!|\\*_~#\u00a8$](?!\d+;)", plain(name))
    assert not re.search(r":\S", plain(name))


def test_figures_in_a_table_stay_as_they_are() -> None:
    """A page is cut at some thousand characters, of which every reference takes five."""
    cells = ["14.3%", "-0.016", "-0.017 to -0.016", "+0.738", "1.34e+10"]
    assert [plain(cell, begins_line=False) for cell in cells] == cells
    assert plain("0.16 of what the tasks gain") == "0.16 of what the tasks gain"


def test_a_page_begins_with_the_headline_and_a_terminal_ends_with_it() -> None:
    ending = laid_out([["one", "two"], (), Table(["a", "b"], [["c", "1"]])], places="Files: here", headline="Better.")
    assert ending.text == "\none\ntwo\n\na  b\n----\nc  1\n\nFiles: here\n\nBetter."
    assert ending.markdown == "Better.\n\none\n\ntwo\n\n#### **a**\n\n|  | &emsp;b |\n| :--- | ---: |\n| c | &emsp;1 |"


def test_a_long_page_is_cut_between_rows_and_says_where_the_rest_is() -> None:
    markdown = laid_out([Table(["a", "b"], [["code", "1"]] * 1000)]).markdown
    cut = shortened(markdown, 500, "See summary.txt.")
    assert len(cut) <= 500
    table, _, rest = cut.rpartition("\n\n")
    assert markdown.startswith(table + "\n")
    assert rest == "See summary.txt."
    assert shortened("short", 500, "See summary.txt.") == "short"
