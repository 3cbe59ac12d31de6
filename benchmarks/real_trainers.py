"""Exports in the trainers that they are for, each in an environment of its own, on a CPU.

    make bench NAME=real_trainers

Four domains of made-up text, whose tokens tell them apart. Exports are written for them as `reweight.exports` has them
written, read by the trainers themselves, and the tokens of every batch are counted by domain before it is trained on:

    llama_factory   `llamafactory-cli train`'s own function, two stages: the second resumes with the second file
    ms_swift        `swift pt`'s own function; without packing, which asks for a GPU
    olmo_core       its Trainer; and once over all the text there is, where a note says that a second epoch begins
    megatron        Megatron-core's data sets, in the order of training; no model, since its trainer asks for a GPU

What `tikmix consumed` reads from the states that they leave is held to what was counted. Environments (6 GB), text and
results are kept in data/real_trainers and used again: remove a `result.json` to have its run made again. Some minutes.

Figures: by how much the realised share of a domain differs at most from the one asked for (`worst_<trainer>`), for
those that draw documents at random in standard errors too; `epochs_of_all_text`, 2 where the note is right;
`tokens_misread`, of what was read from states, has to be 0.
"""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common import machine, print_figures, print_table
from project import REPOSITORY
from tikmix_pipeline.export.consumed import read_consumed
from tikmix_pipeline.export.exported import Written
from tikmix_pipeline.export.registry import write
from tikmix_pipeline.export.schedule import Domain, Phase, Schedule

WORK = REPOSITORY / "data" / "real_trainers"
RUNS = Path(__file__).parent / "real_trainers"
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
FIRST_IDS = {"books": 2, "code": 10, "mail": 18, "web": 24}
"""Token 1 ends a document; a domain has the tokens up to the next one's first."""
LAST_ID = 28
LENGTHS = {"books": 900, "code": 60, "mail": 30, "web": 120}
"""Tokens of a document, its end included."""
STAGES = (
    {"books": 0.2, "code": 0.3, "mail": 0.05, "web": 0.45},
    {"books": 0.5, "code": 0.1, "mail": 0.1, "web": 0.3},
)
CONTEXT, BATCH, STEPS = 256, 4096, 60
CHUNK = STEPS * BATCH


def main() -> None:
    """Run everything that is not there yet, and print what was realised."""
    print(machine("numpy", "tikmix-pipeline"))
    write_text()
    rows: list[list[str]] = []
    figures = {**llama_factory(rows), **ms_swift(rows), **olmo_core(rows), **megatron(rows)}
    figures["tokens_misread"] = sum(figures.pop(name) for name in list(figures) if name.startswith("misread"))
    print_table(["run", *FIRST_IDS], rows)
    print_figures(figures)


def write_text() -> None:
    """Write each domain's documents, twice the tokens of a chunk, as lines of JSON and as a file of token ids."""
    ends = [*list(FIRST_IDS.values())[1:], LAST_ID]
    generator = random.Random(0)  # noqa: S311
    for (name, first), end in zip(FIRST_IDS.items(), ends, strict=True):
        folder = WORK / "text" / name
        if (folder / "tokens.npy").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        documents = [
            generator.choices(range(first, end), k=LENGTHS[name] - 1)
            for _ in range(math.ceil(2 * CHUNK / LENGTHS[name]))
        ]
        lines = [json.dumps({"text": " ".join(f"t{token}" for token in document)}) for document in documents]
        (folder / "lines").mkdir(exist_ok=True)
        (folder / "lines" / "part.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.array([token for document in documents for token in [*document, 1]], np.uint16).tofile(folder / "tokens.npy")


def schedule(paths: Mapping[str, str], stages: int = 1, **changes: Any) -> Schedule:
    """Return the first stages as a schedule over domains at these paths."""
    consumed = {name: round(share * CHUNK) if stages > 1 else 0 for name, share in STAGES[0].items()}
    attributes: dict[str, Any] = {
        "phases": [Phase(number * STEPS, number * CHUNK, STAGES[number]) for number in range(stages)],
        "domains": [Domain(name, path, None, LENGTHS[name], consumed[name]) for name, path in paths.items()],
        "batch_tokens": BATCH,
        "context": CONTEXT,
        "chunk_tokens": CHUNK,
        "experiment": "real_trainers",
        "round": stages - 1,
        "epochs": {},
        "expected_gain": {},
        "gain_unit": "none",
    }
    return Schedule(**(attributes | changes))


def export(folder: Path, trainer: str, of: Schedule) -> Written:
    """Write a trainer's files to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = write(trainer, of)
    for name, text in written.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return written


def environment(name: str) -> Path:
    """Return the Python of an environment made by the requirements beside the runs."""
    folder = WORK / f"environment-{name}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip"]
        required = RUNS / f"requirements-{name}.txt"
        subprocess.run([*pip, "install", "--quiet", "--requirement", required], check=True, env=CLEAN)
        # their wheels want a GPU's libraries, and transformers takes a torchvision that is there for one that works
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", "torchvision", "torchaudio"], check=True, env=CLEAN)
        (folder / "installed").touch()
    return folder / "bin" / "python"


def result(python: Path, script: str, folder: Path, *files: str, **settings: Any) -> dict[str, Any]:
    """Run a script on a folder, unless it has a result; return that."""
    if not (folder / "result.json").exists():
        told = {
            "folder": str(folder),
            "context": CONTEXT,
            "batch": BATCH,
            "first_ids": [*FIRST_IDS.values()],
            **settings,
        }
        (folder / "settings.json").write_text(json.dumps(told), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            command = [python, RUNS / script, *files, folder / "settings.json"]
            if subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=CLEAN, check=False).returncode:
                raise SystemExit(f"{script} failed: {folder / 'log'}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def compared(run: str, asked: Mapping[str, float], counted: list[int], rows: list[list[str]]) -> float:
    """Add rows of what was asked and what was realised; return the largest difference."""
    realised = [count / sum(counted) for count in counted]
    rows.append([f"{run}, asked", *(f"{asked[name]:.4f}" for name in FIRST_IDS)])
    rows.append([f"{run}, realised", *(f"{share:.4f}" for share in realised)])
    return max(abs(asked[name] - share) for name, share in zip(FIRST_IDS, realised, strict=True))


def llama_factory(rows: list[list[str]]) -> dict[str, float]:
    """Train two stages, the second from the checkpoint of the first."""
    python, folder = environment("llama-factory"), WORK / "llama_factory"
    worst, errors, misread, before = 0.0, 0.0, 0, 0
    for number, asked in enumerate(STAGES):
        stage = folder / f"stage_{number}"
        made = export(stage, "llama_factory", schedule({name: f"{name}/lines" for name in FIRST_IDS}, number + 1))
        shutil.copy2(stage / "llama_factory.dataset_info.json", WORK / "text" / "dataset_info.json")
        own: dict[str, Any] = {
            "model_name_or_path": str(folder / "model"),
            "dataset_dir": str(WORK / "text"),
            "output_dir": str(folder / "checkpoints"),
            "do_train": True,
            "finetuning_type": "full",
            "use_cpu": True,
            "report_to": "none",
            "logging_steps": 20,
            "per_device_train_batch_size": BATCH // CONTEXT,
            "save_steps": STEPS,
            "include_num_input_tokens_seen": "non_padding",
        }
        if number:
            own["resume_from_checkpoint"] = str(folder / "checkpoints" / f"checkpoint-{number * STEPS}")
        exported = yaml.safe_load((stage / "llama_factory.yaml").read_text(encoding="utf-8"))
        (stage / "training.yaml").write_text(yaml.safe_dump(own | exported), encoding="utf-8")
        found = result(python, "llama_factory_run.py", stage, str(stage / "training.yaml"))
        assert found["lengths"] == [CONTEXT]
        worst = max(worst, compared(f"llama_factory, stage {number}", asked, found["counted"], rows))
        errors = max(errors, in_standard_errors(asked, made, found["counted"]))
        state = folder / "checkpoints" / f"checkpoint-{(number + 1) * STEPS}"
        before += sum(found["counted"])
        misread += abs(read_consumed("llama_factory", state).total - before)
    return {"worst_llama_factory": worst, "standard_errors_llama_factory": errors, "misread_llama_factory": misread}


def ms_swift(rows: list[list[str]]) -> dict[str, float]:
    """Train a stage."""
    python, folder = environment("ms-swift"), WORK / "ms_swift"
    made = export(folder, "ms_swift", schedule({name: str(WORK / "text" / name / "lines") for name in FIRST_IDS}))
    exported = yaml.safe_load((folder / "ms_swift.yaml").read_text(encoding="utf-8"))
    del exported["packing"]
    own = {
        "model": str(folder / "model"),
        "model_type": "llama",
        "template": "dummy",
        "tuner_type": "full",
        "torch_dtype": "float32",
        "output_dir": str(folder / "checkpoints"),
        "report_to": "none",
        "per_device_train_batch_size": BATCH // CONTEXT,
    }
    (folder / "training.yaml").write_text(yaml.safe_dump(own | exported), encoding="utf-8")
    counted = result(python, "ms_swift_run.py", folder, str(folder / "training.yaml"))["counted"]
    worst = compared("ms_swift", STAGES[0], counted, rows)
    return {"worst_ms_swift": worst, "standard_errors_ms_swift": in_standard_errors(STAGES[0], made, counted)}


def in_standard_errors(asked: Mapping[str, float], made: Written, counted: list[int]) -> float:
    """Return the largest difference of a share in standard errors of drawing documents by the stated probabilities."""
    assert made.realised is not None
    drawn = made.realised.stated
    mean = sum(probability * LENGTHS[name] for name, probability in drawn.items())
    documents = sum(counted) / mean
    worst = 0.0
    for name, count in zip(FIRST_IDS, counted, strict=True):
        share = asked[name]
        moved = {other: ((other == name) - share) * LENGTHS[other] / mean for other in drawn}
        error = math.sqrt(sum(drawn[other] * step**2 for other, step in moved.items()) / documents)
        worst = max(worst, abs(count / sum(counted) - share) / error)
    return worst


def olmo_core(rows: list[list[str]]) -> dict[str, float]:
    """Train on a mixture; and on all the text of two domains, which is a sequence short of the last batch."""
    python, folder = environment("olmo-core"), WORK / "olmo_core"
    paths = {name: str(WORK / "text" / name / "tokens.npy") for name in FIRST_IDS}
    export(folder / "mixture", "olmo_core", schedule(paths))
    file = str(folder / "mixture" / "olmo_core.yaml")
    mixture = result(python, "olmo_core_run.py", folder / "mixture", export=file, tokens=CHUNK)
    worst = compared("olmo_core", STAGES[0], mixture["counted"], rows)
    assert (mixture["global_train_tokens_seen"], mixture["epoch"]) == (CHUNK, 1)

    return {"worst_olmo_core": worst, **second_epoch(python, folder / "short", rows)}


def second_epoch(python: Path, folder: Path, rows: list[list[str]]) -> dict[str, float]:
    """Train on all the text of two domains: a sequence is missing for the last batch, which a note says."""
    batches = 10
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"books": 2 * BATCH + 100, "web": 8 * BATCH - 100}
    for name, size in sizes.items():
        np.fromfile(WORK / "text" / name / "tokens.npy", np.uint16)[:size].tofile(folder / f"{name}.npy")
    asked = {name: sizes.get(name, 0) / (batches * BATCH) for name in FIRST_IDS}
    domains = [Domain(name, str(folder / f"{name}.npy"), size, None) for name, size in sizes.items()]
    phase = Phase(0, 0, {name: asked[name] for name in sizes})
    of = schedule({}, phases=[phase], domains=domains, chunk_tokens=batches * BATCH)
    notes = " ".join(export(folder, "olmo_core", of).notes)
    assert f"Give requested_tokens={(batches - 1) * BATCH}, and train for as many." in notes
    file = str(folder / "olmo_core.yaml")
    found = result(python, "olmo_core_run.py", folder, export=file, tokens=batches * BATCH)
    assert found["batches_an_epoch"] == batches - 1
    compared("olmo_core, all text", asked, found["counted"], rows)
    return {"epochs_of_all_text": found["epoch"]}


def megatron(rows: list[list[str]]) -> dict[str, float]:
    """Read the blend in the order of training."""
    python, folder = environment("olmo-core"), WORK / "megatron"
    paths = {name: str(WORK / "text" / name / "prefix") for name in FIRST_IDS}
    export(folder, "megatron", schedule(paths))
    documents = {str(WORK / "text" / name / "tokens.npy"): path for name, path in paths.items()}
    file = str(folder / "megatron.txt")
    found = result(python, "megatron_core_run.py", folder, export=file, documents=documents, tokens=CHUNK)
    read = read_consumed("megatron", folder / "cache", found["samples"]).named(paths)
    assert isinstance(read, dict)
    misread = sum(abs(read[name] - count) for name, count in zip(FIRST_IDS, found["counted"], strict=True))
    return {"worst_megatron": compared("megatron", STAGES[0], found["counted"], rows), "misread_megatron": misread}


if __name__ == "__main__":
    main()
