"""Archives as data: the files inside wheels (zip), npm tarballs and Debian packages, read without extracting any.

Nothing is written, so a member's name can lead nowhere; links, devices and names with `..` are passed over anyway.
"""

import difflib
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa

from tikmix_pipeline.errors import TikmixError

Wanted = Callable[[str], bool]

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def read_members(archive: Path, pattern: str, exclude: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the archive's members that match the glob, in the order of their names.

    Members that are compressed by themselves (.gz, .dz) come decompressed.

    Args:
        archive: a .whl, .tgz or .deb.
        pattern: glob over names; `*` matches slashes too.
        exclude: globs of names to leave out.

    Raises:
        TikmixError: the archive or a member is damaged, or nothing matches.
    """
    existing: list[str] = []

    def wanted(name: str) -> bool:
        existing.append(name)
        return fnmatchcase(name, pattern) and not any(fnmatchcase(name, left_out) for left_out in exclude)

    found = False
    try:
        for name, data in _MEMBERS[archive.suffix](archive, wanted):
            found = True
            yield f"{archive.name}!{name}", gzip.decompress(data) if name.endswith((".gz", ".dz")) else data
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise TikmixError(f"{archive} is damaged ({error}). Delete it to download it again.") from error
    if not found:
        nearest = difflib.get_close_matches(pattern, existing, n=3, cutoff=0.3)
        raise TikmixError(f"{archive.name} has no member {pattern!r}. Similar ones: {', '.join(nearest) or '-'}.")


def _members_of_zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(filter(wanted, archive.namelist())):
            yield name, archive.read(name)


def _members_of_tarball(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        yield from _members_of_tar(file, wanted)


def _members_of_debian_package(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        name, data = _ar_member(file, "data.tar")
    if name.endswith(".zst"):  # as in Ubuntu's
        try:
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
                data = bytes(stream.read())
        except OSError as error:
            raise tarfile.ReadError(str(error)) from error
    yield from _members_of_tar(io.BytesIO(data), wanted)


def _members_of_tar(file: IO[bytes], wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    # in one pass, since going back in a compressed tar decompresses it anew; so what is wanted is held in memory
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            path = PurePosixPath(name)
            if member.isreg() and not path.is_absolute() and ".." not in path.parts and wanted(name):
                content = archive.extractfile(member)
                members[name] = content.read() if content else b""
    yield from sorted(members.items())


def _ar_member(file: IO[bytes], prefix: str) -> tuple[str, bytes]:
    """Return name and bytes of the first member of an `ar` archive whose name starts with `prefix`."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise tarfile.ReadError("it does not start like a Debian package")
    while header := file.read(_AR_HEADER_BYTES):
        size = header[48:58].strip()
        if len(header) < _AR_HEADER_BYTES or not size.isdigit():
            raise tarfile.ReadError("it ends within a header")
        data = file.read(int(size))
        if len(data) < int(size):
            raise EOFError("it ends within a member")
        name = header[:16].decode("ascii", errors="replace").rstrip(" /")
        if name.startswith(prefix):
            return name, data
        file.read(int(size) % 2)  # members begin at even places
    raise tarfile.ReadError(f"it has no {prefix}")


_MEMBERS: dict[str, Callable[[Path, Wanted], Iterator[tuple[str, bytes]]]] = {
    ".whl": _members_of_zip,
    ".tgz": _members_of_tarball,
    ".deb": _members_of_debian_package,
}
