"""Domains to sample: short documents in front and long ones behind, so that length and place go together."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import zstandard

from tikmix_pipeline.parameters.corpus import FilesSource

SHORT, LONG = 120, 120
TEXTS = [f"{row:04d} " + "ab ü\n" * (6 if row < SHORT else 66) for row in range(SHORT + LONG)]
TOTAL_BYTES = sum(len(text.encode()) for text in TEXTS)
SHARDS = (TEXTS[:90], TEXTS[90:200], TEXTS[200:])


def files(path: str, **changes: Any) -> FilesSource:
    return FilesSource.model_validate({"kind": "files", "path": path, **changes})


def json_lines(texts: Iterable[str], **more: Any) -> bytes:
    return "".join(json.dumps({"text": text, **more}, ensure_ascii=False) + "\n" for text in texts).encode()


def write_shard(path: Path, texts: Sequence[str]) -> Path:
    """Write documents in the format that the ending tells; compressed ones in two frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    middle = len(texts) // 3
    if path.suffix == ".parquet":
        pd.DataFrame({"id": range(len(texts)), "text": texts}).to_parquet(path, index=False, row_group_size=40)
        return path
    data = [json_lines(texts[:middle]), json_lines(texts[middle:])]
    compress: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    path.write_bytes(b"".join(map(compress.get(path.suffix, bytes), data)))
    return path


def write_domain(folder: Path, ending: str) -> FilesSource:
    """Write the documents in shards; those of `txt` in a file each. Return the source of them all."""
    if ending == "txt":
        folder.mkdir(parents=True, exist_ok=True)
        for row, text in enumerate(TEXTS):
            (folder / f"{row}.txt").write_text(text, encoding="utf-8")
    else:
        for number, texts in enumerate(SHARDS):
            write_shard(folder / f"{number}.{ending}", texts)
    return files(f"{folder.name}/*.{ending}")


def inclusion(samples: Iterable[Sequence[str]]) -> tuple[Counter[int], float, float]:
    """Return how often each document was drawn, and the mean over the short ones and over the long ones."""
    counts = Counter(int(text[:4]) for sample in samples for text in sample)
    short = sum(counts[row] for row in range(SHORT)) / SHORT
    return counts, short, sum(counts[row] for row in range(SHORT, SHORT + LONG)) / LONG
