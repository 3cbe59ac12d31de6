import pytest
from reader_examples import read_named

from tikmix_pipeline.errors import TikmixError

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
