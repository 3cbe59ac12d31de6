"""The command of the installed package: `tikmix`, or `python -m tikmix_pipeline`, in the folder of a `conf`.

It is `kedro run` with that folder as the project. Help, `init` and `consumed` need the library's packages alone.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tikmix_pipeline import __version__
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing

PACKAGED = Path(__file__).with_name("conf")
"""The configuration that comes with the package: every environment but the user's own, `local`."""
HELP = """\
Usage: tikmix [OPTIONS]       run pipelines in this folder, by its conf/
       tikmix init [FOLDER]   write the configuration that a run needs
       tikmix run --help      every option, those of `kedro run`
       tikmix consumed --help what a trainer's state says each domain got
       tikmix --version

Measures which data mixture a language model should train on next.

A first run, in an empty folder; it fetches its text from PyPI:
  tikmix init mine && cd mine
  tikmix --env smoke          a tiny model, three rounds
  mlflow ui --backend-store-uri sqlite:///mlflow.db

Options:
  --env NAME                  a folder of conf/: smoke, extended, gpu, cluster,
                              smollm2, or one of your own
  --pipelines NAME            what to run; without it, tikmix
  --params "KEY=VALUE,..."    parameters (conf/base/parameters*.yml), such as
                              tikmix.rounds=5
  --conf-source PATH          another folder, or an archive of `kedro package`

Pipelines:
  tikmix     rounds of train_chunk, influence, optimize (sweep) and reweight,
             and a verdict
  remix      the next mixture for a checkpoint that you train elsewhere
  compare    strategies and baselines on one budget
  validate   whether influence predicts what training does
  corpus, train_chunk, influence, optimize, sweep, reweight
             the stages by themselves

What is made already is used again: after a crash, give the same command.
"""


def main() -> None:
    """Do what the command line asks for; a mistake of the user ends in one message."""
    try:
        _main(sys.argv[1:])
    except TikmixError as error:
        raise SystemExit(f"Error: {error}") from None


def _main(words: Sequence[str]) -> None:
    match list(words):
        case ["--help" | "-h" | "help"]:
            sys.stdout.write(HELP)
        case ["--version"]:
            sys.stdout.write(f"tikmix-pipeline {__version__}\n")
        case ["init", *rest]:
            if len(rest) > 1 or any(word.startswith("-") for word in rest):
                raise TikmixError(f"tikmix init takes one folder, or none for this one, and was given {rest}.")
            write_configuration(Path(*rest))
        case ["consumed", *rest]:
            _tell_consumed(rest)
        case ["run", *rest]:
            _run(rest)
        case rest:
            _run(rest)


def write_configuration(folder: Path) -> None:
    """Write the packaged configuration to `folder`/conf, with an empty `local` beside the other environments.

    Raises:
        TikmixError: there is one already, or the package came without.
    """
    target = folder / "conf"
    if target.exists():
        raise TikmixError(
            f"{target} is there already, so nothing was written. Name another folder: tikmix init FOLDER."
        )
    if not (PACKAGED / "base").is_dir():
        raise TikmixError(
            f"This installation has no configuration at {PACKAGED}. Copy the folder conf of the repository instead."
        )
    with replacing(target) as temporary:
        shutil.copytree(PACKAGED, temporary, ignore=lambda at, _: ["local"] if Path(at) == PACKAGED else [])
        (temporary / "local").mkdir()
    sys.stdout.write(f"Wrote {target}. Next, in {folder.resolve()}: tikmix --env smoke\n")


def _tell_consumed(words: Sequence[str]) -> None:
    from tikmix_pipeline.export.consumed import READERS, read_consumed
    from tikmix_pipeline.export.syntax import Quoted, yaml_text

    parser = argparse.ArgumentParser(
        prog="tikmix consumed",
        description="Print remix.consumed, the tokens that each domain got, as a trainer's own state has them.",
    )
    parser.add_argument("trainer", choices=READERS)
    parser.add_argument("state", type=Path, help="the checkpoint, or for Megatron-LM and NeMo the cache of the index")
    parser.add_argument("--samples", type=int, help="for these: sequences trained on, steps times the global batch")
    parser.add_argument("--paths", type=Path, help="a file of parameters whose reweight.paths name the domains")
    told = parser.parse_args(words)
    consumed = read_consumed(told.trainer, told.state, told.samples).named(_paths(told.paths))
    by_domain = {Quoted(name): tokens for name, tokens in consumed.items()} if isinstance(consumed, dict) else consumed
    sys.stdout.write(yaml_text({"remix": {"consumed": by_domain}}))


def _paths(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    import yaml

    try:
        parameters = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {str(name): str(path) for name, path in parameters["reweight"]["paths"].items()}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise TikmixError(f"--paths: {file} gives no reweight.paths ({error!r}).") from error


def _run(words: Sequence[str]) -> None:
    try:
        from kedro.framework.cli.utils import find_run_command
        from kedro.framework.project import configure_project, settings

        configure_project("tikmix_pipeline")
        source = settings.CONF_SOURCE
    except ModuleNotFoundError as error:  # the library alone is installed
        if (error.name or "").startswith("tikmix_pipeline"):
            raise
        raise TikmixError(f"{error}. Pipelines need an extra: pip install 'tikmix-pipeline[pipeline]'") from None
    folder = Path.cwd() / source
    is_told_where = any(word.startswith("--conf-source") or word == "--help" for word in words)
    if not folder.is_dir() and not is_told_where:
        raise TikmixError(
            f"There is no configuration at {folder}. `tikmix init .` writes one there; one that you have is named by "
            "--conf-source, as a folder or as the archive dist/conf-tikmix_pipeline.tar.gz of `kedro package`."
        )
    find_run_command("tikmix_pipeline")(list(words), prog_name="tikmix run")


if __name__ == "__main__":
    main()
