"""What do branches shorter than a chunk tell of a chunk, with and without less text for them to read?

    python benchmarks/branch_length.py FOLDER --corpora default extended --seeds 0

trains round 0 of a run in FOLDER, and from its checkpoint branches under `MIXTURES` mixtures of RegMix's design: as
long as a chunk, and at each of `SHARES` of that, once from the same share of every domain's text
(`sweep.branch_tokens`) and once from all of it. A row says how the short branches' gains over the prior, in nats per
token on the mean of the tasks, stand to those of the whole ones: Spearman, the slope through 0, and the root mean
square of what the slope leaves. It goes on where it was stopped, while FOLDER is there. The last line is one JSON
object, means of all runs.

Axes: N mixtures.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from common import print_figures, print_table
from project import kedro_run, scratch_project

MIXTURES, SHARES, ITEMS = 14, (0.5, 0.25), 400


def main() -> None:
    """Train what is missing, and print a row per run and kind of short branch."""
    parser = argparse.ArgumentParser(description="Hold short branches against those as long as a chunk.")
    parser.add_argument("folder", type=Path, help="of the runs; kept between calls")
    parser.add_argument("--corpora", nargs="+", default=["default", "extended"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for corpus, seed in itertools.product(arguments.corpora, arguments.seeds):
        project = scratch_project(arguments.folder / f"{corpus}-seed{seed}")
        rows += [{"run": f"{corpus}, seed {seed}", **row} for row in _rows(project, corpus, seed)]
    figures = [name for name in rows[0] if name not in ("run", "branch")]
    print_table(list(rows[0]), [[row["run"], row["branch"], *(f"{row[f]:.3f}" for f in figures)] for row in rows])
    kinds = {row["branch"] for row in rows}
    print_figures(
        {
            f"{kind} {f}": float(np.mean([row[f] for row in rows if row["branch"] == kind]))
            for kind in sorted(kinds)
            for f in figures
        }
    )


def _rows(project: Path, corpus: str, seed: int) -> Iterator[dict[str, Any]]:
    trained = project / f"data/06_models/{corpus}/round_0"
    if not trained.is_dir():
        options = ["--env", corpus] if corpus != "default" else []
        told = f"experiment={corpus},model.preset=llama-tiny,seed={seed}"
        run = kedro_run(project, *options, "--to-outputs", "round_0_checkpoint", "--params", told)
        if run.wait():
            raise SystemExit(f"The run in {project} failed.")
    measure = _Branches(project, corpus, seed)
    whole_N = measure.gains(1.0, 1.0)
    for share, text in itertools.product(SHARES, ("share", "all")):
        gain_N = measure.gains(share, share if text == "share" else 1.0)
        slope = float(gain_N @ whole_N / (gain_N @ gain_N))
        left = float(np.sqrt(np.square(whole_N - slope * gain_N).mean()))
        rank = float(spearmanr(gain_N, whole_N)[0])
        yield {"branch": f"{share:g} of {text}", "spearman": rank, "slope": slope, "left": left}


class _Branches:
    """Branches of one checkpoint, under the prior and mixtures around it."""

    def __init__(self, project: Path, environment: str, seed: int) -> None:
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        from tikmix_pipeline.pipelines.names import of_round
        from tikmix_pipeline.run import current_run

        bootstrap_project(project)
        told = {"experiment": environment, "model": {"preset": "llama-tiny"}, "seed": seed}
        name = environment if environment != "default" else None
        with KedroSession.create(project, env=name, runtime_params=told) as session:
            session.load_context()
        self.run, self.work = current_run(), project / "branches"
        self.checkpoint, self.shards = (self.run.load(name) for name in (of_round(0, "checkpoint"), "corpus"))
        self.mixtures = self._mixtures(self.run.load(of_round(0, "mixture")).weights)

    def _mixtures(self, prior: Mapping[str, float]) -> dict[str, dict[str, float]]:
        from tikmix_pipeline.mixture.bounds import Bounds
        from tikmix_pipeline.mixture.sweep.design import dirichlet

        domains, own = list(prior), self.run.parameters.sweep
        design = dirichlet(
            np.array([*prior.values()]),
            count=MIXTURES,
            min_strength=own.min_strength,
            max_strength=own.max_strength,
            max_ratio=own.max_ratio,
            bounds=Bounds.simplex(domains),
            seed=self.run.parameters.seed,
        )
        # the prior is the first of a design
        return {f"{n:02d}": dict(zip(domains, w_K.tolist(), strict=True)) for n, w_K in enumerate(design.weights_NK)}

    def gains(self, length: float, text: float) -> "np.typing.NDArray[np.float64]":
        """Return the gains over the prior of branches of this share of a chunk's steps and of every domain's text."""
        from tikmix_pipeline.influence.counterfactual import scored_texts
        from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, losses_by_text, run_branches
        from tikmix_pipeline.parameters.training import LoadParameters, StepParameters
        from tikmix_pipeline.pipelines.views import branch_schedule

        parameters = self.run.parameters
        steps = round(length * parameters.train.steps_per_chunk)
        setting = BranchSetting(
            checkpoint=self.checkpoint.folder,
            shards=self.shards.folder,
            steps=steps,
            model=parameters.model.narrowed(LoadParameters),
            train=parameters.train.narrowed(StepParameters),
            schedule=branch_schedule(self.run, 0, steps=steps, anneal=True),
            seed=parameters.seed,
            share=text,
        )
        context = parameters.train.context
        texts = scored_texts(self.shards, parameters.influence, items=ITEMS, context=context, halves=("query",))
        branches = [Branch(name, mixture) for name, mixture in self.mixtures.items()]
        results = run_branches(setting, branches, texts, folder=self.work, key="length")
        loss_N = np.array([np.mean(losses) for losses in losses_by_text(results, list(texts)).values()])
        gain_N: np.typing.NDArray[np.float64] = loss_N[0] - loss_N[1:]
        return gain_N


if __name__ == "__main__":
    main()
