import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_examples import write_debian_package, write_tarball
from corpus_examples import write_wheel

from tikmix_pipeline.corpus.archives import read_members
from tikmix_pipeline.errors import TikmixError

Write = Callable[[Path, dict[str, bytes]], str]

KINDS = [
    pytest.param("tiny.whl", write_wheel, id="wheel"),
    pytest.param("tiny.tgz", write_tarball, id="npm"),
    pytest.param("tiny.deb", write_debian_package, id="debian"),
]


@pytest.mark.parametrize(("name", "write"), KINDS)
def test_members_come_by_glob_in_the_order_of_their_names(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/b.txt": b"2", "tiny/deep/a.txt": b"1", "tiny/a.txt": b"0", "tiny/c.md": b"3"})
    members = list(read_members(tmp_path / name, "tiny/*.txt"))
    assert members == [(f"{name}!tiny/a.txt", b"0"), (f"{name}!tiny/b.txt", b"2"), (f"{name}!tiny/deep/a.txt", b"1")]


@pytest.mark.parametrize(("name", "write"), KINDS)
def test_members_that_are_excluded_are_left_out(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/a.txt": b"1", "tiny/test/b.txt": b"2", "tiny/zc.txt": b"3"})
    members = read_members(tmp_path / name, "tiny/*", ["*/test/*", "*/z*"])
    assert [content for _, content in members] == [b"1"]


@pytest.mark.parametrize(("name", "write"), KINDS)
@pytest.mark.parametrize("ending", [".gz", ".dz"])
def test_compressed_members_come_decompressed(tmp_path: Path, name: str, write: Write, ending: str):
    write(tmp_path / name, {f"tiny/a{ending}": gzip.compress(b"text")})
    assert list(read_members(tmp_path / name, "tiny/*")) == [(f"{name}!tiny/a{ending}", b"text")]


@pytest.mark.parametrize(("name", "write"), KINDS)
def test_a_glob_without_members_names_similar_ones(tmp_path: Path, name: str, write: Write):
    write(tmp_path / name, {"tiny/a.txt": b"1"})
    with pytest.raises(TikmixError, match=r"has no member 'tiny/a.text'. Similar ones: tiny/a.txt"):
        list(read_members(tmp_path / name, "tiny/a.text"))


@pytest.mark.parametrize("name", ["tiny.whl", "tiny.tgz", "tiny.deb"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(TikmixError, match=rf"(?s){name} is damaged .*Delete it"):
        list(read_members(tmp_path / name, "*"))


@pytest.mark.parametrize(("name", "write"), KINDS)
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
