"""Schedules to export, and how the golden files are written anew: `python tests/export/export_examples.py`."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tikmix_pipeline.export.registry import TRAINERS, write
from tikmix_pipeline.export.schedule import Domain, Gain, Phase, Schedule

GOLDEN = Path(__file__).parent / "golden"
BATCH = 8192
CONTEXT = 256


def example_domains() -> list[Domain]:
    return [
        Domain("web", "data/web_text", 1e9, 800.0, 7_645_867),
        Domain("code", "data/code_text", 5e8, 300.0, 5_188_267, max_epochs=4),
        Domain("books", "data/books_text", 1e6, 9000.0, 819_200),
        Domain("mail", "data/mail_text", None, 100.0, 2_730_666),
    ]


def example_schedule(**changes: Any) -> Schedule:
    """Three phases of 1,000 steps; the second has no books, and the third little mail."""
    attributes: dict[str, Any] = {
        "phases": [
            Phase(0, 0, {"web": 0.6, "code": 0.3, "books": 0.1, "mail": 0.0}),
            Phase(1000, 1000 * BATCH, {"web": 1 / 3, "code": 1 / 3, "books": 0.0, "mail": 1 / 3}),
            Phase(2000, 2000 * BATCH, {"web": 0.5, "code": 0.29995, "books": 0.2, "mail": 0.00005}),
        ],
        "domains": example_domains(),
        "batch_tokens": BATCH,
        "context": CONTEXT,
        "chunk_tokens": 1000 * BATCH,
        "experiment": "spring",
        "round": 2,
        "epochs": {"web": 0.0117, "code": 0.0153, "books": 2.46},
        "expected_gain": {"recall": Gain(0.0123, 0.002), "rhyme": Gain(-0.001, None)},
        "gain_unit": "share of the best possible",
    }
    return Schedule(**(attributes | changes))


def one_phase(weights: dict[str, float], domains: list[Domain] | None = None, **changes: Any) -> Schedule:
    """A schedule of one phase over domains that are named like their weights."""
    made = [Domain(name, f"data/{name}", None, None) for name in weights]
    bare = {"epochs": {}, "expected_gain": {}, "phases": [Phase(0, 0, weights)], "domains": domains or made}
    return example_schedule(**(bare | changes))


@st.composite
def schedules(draw: st.DrawFn, most_domains: int = 12) -> Schedule:
    """Runs of one to four phases with mixtures of any kind, many of their weights 0."""
    size = draw(st.integers(1, most_domains))
    names = draw(st.permutations([f"domain {k}" if k % 3 == 0 else f"domain_{k}" for k in range(size)]))
    lengths = draw(st.lists(st.integers(20, 400), min_size=1, max_size=4))
    starts = [0, *np.cumsum(lengths).tolist()][: len(lengths)]
    parts = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))
    phases = []
    for start in starts:
        raw = draw(st.lists(parts, min_size=size, max_size=size).filter(lambda raw: sum(raw) > 1e-3))
        weights = dict(zip(names, (np.array(raw) / sum(raw)).tolist(), strict=True))
        phases.append(Phase(start, start * BATCH, weights))
    means = draw(st.lists(st.floats(20, 20_000), min_size=size, max_size=size))
    domains = [
        Domain(name, f"data/{name.replace(' ', '-')}_text", 1e8, mean, 1000)
        for name, mean in zip(names, means, strict=True)
    ]
    return example_schedule(
        phases=phases, domains=domains, chunk_tokens=lengths[-1] * BATCH, epochs={}, expected_gain={}
    )


if __name__ == "__main__":
    for trainer in TRAINERS:
        for name, text in write(trainer, example_schedule()).files.items():
            (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
