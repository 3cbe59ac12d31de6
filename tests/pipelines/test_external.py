"""Files of the user's own that `remix` is given: read as people write them, and told as theirs."""

import json
from pathlib import Path

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.remix import RemixParameters
from tikmix_pipeline.pipelines.remix.external import given_mixture, given_prediction

WEIGHTS = {"web": 0.25, "code": 0.75}


def read(folder: Path, content: bytes) -> object:
    (folder / "mine.json").write_bytes(content)
    return given_mixture(RemixParameters(current="mine.json"), folder, "one")


@pytest.mark.parametrize("content", [WEIGHTS, {"weights": WEIGHTS, "round": 3}], ids=["weights", "record"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_a_current_mixture_is_read_with_and_without_a_mark_of_byte_order(tmp_path: Path, content: object, mark: bytes):
    assert read(tmp_path, mark + json.dumps(content).encode()) == WEIGHTS


@pytest.mark.parametrize("content", [b"web,code\n.25,.75\n", b"[0.25, 0.75]", b"\xff\xfe{\x00", b""])
def test_a_file_that_is_no_mixture_is_the_users_and_not_to_be_deleted(tmp_path: Path, content: bytes):
    with pytest.raises(
        TikmixError, match=r"^remix.current: .*mine.json .* Expected a JSON object of domains and"
    ) as told:
        read(tmp_path, content)
    assert "Delete" not in str(told.value)


@pytest.mark.parametrize("content", [b"a,b", b"[]", b"{}"])
def test_a_file_that_is_no_prediction_is_not_to_be_deleted(tmp_path: Path, content: bytes):
    (tmp_path / "told.json").write_bytes(content)
    with pytest.raises(TikmixError, match=r"^remix.prediction: .*told.json is no prediction") as told:
        given_prediction(tmp_path / "told.json")
    assert "Delete" not in str(told.value)
