"""The package as others install it: a wheel, an environment of its own, and empty folders.

    make bench NAME=installed

builds wheels by `pip wheel` and by `kedro package`, which pack the same files, and makes a new environment, where pip
gets the wheel with the library alone. There `tikmix` has to say which extra is missing, and its help has to be as fast.
Then comes `[pipeline]`, and the smoke run to its end in three empty folders:

    init       `tikmix init`, then `tikmix --env smoke`
    archive    the archive of `kedro package` unpacked, then `python -m tikmix_pipeline --env smoke`
    source     nothing but `--conf-source` with that archive

All decide the same mixtures, or the benchmark fails. A few minutes and 2 GB of disk; the text is fetched once.

Figures: `help_seconds`, the fastest of five, `installed_megabytes`, and `seconds` of the first run, with fetching.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from common import machine, print_figures
from project import REPOSITORY

TORCH = "torch==2.13.0"
ARCHIVE = "conf-tikmix_pipeline.tar.gz"
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}


def main() -> None:
    """Build, install, run, and print what it took."""
    print(machine("kedro", "torch", "pip"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = built(folder)
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install(environment, TORCH, str(wheel))
        library_alone(environment / "bin" / "tikmix", folder)
        install(environment, f"{wheel}[pipeline]")
        size = sum(path.lstat().st_size for path in environment.rglob("*") if path.is_file()) / 1e6
        seconds = runs(environment / "bin", folder)
        fastest = min(timed(environment / "bin" / "tikmix", folder) for _ in range(5))
    print_figures({"help_seconds": fastest, "installed_megabytes": size, "seconds": seconds})


def built(folder: Path) -> Path:
    """Return the wheel that `kedro package` makes of a copy of the project; `pip wheel` packs the same files."""
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    project = folder / "project"
    for name in tracked.splitlines():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, project / name, follow_symlinks=False)
    (project / "conf" / "local" / "credentials.yml").write_text("key: secret\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "kedro", "package"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    by_pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "by_pip", "."]
    shutil.rmtree(project / "build")
    subprocess.run(by_pip, cwd=project, check=True)
    (wheel,), (other,) = (list(at.glob("*.whl")) for at in (project / "dist", folder / "by_pip"))
    contents = [{(one.filename, one.CRC) for one in zipfile.ZipFile(path).infolist()} for path in (wheel, other)]
    assert contents[0] == contents[1]
    assert not any("credentials" in name for name, _ in contents[0])
    shutil.copy2(project / "dist" / ARCHIVE, folder)
    return wheel


def install(environment: Path, *packages: str) -> None:
    """Install packages, with what they need."""
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(pip, check=True, env=CLEAN)


def library_alone(tikmix: Path, folder: Path) -> None:
    """Hold the command to what it says where nothing but the library is installed."""
    ended = subprocess.run([tikmix], cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'tikmix-pipeline[pipeline]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    print(ended.stderr.strip())
    timed(tikmix, folder)


def timed(tikmix: Path, folder: Path) -> float:
    """Return the seconds that the command's help takes."""
    start = time.perf_counter()
    told = subprocess.run([tikmix, "--help"], cwd=folder, env=CLEAN, capture_output=True, text=True, check=True).stdout
    assert "tikmix init" in told
    return time.perf_counter() - start


def runs(programs: Path, folder: Path) -> float:
    """Run in three folders, and hold the mixtures to each other; return the seconds of the first."""
    for name in ("init", "archive", "source"):
        (folder / name).mkdir()
    subprocess.run([programs / "tikmix", "init"], cwd=folder / "init", env=CLEAN, check=True)
    shutil.unpack_archive(folder / ARCHIVE, folder / "archive")
    start = time.perf_counter()
    run(folder / "init", programs / "tikmix", "--env", "smoke")
    seconds = time.perf_counter() - start
    for name in ("archive", "source"):
        (folder / name / "data").mkdir()
        (folder / name / "data" / "01_raw").symlink_to(folder / "init" / "data" / "01_raw")
    run(folder / "archive", programs / "python", "-m", "tikmix_pipeline", "--env", "smoke")
    run(folder / "source", programs / "tikmix", "run", f"--conf-source={folder / ARCHIVE}", "--env", "smoke")
    decided = [mixtures(folder / name) for name in ("init", "archive", "source")]
    assert len(decided[0]) > 1
    assert decided[0] == decided[1] == decided[2]
    return seconds


def run(folder: Path, *command: str | Path) -> None:
    """Run a command in a folder; one that fails ends the benchmark with what it said."""
    ended = subprocess.run(command, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    print(f"{folder.name}: {ended.stdout.strip().splitlines()[-1]}")


def mixtures(project: Path) -> list[dict[str, float]]:
    """Return the mixtures of all rounds."""
    files = sorted((project / "data" / "07_model_output").glob("*/round_*/mixture.json"))
    return [json.loads(file.read_text(encoding="utf-8"))["weights"] for file in files]


if __name__ == "__main__":
    main()
