"""Packages made on the spot: an npm tarball and a Debian package, with whatever members a test wants."""

import hashlib
import io
import tarfile
from pathlib import Path

import zstandard


def write_tarball(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> str:
    """Write what `npm pack` would save and return its SHA-256."""
    return _write(path, _tar(members, links or {}, "gz"))


def write_debian_package(
    path: Path, members: dict[str, bytes], links: dict[str, str] | None = None, compression: str = "xz"
) -> str:
    """Write what `apt-get download` would save and return its SHA-256."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar({"./control": b"odd"}, {}, "xz"),
        f"data.tar.{compression}": _tar(members, links or {}, compression),
    }
    return _write(path, b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in parts.items()))


def _write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _tar(members: dict[str, bytes], links: dict[str, str], compression: str) -> bytes:
    buffer = io.BytesIO()
    mode = "w" if compression == "zst" else f"w:{compression}"
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
        for name, target in links.items():
            information = tarfile.TarInfo(name)
            information.type, information.linkname = tarfile.SYMTYPE, target
            archive.addfile(information)
    content = buffer.getvalue()
    return zstandard.compress(content) if compression == "zst" else content


def _ar_member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)
