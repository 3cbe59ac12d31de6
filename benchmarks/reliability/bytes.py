"""Every file of a finished experiment with a bit flipped, cut off, or from another experiment, and then used again.

    make bench NAME=reliability/bytes
    python benchmarks/reliability/bytes.py --each 3 --folder FOLDER

For every file that the loop has left, records and the corpus's included: one bit is flipped at a random place, the
file is cut at a random length, or the same file of an experiment with another seed is put in its place. Where
gradients, or what a fit of the curvature began with, were damaged, what was made from them is removed, since a finished
run would not look at them. Then the loop is started again, up to three times if it is refused.

A trial has held if no start ended with a traceback, the last one came through, and what is on disk is what was there,
bit for bit. Gradients of domains and factors of the curvature are first made in one pass through the text, and one of
both that is made again differs by rounding: there it is enough that the damaged file is gone and influence is the same
to a hundred-thousandth. Each file is tried `--each` times (1: a kind by turns; 3: all kinds). Figures: `tried`, `held`,
`failed`.
"""

import dataclasses
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from campaign import PIPELINES, Trials, copy_of, differing, digests, new_project, options, run
from served import preload, serve

from tikmix_pipeline.files import sha256_of_file

KINDS = ("flipped", "cut", "swapped")
LOOP = PIPELINES["tikmix"]
REFUSALS = 3
ROUNDED = re.compile(r"/(factors|gradients|factors\.progress)(/|\.recipe)")
"""What one pass through the text makes together, and what differs by rounding where one of both is made again."""
MADE_FROM_GRADIENTS = (
    *("influence.parquet", "part_influence.parquet", "spread.json", "measurement.json", "domain_products.parquet"),
)


def damage(file: Path, kind: str, other: Path, seed: str) -> bool:
    """Damage a file; tell whether that was possible."""
    content = bytearray(file.read_bytes())
    generator = random.Random(seed)  # noqa: S311
    if kind == "swapped":
        if not other.is_file() or other.read_bytes() == bytes(content):
            return False
        shutil.copyfile(other, file)
        return True
    if not content:
        return False
    place = generator.randrange(len(content))
    if kind == "flipped":
        content[place] ^= 1 << generator.randrange(8)
        file.write_bytes(content)
    else:
        file.write_bytes(content[:place])
    return True


def forget_made(project: Path, name: str) -> None:
    """Remove what was made from the file of this name, if a finished run has no look at it any more."""
    found = re.match(r"(.*/round_\d)/(gradients|factors\.progress)(/|\.recipe\.json)", name)
    for made in MADE_FROM_GRADIENTS if found else ():
        (project / "data" / found[1] / made).unlink()
    if found and found[2] == "factors.progress":
        shutil.rmtree(project / "data" / found[1] / "factors")
        (project / "data" / found[1] / "factors.recipe.json").unlink()


def trial(project: Path, finished: Path, name: str, expected: dict[str, str]) -> tuple[int, list[str]]:
    """Use a project again; return how often it was refused, and what is wrong."""
    forget_made(project, name)
    damaged = sha256_of_file(project / "data" / name)
    refused, ended = 0, serve(project, LOOP)
    while ended.code and ended.is_told and refused < REFUSALS:
        refused, ended = refused + 1, serve(project, LOOP)
    if not ended.is_told or ended.code:
        return refused, [f"exit code {ended.code}: {ended.output[-400:]}"]
    unequal = differing(expected, digests(project))
    file = project / "data" / name
    is_gone = not file.exists() or sha256_of_file(file) != damaged
    if is_gone and ROUNDED.search(name) and influence_is_close(project, finished):
        unequal = []
    return refused, [f"other bits: {', '.join(unequal[:4])}"] if unequal else []


def influence_is_close(project: Path, finished: Path) -> bool:
    """Tell whether two projects measured the same influence, but for rounding."""
    one, other = (folder / "data" / "07_model_output" / LOOP.experiment for folder in (project, finished))
    tables = [str(path.relative_to(other)) for path in other.glob("round_*/influence.parquet")]
    return all(
        np.allclose(*(pd.read_parquet(folder / name)["influence"] for folder in (one, other)), rtol=1e-5, atol=0)
        for name in tables
    )


def main() -> None:
    """Damage, use and compare."""
    told = options(__doc__, each=1, at_most=10**6)
    folder = told.folder.resolve() / "bytes"
    finished, other = folder / "finished", folder / "other"
    preload(new_project(folder / "new"))
    for project, seed in ((finished, 0), (other, 1)):
        if not (project / "done").exists():
            copy_of(folder / "new", project)
            loop = dataclasses.replace(LOOP, parameters=f"seed={seed}")
            if run(project, loop).code:
                raise SystemExit(f"the loop failed undisturbed: see {project / 'last.log'}")
            (project / "done").touch()
    expected = digests(finished)
    trials = Trials(folder / "bytes.jsonl")
    data = finished / "data"
    files = [file for file in sorted(data.rglob("*")) if file.is_file() and "01_raw" not in file.parts]
    files = [file for file in files if not file.name.endswith((".lock", ".log")) and file.name != ".gitkeep"]
    random.Random(0).shuffle(files)  # noqa: S311
    for number, file in enumerate(files):
        name = str(file.relative_to(data))
        for turn in range(told.each):
            key = [KINDS[(number + turn) % 3], name]
            if key in trials or len(trials.results) >= told.at_most:
                continue
            project = copy_of(finished, folder / "damaged")
            if not damage(project / "data" / name, key[0], other / "data" / name, name):
                continue
            refused, wrong = trial(project, finished, name, expected)
            trials.add(key, held=not wrong, why="; ".join(wrong) or f"refused {refused} times", refused=refused)
    trials.report(lambda key: key[0])


if __name__ == "__main__":
    main()
