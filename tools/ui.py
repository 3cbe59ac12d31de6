"""MLflow's pages for this project, opened where its runs are: `make ui`.

The server starts without the workers that MLflow keeps for evaluations of language models, which nothing here asks for.
"""

import os
import subprocess
import sys
from pathlib import Path

HOST, PORT = "127.0.0.1", "5000"
STORE = Path("mlflow.db")


def main() -> None:
    """Say which page to open, and serve until Ctrl-C."""
    print(f"Open {page()}  (Ctrl-C ends the server)", flush=True)  # noqa: T201
    command = [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        f"sqlite:///{STORE}",
        "--host",
        HOST,
        "--port",
        PORT,
        "--workers",
        "1",
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet |= {"PYTHONWARNINGS": "ignore"}  # of the server's own libraries
    try:
        raise SystemExit(subprocess.run([sys.executable, *command], env=os.environ | quiet, check=False).returncode)  # noqa: S603
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def page() -> str:
    """Return the address of the runs of the experiment that was changed last, or of all experiments."""
    from mlflow import MlflowClient

    address = f"http://{HOST}:{PORT}/#/experiments"
    if not STORE.is_file():  # asking would make one
        return address
    found = MlflowClient(f"sqlite:///{STORE}").search_experiments(order_by=["last_update_time DESC"])
    own = [experiment for experiment in found if experiment.name != "Default"]
    return f"{address}/{own[0].experiment_id}/runs?workflowType=machine_learning" if own else address


if __name__ == "__main__":
    main()
