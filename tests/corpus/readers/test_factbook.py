import json

from reader_examples import read


def test_sections_are_headings_and_facts_are_lines():
    country = {
        "Introduction": {"Background": {"text": "Once <b>an</b> empire."}},
        "Geography": {
            "Area": {"total": {"text": "83 sq km"}, "land": {"text": None}},
            "Climate": {"text": "mild", "note": "wet"},
        },
    }
    (text,) = read("factbook", json.dumps(country).encode())
    assert text == (
        "Introduction\nBackground: Once an empire.\n"
        "\nGeography\n\nArea\ntotal: 83 sq km\n\nland\nClimate: mild\nnote: wet\n"
    )
