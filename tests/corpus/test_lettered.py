import pytest

from tikmix_pipeline.corpus.lettered import are_first_letters, holds_a_second, lettered, without_letters

THREE = {"A": "iron", "B": "wood", "C": "tin"}


@pytest.mark.parametrize("form", ["{}. ", "({}) ", "{}) ", "{}: "])
@pytest.mark.parametrize("between", ["\n", " ", "  \n  ", "\t"])
def test_options_are_told_apart_in_lines_and_within_one(form: str, between: str):
    assert lettered(between.join(form.format(letter) + option for letter, option in THREE.items())) == THREE


def test_two_options_a_line_are_all_found():
    assert lettered("A. iron  B. wood\nC. tin  D. lead") == THREE | {"D": "lead"}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. x\nB. y\nD. z", {"A": "x", "B": "y", "D": "z"}),
        ("B. y\nA. x", {"B": "y", "A": "x"}),
        ("A. rich in Vitamin B. \nB. poor", {"A": "rich in Vitamin B.", "B": "poor"}),
        ("A. only", {"A": "only"}),
        ("none", {}),
    ],
)
def test_lines_with_letters_are_options_whatever_their_letters(text: str, options: dict[str, str]):
    assert lettered(text) == options


def test_statements_within_an_option_belong_to_it():
    text = "A. these:\nI. one\nII. two\nB. none\nC. all:\nI. one"
    assert lettered(text) == {"A": "these:\nI. one\nII. two", "B": "none", "C": "all:\nI. one"}


def test_letters_that_come_twice_in_a_line_are_not_guessed_at():
    found = lettered("A. Vitamin A. B. Vitamin B. C. none")
    assert list(found) == ["A"]
    assert holds_a_second(found["A"])
    assert not holds_a_second("a bank, by a mall")


@pytest.mark.parametrize("form", ["{}. {}", "({}) {}", "{}) {}", "{}: {}", "({}){}", "{}){}"])
def test_a_list_loses_the_letters_that_all_of_it_begin_with(form: str):
    assert without_letters([form.format(*option) for option in THREE.items()]) == (["A", "B", "C"], [*THREE.values()])


@pytest.mark.parametrize("texts", [["A. iron", "wood"], ["A. iron", "B) wood"], ["A.M.", "P.M."], ["A. ", "B. "], []])
def test_a_list_that_is_not_lettered_alike_is_left_as_it_is(texts: list[str]):
    assert without_letters(texts) == ([], texts)


def test_the_first_letters_of_the_alphabet_are_those_of_options_in_any_order():
    assert are_first_letters("DABC")
    assert are_first_letters("ab")
    assert not any(map(are_first_letters, ["A", "", "BC", "AAB", "ABD"]))
