"""Options that carry letters: those of one text are told apart by them, and those of a list lose them.

A letter is written "A. ", "(A) ", "A) " or "A: ", alike for all options of a record.
"""

import re
from collections.abc import Sequence

# an option begins where a line starts with its letter: options may themselves hold newlines
_LINES = [
    (re.compile(rf"^(?={letter})", re.MULTILINE), re.compile(rf"{letter}(.*)", re.DOTALL))
    for letter in (r"([A-Z])\. ", r"\(([A-Za-z])\)\s", r"([A-Za-z])\)\s", r"([A-Z]):\s")
]
_BRACKETS = r"\(([A-Za-z])\)"
_INLINE = [re.compile(rf"(?:^|(?<=\s)){end}\s") for end in (_BRACKETS, r"([A-Z])\.", r"([A-Za-z])\)", r"([A-Z]):")]
_LISTED = [
    re.compile(rf"{letter}(\S.*)", re.DOTALL)
    for letter in (r"([A-Z])\.\s+", r"\(([A-Za-z])\)\s*", r"([A-Za-z])\)\s*", r"([A-Z]):\s*")
]
_SECOND = re.compile(r"\s\(?[Bb][.):]\s")


def lettered(text: str) -> dict[str, str]:
    """Return the options of a text by their letters, in whichever way of writing them is the first to find two.

    Where lines find fewer than two, or leave letters out, options may follow each other within a line.
    """
    by_line = [_in_lines(start, option, text) for start, option in _LINES]
    chosen = next((options for options in by_line if len(options) > 1), {})
    if chosen and _is_run([*chosen]):
        return chosen
    inline = [dict(_in_one_line(letter, text)) for letter in _INLINE if _begins_with_the_first(letter, text)]
    longer = next((options for options in inline if len(options) > len(chosen)), {})
    in_brackets = dict(_in_one_line(_INLINE[0], text))
    several = in_brackets if len(in_brackets) > 1 else {}
    return next(filter(None, [longer, chosen, several, *by_line, in_brackets]), {})


def holds_a_second(option: str) -> bool:
    """Return whether the one option that was found seems to hold another, which its letter does not tell apart."""
    return _SECOND.search(option) is not None


def without_letters(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the letters that all options of a list begin with, and the options without them; else no letters."""
    for letter in _LISTED:
        matches = [match for match in map(letter.fullmatch, texts) if match]
        if matches and len(matches) == len(texts):
            return [match[1] for match in matches], [match[2] for match in matches]
    return [], list(texts)


def are_first_letters(letters: Sequence[str]) -> bool:
    """Return whether these are the first letters of the alphabet, two at least, in any order."""
    return len(letters) > 1 and min(letters) in "Aa" and _is_run(letters)


def _is_run(letters: Sequence[str]) -> bool:
    return sorted(letters) == [chr(ord(min(letters)) + number) for number in range(len(letters))]


def _begins_with_the_first(letter: re.Pattern[str], text: str) -> bool:
    """Return whether a text is options in the order of the alphabet, and nothing else."""
    letters = [name for name, _ in _in_one_line(letter, text)]
    return letter.match(text.strip()) is not None and are_first_letters(letters) and letters == sorted(letters)


def _in_lines(start: re.Pattern[str], option: re.Pattern[str], text: str) -> dict[str, str]:
    pieces = [piece for piece in start.split(text) if option.match(piece)]
    letters = [piece.lstrip("(")[0] for piece in pieces]
    if letters and letters != sorted(set(letters)) and not _is_run(letters):
        pieces = _continued(pieces, letters)
    matches = map(option.match, pieces)
    return {match[1]: _without_stray_quote(match[2].strip()) for match in matches if match}


def _continued(pieces: Sequence[str], letters: Sequence[str]) -> list[str]:
    """Join a piece whose letter is not the next one to the option before it, as statements I, II and V of an option."""
    joined: list[str] = []
    following = letters[0]
    for letter, piece in zip(letters, pieces, strict=True):
        if letter == following:
            joined.append(piece)
            following = chr(ord(letter) + 1)
        else:
            joined[-1] += piece
    return joined if len(joined) > 1 else list(pieces)


def _in_one_line(letter: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    pieces = letter.split(text)[1:]
    return [(name, option.strip()) for name, option in zip(pieces[::2], pieces[1::2], strict=True)]


def _without_stray_quote(text: str) -> str:
    return text[:-1].rstrip() if text.endswith('"') and text.count('"') == 1 else text
