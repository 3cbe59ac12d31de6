"""What Kedro, MLflow, figures and checkpoints cost on top of the compute of a default run.

Compute is the time inside the science rooms: preparing and tokenising text, training steps, evaluation, measuring and
deciding. Everything else is overhead: interpreter start, imports, Kedro, MLflow (a new database included), figures,
checkpoints and resume points. Bar: at most 5 % of the wall time.

    make bench NAME=overhead
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, print_figures, print_table
from project import scratch_project

COMPUTE = {
    "tikmix_pipeline.corpus.build": ["prepare_text", "build_tokenizer", "write_corpus"],
    "tikmix_pipeline.lm.trainer": ["_step"],
    "tikmix_pipeline.lm.evaluation": ["evaluation_texts", "score"],
    "tikmix_pipeline.influence.measure": ["measure_checkpoint"],
    "tikmix_pipeline.mixture.direct": ["solve_direct"],
}


def measured_run(report: Path) -> None:
    """Run the default pipeline in this process with the rooms' functions timed; write the seconds by function."""
    import importlib

    from kedro.framework.startup import bootstrap_project

    from tikmix_pipeline.session import TikmixSession

    seconds: dict[str, float] = {}

    def timed(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

        return call

    for module_name, names in COMPUTE.items():
        start = time.perf_counter()
        module = importlib.import_module(module_name)
        seconds["(imports)"] = seconds.get("(imports)", 0.0) + time.perf_counter() - start
        for name in names:
            setattr(module, name, timed(name, getattr(module, name)))
    imports = seconds.pop("(imports)")
    bootstrap_project(Path.cwd())
    with TikmixSession.create(project_path=Path.cwd()) as session:
        session.run()
    report.write_text(json.dumps({"seconds": seconds, "imports": imports}))


def main() -> None:
    """Time one default run from a new process and print where the time went."""
    print(machine("torch", "kedro", "mlflow"))
    with tempfile.TemporaryDirectory() as scratch:
        project = scratch_project(Path(scratch) / "project")
        report = Path(scratch) / "report.json"
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--measure", str(report)], cwd=project, check=True)
        wall = time.perf_counter() - start
        found = json.loads(report.read_text())
    compute = sum(found["seconds"].values())
    rows = [[name, f"{value:.1f}", f"{value / wall:.1%}"] for name, value in found["seconds"].items()]
    rest = [
        ["imports of the rooms", f"{found['imports']:.1f}", f"{found['imports'] / wall:.1%}"],
        ["overhead, imports included", f"{wall - compute:.1f}", f"{(wall - compute) / wall:.1%}"],
        ["wall", f"{wall:.1f}", ""],
    ]
    print_table(["", "seconds", "share"], [*rows, *rest])
    print_figures(
        {
            "overhead_share": (wall - compute) / wall,
            "overhead_share_of_five_minutes": (wall - compute) / (300 + wall - compute),
            "compute_seconds": compute,
        }
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measured_run(Path(sys.argv[2]))
    else:
        main()
