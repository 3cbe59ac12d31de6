from pathlib import Path

import pytest
from export_examples import example_schedule

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.registry import TRAINERS, check_trainer, write


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("megatorn", "megatron"), ("OLMo-core", "olmo_core"), ("GPT-NeoX", "gpt_neox"), ("LLM Foundry", "llm_foundry")],
)
def test_an_unknown_trainer_is_refused_with_the_nearest_and_all_names(name, nearest):
    with pytest.raises(TikmixError) as caught:
        check_trainer(name, "export.trainers")
    message = str(caught.value)
    assert message.startswith(f"export.trainers names the trainer '{name}', which nothing is written for.")
    assert f"Did you mean '{nearest}'?" in message
    assert all(f"'{trainer}'" in message for trainer in TRAINERS)


def test_known_trainers_pass():
    for trainer in TRAINERS:
        check_trainer(trainer, "export.trainers")


def test_writing_for_an_unknown_trainer_is_refused():
    with pytest.raises(TikmixError, match=r"names the trainer 'axolotl'"):
        write("axolotl", example_schedule())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_an_export_names_its_trainer_and_the_start_of_its_stage(trainer):
    exported = write(trainer, example_schedule())
    assert exported.trainer == trainer
    assert (exported.realised.start_step, exported.realised.start_tokens) == (2000, 16_384_000)


def test_every_trainer_is_in_the_documents():
    page = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text(encoding="utf-8")
    assert all(f"| `{trainer}` |" in page for trainer in TRAINERS)
