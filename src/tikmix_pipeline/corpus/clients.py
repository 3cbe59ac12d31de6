"""The programs that download packages: pip, npm and apt-get, each as the machine has configured it.

So whatever index, mirror or proxy a machine uses is used here too.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import ArchiveSource, DebianSource, NpmSource

_SEPARATORS = {"package": "==", "npm": "@", "debian": "="}
_CLIENTS = {"package": "pip", "npm": "npm", "debian": "apt-get"}


def requirement(source: ArchiveSource) -> str:
    """Return what the source's client is asked for: one version of one package."""
    return f"{source.package}{_SEPARATORS[source.kind]}{source.version}"


def file_pattern(source: ArchiveSource) -> str:
    """Return a glob of the file that the source's client saves."""
    match source:
        case NpmSource():
            return f"{source.package.removeprefix('@').replace('/', '-')}-{source.version}.tgz"
        case DebianSource():
            return f"{source.package}_{source.version.replace(':', '%3a')}_*.deb"
    return f"{source.package.replace('-', '_').replace('.', '_')}-{source.version}-*.whl"


def client_of(source: ArchiveSource) -> str:
    """Return the name of the program that downloads the source."""
    return _CLIENTS[source.kind]


def has_client(source: ArchiveSource) -> bool:
    """Return whether that program is there; pip belongs to the interpreter."""
    return client_of(source) == "pip" or shutil.which(client_of(source)) is not None


def download(source: ArchiveSource, folder: Path) -> None:
    """Let the source's client download its one file, nothing else, into an empty folder.

    Raises:
        TikmixError: the client fails; the message ends with what it said.
    """
    command = _command(source, folder)
    # npm and apt-get save where they run; pip is told, since paths in its configuration may be relative to the project
    place = None if client_of(source) == "pip" else folder
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)  # noqa: S603 - no shell
    if result.returncode:
        client, wanted = client_of(source), requirement(source)
        reason = "\n".join(result.stderr.strip().splitlines()[-3:])
        raise TikmixError(
            f"{client} could not download {wanted}:\n{reason}\nCheck the network and {client}'s configuration, or "
            f"place {file_pattern(source)} in {folder.parent} yourself.{_hint(source)}"
        )


def _command(source: ArchiveSource, folder: Path) -> list[str]:
    match source:
        case NpmSource():
            return ["npm", "pack", "--ignore-scripts", "--loglevel", "error", requirement(source)]
        case DebianSource():
            return ["apt-get", "download", "--quiet=2", requirement(source)]
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--no-input", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--", requirement(source)]


def _hint(source: ArchiveSource) -> str:
    if not isinstance(source, DebianSource):
        return ""
    return (
        " Where apt-get knows no such version, run `apt-get update` (as root); if there is a newer one, pin that and "
        "its SHA-256."
    )
