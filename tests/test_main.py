"""The command of the installed package: what it says, writes and refuses before a run begins."""

import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tikmix_pipeline import __main__ as command

PROJECT = Path(__file__).parents[1]
BUILD = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def said(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["tikmix", *words])
    command.main()
    return capsys.readouterr().out


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["tikmix", *words])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return str(caught.value)


def test_the_command_that_is_installed_is_the_one_of_the_module():
    entry = EntryPoint("tikmix", BUILD["project"]["scripts"]["tikmix"], "console_scripts")
    assert entry.load() is command.main


def test_help_names_every_environment_and_every_pipeline(capsys, monkeypatch):
    told = said(["--help"], capsys, monkeypatch)
    environments = {path.name for path in (PROJECT / "conf").iterdir() if path.is_dir()} - {"base", "local"}
    pipelines = {path.parent.name for path in (PROJECT / "src/tikmix_pipeline/pipelines").glob("*/pipeline.py")}
    assert all(name in told for name in environments | pipelines)
    assert max(map(len, told.splitlines())) <= 80


def test_help_starts_without_what_takes_long_to_import():
    code = """
import sys
sys.argv = ["tikmix", "--help"]
from tikmix_pipeline.__main__ import main
main()
assert not {"kedro", "mlflow", "torch", "transformers", "numpy", "pandas"} & sys.modules.keys()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == command.HELP


def test_version_is_that_of_the_package(capsys, monkeypatch):
    assert said(["--version"], capsys, monkeypatch) == f"tikmix-pipeline {BUILD['project']['version']}\n"


def test_init_writes_every_environment_but_the_users_own(tmp_path, capsys, monkeypatch):
    told = said(["init", str(tmp_path / "mine")], capsys, monkeypatch)
    written = tmp_path / "mine" / "conf"
    found = {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    conf = PROJECT / "conf"
    expected = {path.relative_to(conf) for path in conf.rglob("*") if path.is_file() and path.parent.name != "local"}
    assert found == {name: (conf / name).read_bytes() for name in expected}
    assert list((written / "local").iterdir()) == []
    assert f"Next, in {tmp_path / 'mine'}: tikmix --env smoke" in told


def test_init_leaves_a_configuration_that_is_there_alone(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yml").write_text("experiment: mine\n", encoding="utf-8")
    assert "is there already, so nothing was written" in refused(["init", str(tmp_path)], monkeypatch)
    assert [path.name for path in (tmp_path / "conf").iterdir()] == ["mine.yml"]


def test_init_refuses_what_is_no_folder(monkeypatch):
    assert "takes one folder" in refused(["init", "--env", "smoke"], monkeypatch)


def test_the_package_holds_every_file_of_the_configuration_and_none_of_local():
    """`kedro package` leaves local out of its archive too: credentials stand there."""
    assert command.PACKAGED.resolve() == PROJECT / "conf"
    tool = BUILD["tool"]["setuptools"]
    package = command.PACKAGED.parent
    taken, left_out = (
        {path for one in tool[key]["tikmix_pipeline"] if one.startswith("conf/") for path in package.glob(one)}
        for key in ("package-data", "exclude-package-data")
    )
    conf = {path for path in (PROJECT / "conf").rglob("*.yml") if path.parent.name != "local"}
    assert {path.resolve() for path in taken - left_out} == conf


def test_a_folder_without_a_configuration_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused([], monkeypatch)
    assert message.startswith(f"Error: There is no configuration at {tmp_path}/conf. `tikmix init .` writes one there")
    assert "dist/conf-tikmix_pipeline.tar.gz" in message


@pytest.mark.parametrize("words", [[], ["run", "--env", "smoke"], ["--pipelines", "remix"]])
def test_the_library_alone_says_which_extra_is_missing(words, monkeypatch):
    monkeypatch.setitem(sys.modules, "kedro.framework.cli.utils", None)
    assert "pip install 'tikmix-pipeline[pipeline]'" in refused(words, monkeypatch)


def test_a_module_of_the_package_that_is_missing_is_no_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tikmix_pipeline.session.run_hooks", None)
    monkeypatch.setattr("kedro.framework.project.configure_project", _import_settings)
    monkeypatch.setattr(sys, "argv", ["tikmix"])
    with pytest.raises(ModuleNotFoundError):
        command.main()


def _import_settings(name: str) -> None:
    importlib.import_module(f"{name}.session.run_hooks")
