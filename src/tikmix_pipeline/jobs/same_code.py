"""Whether another node runs the same code, so that its results may stand beside those of this one."""

import functools
import hashlib
import importlib.metadata
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tikmix_pipeline.errors import TikmixError

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "tokenizers", "torch", "transformers", "xgboost", "xgboost-cpu")
"""Distributions whose version may change the bits of a result."""


@functools.cache
def installed() -> dict[str, str]:
    """Return the version of every library that may change results, and the digest of this package's own code."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return {"tikmix-pipeline": digest.hexdigest()[:12], **{name: _version(name) for name in _LIBRARIES}}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def require_same(expected: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Refuse to work where the code is another, or where a folder is out of sight.

    Args:
        expected: what `installed` returned where the jobs come from.
        folders: what the jobs read and write.

    Raises:
        TikmixError: naming this node, and what is different there.
    """
    node = socket.gethostname()
    own = installed()
    different = [
        f"{name} is {own[name]} and not {version}" for name, version in expected.items() if own[name] != version
    ]
    if different:
        raise TikmixError(
            f"engine.address: on the node {node} {'; '.join(different)}, so that its results would not be those of one "
            "machine. Install on all nodes what is installed here, or use one image for all."
        )
    for folder in folders:
        if not folder.exists():
            raise TikmixError(
                f"engine.address: the node {node} has no {folder}. All nodes have to see the project under the same "
                "path: put it on a disk that they share, or use engine.address=null."
            )
