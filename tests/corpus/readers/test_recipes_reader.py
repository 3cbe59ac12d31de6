import json

import pytest
from reader_examples import read

from tikmix_pipeline.errors import TikmixError


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


@pytest.mark.parametrize("entry", ["toast", ["toast"], None, 5])
def test_a_recipe_that_is_no_object_is_refused_by_its_key(entry):
    with pytest.raises(TikmixError, match="file0, recipe 'toast': expected a JSON object"):
        read("recipes", json.dumps({"toast": entry}).encode())
