"""`remix` as a team would use it: three families of checkpoints, three formats of text, every trainer.

    make bench NAME=remix

makes the team of `examples/team.py`, if it is not there yet, in `data/remix_team`. For each family it remixes two
checkpoints, one after the other, and reads every trainer's file back by the documented format (`tests/export`). Then
one run over 50 domains and 20 tasks: slices of the same text and items. Every run is a process of its own.

Figures: `worst_weight_error` over all families and trainers (bar: 1e-6; Levanter's weights, which stand on a grid of
blocks, are `worst_levanter_error`), `seconds` of the slowest run of a family, `seconds_50_by_20` and its peak of
memory, `megabytes_50_by_20`. A run that fails ends the benchmark.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from common import machine, print_figures, print_table
from project import REPOSITORY, kedro_run, scratch_project
from tikmix_pipeline.export.registry import TRAINERS
from tikmix_pipeline.export.schedule import Domain, Phase, Schedule

sys.path.insert(0, str(REPOSITORY / "tests" / "export"))
from readers import READERS

TEAM = REPOSITORY / "data" / "remix_team"
FAMILIES = ("llama", "gpt2", "pythia")
STEPS = ("step-200", "step-400")
CHUNK_TOKENS, BATCH_TOKENS, CONTEXT = 10_000_000_000, 4_194_304, 4096
DOMAINS, TASKS = 50, 20
TAKEN = {
    "files": {"code": "*.jsonl.zst", "encyclopedia": "*.jsonl.zst", "speeches": "*.jsonl.zst"},
    "columns": {"licences": "*.parquet", "recipes": "*.parquet"},
    "datasets": ("quotes", "scripture"),
}


def main() -> None:
    """Run everything and print what it took."""
    print(machine("torch", "transformers", "datasets"))
    subprocess.run([sys.executable, REPOSITORY / "examples" / "team.py", TEAM], check=True)
    with tempfile.TemporaryDirectory() as temporary:
        project = scratch_project(Path(temporary) / "project")
        write_environment(project, "team", team_domains(), team_tasks())
        runs = [(family, step, *timed(project, family, step)) for family, step in itertools.product(FAMILIES, STEPS)]
        write_wide(project)
        wide_seconds, wide_megabytes = timed(project, "wide", "step-200")
        errors = {name: weight_errors(project, name) for name in (*FAMILIES, "wide")}
    worst = {trainer: max(found[trainer] for found in errors.values()) for trainer in TRAINERS}
    print_table(["checkpoint", "seconds", "peak MB"], [[f"{f} {s}", f"{t:.0f}", f"{m:.0f}"] for f, s, t, m in runs])
    print_table(["trainer", "worst error of a weight"], [[trainer, f"{error:.1e}"] for trainer, error in worst.items()])
    print_figures(
        {
            "worst_weight_error": max(error for trainer, error in worst.items() if trainer != "levanter"),
            "worst_levanter_error": worst["levanter"],
            "seconds": max(seconds for _, _, seconds, _ in runs),
            "seconds_50_by_20": wide_seconds,
            "megabytes_50_by_20": wide_megabytes,
        }
    )


def team_domains() -> dict[str, Any]:
    """Return the team's domains, in three formats."""
    data = TEAM / "data"
    return {
        **{name: _files(data / name / glob) for name, glob in TAKEN["files"].items()},
        **{name: _files(data / name / glob, field="content") for name, glob in TAKEN["columns"].items()},
        **{name: {"sources": [{"kind": "huggingface", "path": str(data / name)}]} for name in TAKEN["datasets"]},
    }


def team_tasks() -> dict[str, Any]:
    """Return the team's tasks."""
    return {path.stem: _files(path) for path in sorted((TEAM / "tasks").glob("*.jsonl"))}


def _files(path: Path, **source: str) -> dict[str, Any]:
    return {"sources": [{"kind": "files", "path": str(path), **source}]}


def write_environment(project: Path, name: str, domains: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    """Write an environment as docs/own_data.md has it, with exports for every trainer."""
    exports = {"exports": list(TRAINERS), "batch_tokens": BATCH_TOKENS, "context": CONTEXT}
    sizes = {domain: {"tokens": 2e10} for domain in domains}
    parameters = {
        "corpus": {"domains": dict(domains), "tasks": dict(tasks)},
        "remix": {"chunk_tokens": CHUNK_TOKENS, "sizes": sizes},
        "reweight": exports,
    }
    folder = project / "conf" / name
    folder.mkdir()
    (folder / "parameters.yml").write_text(yaml.safe_dump(parameters), encoding="utf-8")


def write_wide(project: Path) -> None:
    """Deal the team's text to 50 domains and its items to 20 tasks."""
    folder = project / "wide"
    folder.mkdir()
    files = sorted((TEAM / "data").glob("licences/*.parquet")) + sorted((TEAM / "data").glob("recipes/*.parquet"))
    texts = [text for file in files for text in pq.read_table(file, columns=["content"]).column(0).to_pylist()]
    for number in range(DOMAINS):
        pq.write_table(pa.table({"text": texts[number::DOMAINS]}), folder / f"d{number:02d}.parquet")
    lines = [line for path in sorted((TEAM / "tasks").glob("*.jsonl")) for line in path.read_text().splitlines()]
    for number in range(TASKS):
        (folder / f"t{number:02d}.jsonl").write_text("\n".join(lines[number::TASKS]) + "\n", encoding="utf-8")
    domains = {path.stem: _files(path) for path in sorted(folder.glob("*.parquet"))}
    write_environment(project, "wide", domains, {path.stem: _files(path) for path in sorted(folder.glob("*.jsonl"))})


def timed(project: Path, name: str, step: str) -> tuple[float, float]:
    """Remix one checkpoint; return the seconds, start included, and the peak memory in MB of its process."""
    environment, family = ("wide", "llama") if name == "wide" else ("team", name)
    checkpoint = TEAM / "checkpoints" / family / step
    told = f"model.checkpoint={checkpoint},experiment={name},corpus.name={name}"
    start = time.perf_counter()
    run = kedro_run(project, "--env", environment, "--pipelines", "remix", "--params", told)
    _, status, usage = os.wait4(run.pid, 0)
    if status:
        raise SystemExit(f"remix of {name} {step} failed.")
    return time.perf_counter() - start, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def weight_errors(project: Path, name: str) -> dict[str, float]:
    """Read the files of every trainer back; return how far a weight is at most from the one that was decided."""
    recorded = project / "data" / "07_model_output" / name
    mixture = max(recorded.glob("round_*/mixture.json"), key=_round)
    weights: dict[str, float] = json.loads(mixture.read_text(encoding="utf-8"))["weights"]
    manifest = json.loads((project / "data" / "03_primary" / name / "manifest.json").read_text(encoding="utf-8"))
    lengths = {d: splits["train"]["tokens"] / splits["train"]["documents"] for d, splits in manifest["domains"].items()}
    number = _round(mixture)
    stock = json.loads((recorded / f"round_{number - 1}" / "stock.json").read_text(encoding="utf-8"))
    read_before = round(sum(stock["consumed"].values()))
    earlier = [Phase(0, 0, stock["in_force"])] if read_before else []
    schedule = Schedule(
        phases=[*earlier, Phase(round(read_before / BATCH_TOKENS), read_before, weights)],
        domains=[Domain(domain, domain, None, length) for domain, length in lengths.items()],
        batch_tokens=BATCH_TOKENS,
        context=CONTEXT,
        chunk_tokens=CHUNK_TOKENS,
        experiment=name,
        round=0,
        epochs={},
        expected_gain={},
        gain_unit="none",
    )
    folder = project / "data" / "08_reporting" / name / "exports"
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    errors = {}
    for trainer, read in READERS.items():
        own = {name: text for name, text in files.items() if name.startswith(f"{trainer}.")}
        stated = read(own, schedule)
        counts_documents = trainer in ("hf_datasets", "torchtitan_documents")
        tokens = {domain: weight * (lengths[domain] if counts_documents else 1) for domain, weight in stated.items()}
        whole = sum(tokens.values())
        errors[trainer] = max(abs(tokens.get(domain, 0.0) / whole - weight) for domain, weight in weights.items())
    return errors


def _round(path: Path) -> int:
    return int(path.parent.name.removeprefix("round_"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
