"""Readers of the trainers' formats, written from the frameworks' documents and apart from the writers.

Each takes the files and the schedule they came from (for names of paths, and the trainer's own settings), holds to the
rules that the framework enforces, and returns the weights of the last phase by domain, in the trainer's unit.
"""

import ast
import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tikmix_pipeline.export.schedule import Schedule

Files = Mapping[str, str]
Weights = dict[str, float]


def read_megatron(files: Files, schedule: Schedule) -> Weights:
    blend = _blend(files["megatron.txt"].split())
    split = json.loads(files["megatron.json"])
    assert set(split) == {"train", "valid", "test"}
    assert all(_blend(split[key]) == blend for key in split)
    if len(schedule.phases) > 1:
        iterations = [int(text) for text in files["megatron.phases.txt"].strip().split(",")]
        assert iterations == sorted(set(iterations))
        assert _blend(files[f"megatron.phase_{len(iterations)}.txt"].split()) == blend
    return _named(blend, schedule)


def read_olmo_core(files: Files, schedule: Schedule) -> Weights:
    sources = yaml.safe_load(files["olmo_core.yaml"])["sources"]
    for source in sources:
        assert set(source) <= {"source_name", "target_ratio", "max_repetition_ratio", "max_source_fraction", "paths"}
        assert 0 < source["target_ratio"] <= 1
        assert source.get("max_repetition_ratio", 1.0) >= 1
        assert source["paths"] == [schedule.domain(source["source_name"]).path]
    weights = {source["source_name"]: source["target_ratio"] for source in sources}
    assert math.isclose(sum(weights.values()), 1, abs_tol=1e-8)
    return weights


def read_levanter(files: Files, schedule: Schedule) -> Weights:
    return levanter_phases(files, schedule)[-1][1]


def levanter_phases(files: Files, schedule: Schedule) -> list[tuple[int, Weights]]:
    """Return the step of each phase, and the shares of its blocks' sequences."""
    data = yaml.safe_load(files["levanter.yaml"])["data"]
    size = data["mixture_block_size"]
    assert 0 < size < 65536
    steps = [step for step, _ in data["train_weights"]]
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert all(step * schedule.batch_tokens // schedule.context % size == 0 for step in steps)
    phases = []
    for step, weights in data["train_weights"]:
        assert set(weights) <= set(data["configs"])
        whole = sum(weights.values())
        counts = {name: math.floor(weight / whole * size) for name, weight in weights.items()}
        first_largest = next(name for name, count in counts.items() if count == max(counts.values()))
        counts[first_largest] += size - sum(counts.values())
        assert all(counts.values()), "a domain with weight gets nothing"
        phases.append((step, {name: count / size for name, count in counts.items()}))
    return phases


def read_nanotron(files: Files, schedule: Schedule) -> Weights:
    stages = yaml.safe_load(files["nanotron.yaml"])["data_stages"]
    steps = [stage["start_training_step"] for stage in stages]
    assert steps[0] == 1
    assert steps == sorted(set(steps))
    assert len({stage["name"] for stage in stages}) == len(stages)
    assert steps[-1] - 1 == schedule.last.start_step
    dataset = stages[-1]["data"]["dataset"]
    assert isinstance(dataset["dataset_folder"], list)
    return _named(dict(zip(dataset["dataset_folder"], dataset["dataset_weights"], strict=True)), schedule)


def read_llm_foundry(files: Files, schedule: Schedule) -> Weights:
    config = yaml.safe_load(files["llm_foundry.yaml"])
    datasets = [config["train_loader"]["dataset"]]
    durations = []
    if "callbacks" in config:
        curriculum = config["callbacks"]["curriculum_learning"]
        datasets += [datasets[0] | entry["dataset"] for entry in curriculum["schedule"]]
        durations = [curriculum["duration"], *(entry["duration"] for entry in curriculum["schedule"])]
        assert sum(map(_token_count, durations)) == _token_count(config["max_duration"])
        assert sum(map(_token_count, durations[:-1])) == schedule.last.start_tokens
    assert all(dataset["shuffle"] for dataset in datasets)
    # stratified batches would have the proportions rounded to their whole samples instead
    assert all(dataset.get("batching_method", "random") == "random" for dataset in datasets)
    streams = datasets[-1]["streams"]
    assert all(set(stream) == {"local", "proportion"} for stream in streams.values())
    assert all(stream["local"] == schedule.domain(name).path for name, stream in streams.items())
    return {name: stream["proportion"] for name, stream in streams.items()}


def read_gpt_neox(files: Files, schedule: Schedule) -> Weights:
    config = yaml.safe_load(files["gpt_neox.yml"])
    assert config.pop("weight_by_num_documents") is False
    blends = [
        dict(zip(config.pop(f"{split}-data-paths"), config.pop(f"{split}-data-weights"), strict=True))
        for split in ("train", "valid", "test")
    ]
    assert not config
    assert len(blends[0]) < 255
    return _named(blends[0], schedule)


def read_olmix(files: Files, schedule: Schedule) -> Weights:
    rows = list(csv.DictReader(io.StringIO(files["olmix.ratios.csv"])))
    assert len(rows) == len(schedule.phases)
    assert len({row.pop("run") for row in rows}) == len(rows)
    assert all(abs(sum(map(float, row.values())) - 1) < 0.01 for row in rows)
    mix = yaml.safe_load(files["olmix.yaml"])["mix"]
    weights = {name: entry["weight"] for name, entry in mix.items()}
    assert weights == {name: float(cell) for name, cell in rows[-1].items() if float(cell)}
    return weights


def read_hf_datasets(files: Files, schedule: Schedule) -> Weights:
    values = _assigned(files["hf_datasets.py"])
    rows = json.loads(files["hf_datasets.json"])["datasets"]
    assert {row["name"]: row["probability"] for row in rows} == values["PROBABILITIES"]
    assert {row["name"]: row["path"] for row in rows} == values["PATHS"] == _paths(values["PATHS"], schedule)
    return values["PROBABILITIES"]


def read_nemo(files: Files, schedule: Schedule) -> Weights:
    blend = _blend(_assigned(files["nemo.py"])["PATHS"])
    by_split = json.loads(files["nemo.json"])
    assert set(by_split) == {"train", "validation", "test"}
    assert _blend(by_split["train"]) == blend
    assert _blend(yaml.safe_load(files["nemo.yaml"])["model"]["data"]["data_prefix"]) == blend
    return _named(blend, schedule)


def read_energon(files: Files, schedule: Schedule) -> Weights:
    config = yaml.safe_load(files["energon.yaml"])
    assert (config["__module__"], config["__class__"]) == ("megatron.energon", "MetadatasetV2")
    blend = config["splits"]["train"]["blend"]
    return _named({entry["path"]: entry["weight"] for entry in blend}, schedule)


def read_torchtitan(files: Files, schedule: Schedule) -> Weights:
    (values,) = (_assigned(text) for name, text in files.items() if name.endswith(".py"))
    assert values["PATHS"] == _paths(values["PATHS"], schedule)
    assert list(values["WEIGHTS"]) == list(values["PATHS"])
    return values["WEIGHTS"]


def read_litgpt(files: Files, schedule: Schedule) -> Weights:
    values = _assigned(files["litgpt.py"])
    return _named(dict(zip(values["FOLDERS"], values["WEIGHTS"], strict=True)), schedule)


def read_llama_factory(files: Files, schedule: Schedule) -> Weights:
    config = yaml.safe_load(files["llama_factory.yaml"])
    entries = json.loads(files["llama_factory.dataset_info.json"])
    names = [name.strip() for name in config["dataset"].split(",")]
    assert list(entries) == names
    assert {name: entries[name]["file_name"] for name in names} == _paths(dict.fromkeys(names, ""), schedule)
    assert config["mix_strategy"].startswith("interleave")
    assert config["streaming"]
    assert config["dataloader_num_workers"] > 0
    assert "packing" not in config  # it would take a token off cutoff_len
    assert config["cutoff_len"] == schedule.context
    assert "${" not in files["llama_factory.yaml"]
    probabilities = [float(text) for text in config["interleave_probs"].split(",")]
    _check_steps(config, schedule)
    return dict(zip(names, probabilities, strict=True))


def read_ms_swift(files: Files, schedule: Schedule) -> Weights:
    config = yaml.safe_load(files["ms_swift.yaml"])
    words = [str(word) for word in config["dataset"]]
    assert not any(word.startswith("-") for word in words)
    assert config["stopping_strategy"] in ("first_exhausted", "all_exhausted")
    assert config["truncation_strategy"] == "split"
    assert config["packing"]
    _check_steps(config, schedule)
    return _named(dict(zip(words, map(float, map(str, config["interleave_prob"])), strict=True)), schedule)


def _check_steps(config: Mapping[str, Any], schedule: Schedule) -> None:
    """A stream needs a number of steps, and the Trainer of transformers skips batches unless it is told not to."""
    assert config["max_steps"] * schedule.batch_tokens >= schedule.end_tokens
    assert config.get("ignore_data_skip", False) == (schedule.last.start_step > 0)


def read_nemo_automodel(files: Files, schedule: Schedule) -> Weights:
    dataset = yaml.safe_load(files["nemo_automodel.yaml"])["dataset"]
    by_split = json.loads(files[dataset["paths"]])
    assert set(by_split) == {dataset["splits_to_build"]} == {"train"}
    assert dataset["seq_length"] == schedule.context
    return _named(_blend(by_split["train"]), schedule)


READERS: dict[str, Callable[[Files, Schedule], Weights]] = {
    "megatron": read_megatron,
    "olmo_core": read_olmo_core,
    "levanter": read_levanter,
    "nanotron": read_nanotron,
    "llm_foundry": read_llm_foundry,
    "gpt_neox": read_gpt_neox,
    "olmix": read_olmix,
    "hf_datasets": read_hf_datasets,
    "nemo": read_nemo,
    "energon": read_energon,
    "torchtitan": read_torchtitan,
    "torchtitan_documents": read_torchtitan,
    "litgpt": read_litgpt,
    "llama_factory": read_llama_factory,
    "ms_swift": read_ms_swift,
    "nemo_automodel": read_nemo_automodel,
}


def _blend(tokens: list[Any]) -> Weights:
    """Read weights and prefixes in turn, as Megatron does; an odd number of tokens would all be prefixes."""
    assert len(tokens) % 2 == 0
    return {path: float(weight) for weight, path in zip(tokens[::2], tokens[1::2], strict=True)}


def _named(by_path: Mapping[str, float], schedule: Schedule) -> Weights:
    names = {domain.path: domain.name for domain in schedule.domains}
    return {names[path]: weight for path, weight in by_path.items()}


def _paths(names: Mapping[str, str], schedule: Schedule) -> dict[str, str]:
    return {name: schedule.domain(name).path for name in names}


def _assigned(source: str) -> dict[str, Any]:
    """Return the constants that a Python text assigns."""
    statements = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in statements}


def _token_count(duration: str) -> int:
    assert duration.endswith("tok")
    return int(duration.removesuffix("tok"))
