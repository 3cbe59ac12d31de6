"""Surfaces: what many mixtures really do from one checkpoint, beside what was measured there without training.

    python benchmarks/surfaces.py FOLDER --corpora default --presets llama-tiny --seeds 0 --rounds 0

trains a run in FOLDER up to the end of each round and, from that checkpoint, a branch as long as a chunk under each of
48 mixtures of RegMix's design around the prior, and under mixtures that methods decide there. What comes out is kept
under benchmarks/surfaces/<corpus>-<model>-seed<seed>-round<round>:

- `branches.csv`: a row per branch: its mixture (`weight/<domain>`) and its losses in nats per token, on items of the
  tasks' two halves (`query/<task>`, `evaluation/<task>`) and on held-out text (`heldout/<domain>`);
- `chunks.csv`: products of gradient chunks through the run's own curvature: `influence` of domains on tasks, and of
  the domains with each other `linear` (D) and `curved` (Q), as `influence.between_domains` has them;
- `products.csv`: the same, averaged, for other curvatures and dampings;
- `made.json`: what made them.

A surface takes half an hour of two cores and more. It goes on where it was stopped, while FOLDER is there; one that is
finished is not touched. `benchmarks/response.py` holds predictions against all that are there.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import machine
from project import REPOSITORY, kedro_run, scratch_project
from response import DECIDED, FloatArray, best_mixture

SURFACES = REPOSITORY / "benchmarks" / "surfaces"
QUERY_ITEMS, EVALUATION_ITEMS, HELDOUT_WINDOWS = 200, 400, 48
MIXTURES, AT_ONCE = 48, 8
CURVATURES: dict[str, dict[str, Any]] = {
    "identity": {"curvature": "identity"},
    "kfac 0.01": {"damping": 0.01},
    "kfac 0.03": {"damping": 0.03},
    "kfac 0.1": {"damping": 0.1},
    "kfac 0.3": {"damping": 0.3},
    "kfac 1": {"damping": 1.0},
    "horizon 1": {"inverse": "horizon", "damping_unit": "horizon", "damping": 1.0},
    "horizon 0.1": {"inverse": "horizon", "damping_unit": "horizon", "damping": 0.1},
}
MAIN = "kfac 0.1"


def main() -> None:
    """Make every surface that is asked for and not there."""
    parser = argparse.ArgumentParser(description="Train branches under many mixtures from checkpoints of runs.")
    parser.add_argument("folder", type=Path, help="of the runs; kept between calls")
    parser.add_argument("--corpora", nargs="+", default=["default", "extended"])
    parser.add_argument("--presets", nargs="+", default=["llama-tiny", "llama-1m"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    runs = itertools.product(arguments.presets, arguments.corpora, arguments.seeds, arguments.rounds)
    for preset, corpus, seed, number in runs:
        name = f"{corpus}-{preset}-seed{seed}-round{number}"
        if (SURFACES / name / "made.json").is_file():
            continue
        project = scratch_project(arguments.folder / f"{corpus}-{preset}-seed{seed}")
        told = {"experiment": corpus, "model.preset": preset, "seed": seed, "influence.gradients": "keep"}
        told["optimize.method"] = "paper"  # what every surface has a branch of, and later rounds are trained under
        if not (project / f"data/07_model_output/{corpus}/round_{number}/decision.json").is_file():
            train_to(project, corpus, told, max(arguments.rounds))
        command = f"python benchmarks/surfaces.py FOLDER --corpora {corpus} --presets {preset}"
        Surface(project, corpus, told, number).make(
            SURFACES / name, f"{command} --seeds {seed} --rounds {number}", arguments.folder / name
        )
        print(f"{name} is made.", flush=True)


def train_to(project: Path, environment: str, told: Mapping[str, Any], number: int) -> None:
    """Train and decide up to the end of a round."""
    params = ",".join(f"{name}={value}" for name, value in told.items())
    options = ["--env", environment] if environment != "default" else []
    outputs = f"round_{number}_decision"
    run = kedro_run(project, *options, "--to-outputs", outputs, "--params", params)
    if run.wait():
        raise SystemExit(f"The run in {project} failed.")


class Surface:
    """One checkpoint of a run, and the branches from it."""

    def __init__(self, project: Path, environment: str, told: Mapping[str, Any], number: int) -> None:
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        from tikmix_pipeline.pipelines.names import of_round
        from tikmix_pipeline.run import current_run

        bootstrap_project(project)
        nested: dict[str, Any] = {}
        for name, value in told.items():
            group, _, key = name.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[key] = value
        environment_name = environment if environment != "default" else None
        with KedroSession.create(project, env=environment_name, runtime_params=nested) as session:
            session.load_context()
        self.number, self.run, self.parameters = number, current_run(), current_run().parameters
        self.budget, self.prior, self.decision, self.checkpoint, self.gradients = (
            self.run.load(of_round(n, name))
            for n, name in (
                (number, "token_budget"),
                (0, "mixture"),
                (number, "decision"),
                (number, "checkpoint"),
                (number, "gradients"),
            )
        )
        self.factors = self.run.load(of_round(number, "factors"))
        self.shards = self.run.load("corpus")
        self.domains = tuple(self.shards.domains)

    def make(self, folder: Path, command: str, work: Path) -> None:
        """Write all files of the surface; `made.json` last."""
        folder.mkdir(parents=True, exist_ok=True)
        products = self.write_products(folder)
        mixtures = self.mixtures(*products)
        rows: list[dict[str, Any]] = []
        for first in range(0, len(mixtures), AT_ONCE):
            names = list(mixtures)[first : first + AT_ONCE]
            rows += self.branches({name: mixtures[name] for name in names}, mixtures, work)
            write_csv(folder / "branches.csv", rows)
        made = {
            "command": command,
            "commit": git("rev-parse", "--short", "HEAD"),
            "machine": machine("torch"),
            "branch_steps": self.parameters.train.steps_per_chunk,
            "tokens_per_step": self.parameters.train.tokens_per_step,
            "learning_rate": self.parameters.train.learning_rate,
            "anneal": True,
            "steps_before": self.checkpoint.step,
        }
        (folder / "made.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")

    def write_products(self, folder: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Write the products of every curvature; return S, D and Q of the run's own."""
        import torch

        from tikmix_pipeline.influence.between_domains import domain_products, of_domains
        from tikmix_pipeline.influence.curvature.build import build_curvature
        from tikmix_pipeline.influence.group import group_influence
        from tikmix_pipeline.parameters import InfluenceParameters
        from tikmix_pipeline.pipelines.views import branch_horizon

        outline = self.checkpoint.model(self.parameters.model)
        train = self.parameters.train
        horizon = branch_horizon(self.run, self.number, steps=train.steps_per_chunk, anneal=True)
        rows: list[dict[str, Any]] = []
        main: tuple[FloatArray, FloatArray, FloatArray] | None = None
        for label, settings in CURVATURES.items():
            told = self.parameters.influence.model_dump() | settings
            curvature = build_curvature(
                InfluenceParameters.model_validate(told),
                outline,
                factors=self.factors if told["curvature"] == "kfac" else None,
                optimizer_state={},
                train=train,
                horizon=horizon,
            )
            found = group_influence(self.gradients, curvature)
            between = domain_products(self.gradients, curvature, memory_megabytes=1000, device=torch.device("cpu"))
            tokens_KL = found.domain_tokens_KL
            linear_KK, linear_error_KK = of_domains(between.linear_KLKL, tokens_KL)
            curved_KK, curved_error_KK = of_domains(between.curved_KLKL, tokens_KL)
            means = {
                "influence": (found.tasks, found.influence_TK),
                "influence error": (found.tasks, found.stderr_TK),
                "linear": (self.domains, linear_KK),
                "linear error": (self.domains, linear_error_KK),
                "curved": (self.domains, curved_KK),
                "curved error": (self.domains, curved_error_KK),
            }
            for kind, (names, values) in means.items():
                rows += table_rows({"curvature": label, "kind": kind}, names, self.domains, values)
            if label == MAIN:
                main = found.influence_TK, linear_KK, curved_KK
                self._write_chunks(folder, found, between)
        write_csv(folder / "products.csv", rows)
        assert main is not None
        return main

    def _write_chunks(self, folder: Path, found: Any, between: Any) -> None:
        count = found.products_TMKL.shape[3]
        columns = [f"{domain}:{chunk}" for domain in self.domains for chunk in range(count)]
        tasks = [f"{task}:{chunk}" for task in found.tasks for chunk in range(found.products_TMKL.shape[1])]
        rows = table_rows({"kind": "tokens"}, ["domains"], columns, found.domain_tokens_KL.reshape(1, -1))
        rows += table_rows({"kind": "influence"}, tasks, columns, found.products_TMKL.reshape(len(tasks), -1))
        for kind, values in (("linear", between.linear_KLKL), ("curved", between.curved_KLKL)):
            rows += table_rows({"kind": kind}, columns, columns, values.reshape(len(columns), -1))
        write_csv(folder / "chunks.csv", rows)

    def mixtures(self, influence_TK: FloatArray, linear_KK: FloatArray, curved_KK: FloatArray) -> dict[str, FloatArray]:
        """Return the mixtures of all branches: what methods decide, and RegMix's design around the prior."""
        from tikmix_pipeline.mixture.simplex import check_mixture
        from tikmix_pipeline.mixture.sweep.design import dirichlet

        sweep = self.parameters.sweep
        bounds = self.budget.bounds(self.parameters.optimize)
        prior_K = check_mixture(self.prior.weights, self.domains, "the prior")
        found = {
            "prior": prior_K,
            "uniform": bounds.project(np.full(len(self.domains), 1 / len(self.domains))),
            "paper": check_mixture(self.decision.weights, self.domains, "the decision"),
            "ngram": self._ngram(bounds),
        }
        for name, (r, guard) in DECIDED.items():
            found[name] = best_mixture(influence_TK, linear_KK, curved_KK, r=r, guard=guard, box=bounds.box())
        design = dirichlet(
            prior_K,
            count=MIXTURES,
            min_strength=sweep.min_strength,
            max_strength=sweep.max_strength,
            max_ratio=sweep.max_ratio,
            bounds=bounds,
            seed=self.parameters.seed,
        )
        return found | {f"design {number:02d}": weights_K for number, weights_K in enumerate(design.weights_NK)}

    def _ngram(self, bounds: Any) -> FloatArray:
        from tikmix_pipeline.baselines.ngram import ngram
        from tikmix_pipeline.influence.counterfactual import scored_texts

        context = self.parameters.train.context
        texts = scored_texts(self.shards, self.parameters.influence, items=None, context=context, halves=("query",))
        found = ngram(self.shards, texts, parameters=self.parameters.baselines.ngram, bounds=bounds)
        return np.array([found.weights[domain] for domain in self.domains])

    def branches(
        self, mixtures: Mapping[str, FloatArray], reach: Mapping[str, FloatArray], work: Path
    ) -> Iterator[dict[str, Any]]:
        """Train and score branches; yield a row of each that came through."""
        from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, run_branches
        from tikmix_pipeline.parameters.training import LoadParameters, StepParameters
        from tikmix_pipeline.pipelines.views import branch_schedule

        train, steps = self.parameters.train, self.parameters.train.steps_per_chunk
        setting = BranchSetting(
            checkpoint=self.checkpoint.folder,
            shards=self.shards.folder,
            steps=steps,
            model=self.parameters.model.narrowed(LoadParameters),
            train=train.narrowed(StepParameters),
            schedule=branch_schedule(self.run, self.number, steps=steps, anneal=True),
            seed=self.parameters.seed,
        )
        named = {name: dict(zip(self.domains, map(float, weights), strict=True)) for name, weights in mixtures.items()}
        branches = [Branch(name, mixture) for name, mixture in named.items()]
        for result in run_branches(setting, branches, self._texts(), folder=work, key="surface"):
            losses = {text: round(loss.nats / loss.tokens, 6) for text, loss in result.losses.items()}
            weights = {f"weight/{name}": round(share, 6) for name, share in result.branch.mixture.items()}
            yield {"branch": result.branch.name} | weights | losses

    def _texts(self) -> dict[str, Any]:
        from tikmix_pipeline.corpus.batches import batches_of
        from tikmix_pipeline.influence.counterfactual import scored_texts

        influence, context = self.parameters.influence, self.parameters.train.context
        texts: dict[str, Any] = {}
        for half, items in (("query", QUERY_ITEMS), ("evaluation", EVALUATION_ITEMS)):
            texts |= scored_texts(self.shards, influence, items=items, context=context, halves=(half,))
        for domain in self.domains:
            windows = self.shards.windows(domain, context, "heldout")
            texts[f"heldout/{domain}"] = batches_of(windows.take(np.arange(min(len(windows), HELDOUT_WINDOWS))), 32)
        return texts


def table_rows(
    labels: Mapping[str, str], names: Sequence[str], columns: Sequence[str], values: FloatArray
) -> list[dict[str, Any]]:
    """Return the rows of a matrix as rows of a table, six digits of each number."""
    return [
        {**labels, "row": name, **{column: f"{value:.6g}" for column, value in zip(columns, row, strict=True)}}
        for name, row in zip(names, values, strict=True)
    ]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def git(*arguments: str) -> str:
    """Return what a git command prints."""
    return subprocess.run(
        ["git", "-C", REPOSITORY, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
