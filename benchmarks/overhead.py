"""What Kedro, MLflow, figures and checkpoints cost on top of the compute of a default run.

Compute is the time inside the science rooms: preparing and tokenising text, training steps, evaluation, measuring and
deciding, and the import of the libraries that they compute with, which a script without Kedro would need too. All else
is overhead: interpreter start, Kedro, MLflow (a new database included), provenance records, figures, checkpoints and
resume points.
Bar: at most 5 % of the wall time of a run whose compute takes 5 minutes.

    make bench NAME=overhead
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, print_figures, print_table
from project import scratch_project

LIBRARIES = [
    "torch",
    "transformers.models.llama.modeling_llama",
    "scipy.optimize",
    "pyarrow.parquet",
    "tokenizers",
    "rensa",
]
COMPUTE = {
    "tikmix_pipeline.corpus.build": ["prepare_text", "build_tokenizer", "write_corpus"],
    "tikmix_pipeline.lm.trainer": ["_step"],
    "tikmix_pipeline.lm.evaluation": ["evaluation_texts", "score_items"],
    "tikmix_pipeline.influence.collect": ["collect_gradients"],
    "tikmix_pipeline.influence.curvature.build": ["build_curvature"],
    "tikmix_pipeline.influence.curvature.fit": ["fit_factors"],
    "tikmix_pipeline.influence.group": ["group_influence"],
    "tikmix_pipeline.mixture.direct": ["solve_direct"],
}


def measured_run(report: Path) -> None:
    """Run the default pipeline in this process with the rooms' functions timed; write the seconds by function."""
    start = time.perf_counter()
    for name in LIBRARIES:
        importlib.import_module(name)
    imports = time.perf_counter() - start

    from kedro.framework.startup import bootstrap_project

    from tikmix_pipeline.session.kedro_session import TikmixSession

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
        module = importlib.import_module(module_name)
        for name in names:
            setattr(module, name, timed(name, getattr(module, name)))
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
    compute = sum(found["seconds"].values()) + found["imports"]
    overhead = wall - compute
    rows = [[name, f"{value:.1f}", f"{value / wall:.1%}"] for name, value in found["seconds"].items()]
    rest = [
        ["import of libraries to compute with", f"{found['imports']:.1f}", f"{found['imports'] / wall:.1%}"],
        ["overhead", f"{overhead:.1f}", f"{overhead / wall:.1%}"],
        ["wall", f"{wall:.1f}", ""],
    ]
    print_table(["", "seconds", "share"], [*rows, *rest])
    print_figures(
        {
            "overhead_share": overhead / wall,
            "overhead_share_of_five_minutes": overhead / (300 + overhead),
            "overhead_seconds": overhead,
            "compute_seconds": compute,
        }
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measured_run(Path(sys.argv[2]))
    else:
        main()
