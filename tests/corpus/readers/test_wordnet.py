from reader_examples import read_named

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
