"""Sampling 8 MB of a domain in one compressed file of 2 GB, beside decompressing that file and doing nothing else.

    make bench NAME=sampling

The file holds JSON lines of real text: Python's standard library, and what the default corpus keeps where it has been
prepared (`kedro run --pipelines corpus`), over and over, each frame with another salt in its text. Both measurements
run in processes of their own, in turns, with the file in the page cache; seconds are those after the imports, peaks are
of all that the process held.

Figures: `seconds` (bar: 60), `peak_megabytes` (bar: 1000), `over_decompression` (how many times as long as
decompressing alone takes; median of the repetitions).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import machine, peak_bytes, print_figures, print_table, run_alone, spread
from tikmix_pipeline.corpus.formats import read_blocks
from tikmix_pipeline.corpus.reading import sample_sources
from tikmix_pipeline.corpus.sources import read_source
from tikmix_pipeline.parameters.corpus import FilesSource, StandardLibrarySource
from tikmix_pipeline.progress import no_progress_bars, progress_bar

CORPUS = Path(__file__).resolve().parents[1] / "data" / "02_intermediate"
FRAME_BYTES = 60e6
SAMPLED_BYTES = 8e6
SALT = "@salt@salt@"
SALT_EVERY = 600
"""Characters of a document between two salts."""
SEED = 0


def real_texts(folder: Path) -> Iterator[str]:
    """Yield documents: of the standard library, and of the prepared default corpus if there is one."""
    import pyarrow.parquet as pq

    library = StandardLibrarySource(kind="standard_library")
    yield from read_source(library, root=folder, downloads=folder)
    for path in sorted(CORPUS.glob("default/**/documents/*.parquet")):
        yield from pq.read_table(path, columns=["text"]).column(0).to_pylist()


def salted_lines(texts: list[str]) -> bytes:
    """Write documents as JSON lines of about `FRAME_BYTES`, in another order each time, with places for salt."""
    generator = np.random.default_rng(SEED)
    lines: list[bytes] = []
    size = 0
    while size < FRAME_BYTES:
        for row in generator.permutation(len(texts)):
            text = texts[row]
            parts = [text[start : start + SALT_EVERY] for start in range(0, len(text), SALT_EVERY)]
            lines.append((json.dumps({"id": len(lines), "text": SALT.join(["", *parts])}) + "\n").encode())
            size += len(lines[-1])
    return b"".join(lines)


def write_file(path: Path, gigabytes: float) -> int:
    """Write the file frame by frame; return how many bytes of JSON lines it holds."""
    import pyarrow as pa

    lines = salted_lines(list(real_texts(path.parent)))
    codec = pa.Codec("zstd", compression_level=1)
    generator = np.random.default_rng(SEED)
    raw = 0
    with path.open("wb") as stream, progress_bar("write", int(gigabytes * 1e9), "B") as bar:
        while stream.tell() < gigabytes * 1e9:
            frame = lines.replace(SALT.encode(), generator.bytes(4).hex().encode())
            raw += len(frame)
            bar.update(stream.write(codec.compress(frame, asbytes=True)))
    return raw


def run(what: str, path: Path) -> dict[str, float]:
    """Sample or decompress in this process; return seconds, the peak of its resident memory in MB, and MB of text."""
    import pyarrow.parquet  # noqa: F401  (not to be timed)

    source = FilesSource(kind="files", path=path.name)
    start = time.perf_counter()
    with no_progress_bars():
        if what == "sample":
            sampled = sample_sources(
                [source], root=path.parent, downloads=path.parent, limit_bytes=SAMPLED_BYTES, seed=SEED
            )
            size = sum(len(text.encode()) for text in sampled.texts)
        else:
            with progress_bar("decompress", None, "B") as bar:
                size = sum(map(len, read_blocks(path, bar)))
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak_megabytes": peak_bytes() / 1e6,
        "text_megabytes": size / 1e6,
    }


def main() -> None:
    """Run the benchmark and print its table and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="compressed size of the file")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(arguments.run[0], Path(arguments.run[1]))))
        return
    print(machine("numpy", "pyarrow"))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "domain.jsonl.zst"
        raw = write_file(path, arguments.gigabytes)
        print(f"{path.stat().st_size / 1e9:.2f} GB compressed, {raw / 1e9:.2f} GB of JSON lines")
        found: dict[str, list[dict[str, float]]] = {"decompress": [], "sample": []}
        for _ in range(arguments.repetitions):
            for what, results in found.items():
                results.append(run_alone(__file__, "--run", what, str(path)))
    report(found)


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Print both, and the figures."""
    rows = [
        [
            what,
            *(spread([result[key] for result in results]) for key in ("seconds", "peak_megabytes", "text_megabytes")),
        ]
        for what, results in found.items()
    ]
    print_table(["", "seconds: median (range)", "peak MB", "MB of text"], rows)
    pairs = zip(found["sample"], found["decompress"], strict=True)
    figures = {
        "seconds": statistics.median(result["seconds"] for result in found["sample"]),
        "peak_megabytes": max(result["peak_megabytes"] for result in found["sample"]),
        "over_decompression": statistics.median(one["seconds"] / other["seconds"] for one, other in pairs),
    }
    print_figures(figures)


if __name__ == "__main__":
    main()
