import json

from reader_examples import read


def test_title_lists_and_values_are_written_without_metadata():
    recipe = {
        "title": "Toast",
        "url": "u",
        "time": "5 min",
        "empty": None,
        "steps": ["Cut.", "Toast."],
        "notes": "n" * 40,
    }
    (text,) = read("recipes", json.dumps({"toast": recipe}).encode())
    assert text == "Toast\nTime: 5 min\nSteps:\n- Cut.\n- Toast.\nNotes:\n" + "n" * 40 + "\n"
