"""Does influence predict at a checkpoint that nobody here trained? Branches of SmolLM2-135M against its influence.

    python examples/smollm2.py smollm2
    kedro run --env smollm2 --pipelines corpus
    make bench NAME=validate_pretrained

Stages, each of which keeps what it has made and goes on where it was stopped:

- `branches`: per replicate the uniform mixture w, and (1 - step) w + step e_j for each domain j; the models are saved,
  so that they can be scored in any way;
- `scores`: each on the tasks' evaluation halves: whole items, answers given the questions, and -log of the probability
  of the right option among the options, by their bits per byte;
- `gradients`, `predictions`: influence on whole items and on answers, of the query halves, by every candidate;
- `table`: agreement per kind of loss with the noise ceiling of two replicates (`influence.agreement`).

Three hours of one core, most of them branches. The last line is one JSON object of named figures.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from common import machine, print_figures, print_table
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.build import evaluation_choices
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import ChoiceItem, Item, TaskItems, item_batches, tokenise_items
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer, load_tokenizer
from tikmix_pipeline.files import read_json, replacing, write_json
from tikmix_pipeline.influence.agreement import BASELINE, MEAN_GAIN, MEAN_OF_TASKS, compared_rows, raised
from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
from tikmix_pipeline.influence.counterfactual import counterfactual_mixtures
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.samples import MeasuredText
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.branch_pool import train_branch, windows_in_reach
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.evaluation import text_losses
from tikmix_pipeline.lm.loss import token_losses
from tikmix_pipeline.lm.model import load_model
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import CorpusParameters, InfluenceParameters, TrainParameters
from tikmix_pipeline.parameters.training import LoadParameters, StepParameters

REPOSITORY = Path(__file__).resolve().parents[1]
STEP, STEPS, BATCH, CONTEXT, RATE = 0.5, 20, 8, 128, 2e-4
SCORED_ITEMS, MEASURED_ITEMS, TOKENS, FACTOR_TOKENS = 48, 48, 8192, 8192
CANDIDATES: dict[str, dict[str, Any]] = {
    "identity": {"curvature": "identity"},
    "kfac true": {"curvature": "kfac", "fisher": "true", "damping": 0.1},
    "kfac empirical": {"curvature": "kfac", "fisher": "empirical", "damping": 0.1},
}
KINDS = ("text", "answer", "choice")


class Validation:
    """One checkpoint, its corpus and the folder that everything is kept in."""

    def __init__(self, folder: Path, checkpoint: Path, corpus: Path, replicates: int, choice_items: int) -> None:
        self.folder, self.checkpoint, self.replicates, self.choice_items = folder, checkpoint, replicates, choice_items
        self.shards = TokenShards.open(corpus, verify=False)
        self.uniform = dict.fromkeys(self.shards.domains, 1 / len(self.shards.domains))
        self.mixtures = counterfactual_mixtures(self.uniform, STEP)

    def branches(self) -> None:
        """Train whatever is not there yet, replicate by replicate."""
        train = TrainParameters(
            batch_size=BATCH, micro_batch_size=4, context=CONTEXT, learning_rate=RATE, warmup_tokens=0, decay_tokens=0
        ).narrowed(StepParameters)
        # the rate falls linearly to zero
        schedule = Schedule(
            chunk_steps=STEPS, total_steps=STEPS + 1, warmup_steps=0, decay_steps=STEPS + 1, final_fraction=0.0
        )
        reach = windows_in_reach(self.mixtures.values(), steps=STEPS, batch_size=BATCH)
        for replicate in range(self.replicates):
            for name, mixture in self.mixtures.items():
                folder = self.folder / f"replicate-{replicate}" / name
                if folder.is_dir():
                    continue
                start = time.perf_counter()
                state = train_branch(
                    Checkpoint(self.checkpoint),
                    self.shards,
                    mixture,
                    steps=STEPS,
                    replicate=replicate,
                    reach=reach,
                    model=LoadParameters(),
                    train=train,
                    schedule=schedule,
                    seed=0,
                    description=f"{name} {replicate}",
                )
                with replacing(folder) as temporary:
                    state.model.save_pretrained(temporary)
                print(f"{name} {replicate}: {time.perf_counter() - start:.0f} s", flush=True)

    def scores(self) -> None:
        """Score every branch that is there."""
        for folder in sorted(self.folder.glob("replicate-*/*/")):
            path = folder / "scores.json"
            if not path.is_file():
                write_json(path, self._scores_of(folder))
                print(f"scored {folder.parent.name} {folder.name}", flush=True)

    def _scores_of(self, folder: Path) -> dict[str, dict[str, float]]:
        model = load_model(folder, LoadParameters()).eval()
        tasks = TaskItems.open(self.shards.tasks_file)
        texts = {
            (kind, task): item_batches(
                tasks.items(task, "evaluation", SCORED_ITEMS), context=CONTEXT, batch_size=32, loss=kind, pad_id=0
            )
            for task in tasks.tasks
            for kind in ("text", "answer")
        }
        losses = text_losses(model, texts, device="cpu")
        scores = {
            task: {kind: losses[kind, task].nats / losses[kind, task].tokens for kind in ("text", "answer")}
            for task in tasks.tasks
        }
        for task, choices in self._choices().items():
            scores[task]["choice"] = right_choice(model, choices, load_tokenizer(self.checkpoint))
        return scores

    def _choices(self) -> dict[str, list[ChoiceItem]]:
        base = yaml.safe_load((REPOSITORY / "conf" / "base" / "parameters_corpus.yml").read_text(encoding="utf-8"))
        corpus = CorpusParameters.model_validate(base["corpus"])
        if not self.choice_items:
            return {}
        found = evaluation_choices(corpus, root=REPOSITORY, downloads=REPOSITORY / "data" / "01_raw")
        return {task: choices[: self.choice_items] for task, choices in found.items()}

    def gradients(self) -> None:
        """Measure whole items and answers of the query halves, and the domains, once for all candidates."""
        text = self._text()
        answers = text.parameters.model_copy(update={"task_loss": "answer"})
        sets = {f"text/{task}": chunks for task, chunks in text.target_chunks().items()}
        sets |= {f"answer/{t}": chunks for t, chunks in replace(text, parameters=answers).target_chunks().items()}
        store = GradientStore(self.folder / "gradients", precision="bfloat16")
        key = measurement_key(text.model, "validation")
        collect_gradients(text.model, {"task": sets, "domain": text.domain_chunks()}, store, key=key)
        for fisher in ("true", "empirical"):
            path = self.folder / f"factors-{fisher}"
            if not path.is_dir():
                fit_factors(
                    text.model,
                    text.factor_batches(),
                    kind="kfac",
                    fisher=fisher,
                    seed=0,
                    groups=InfluenceParameters().groups,
                ).save(path)

    def predictions(self) -> None:
        """Multiply the gradients as every candidate does; keep effects of more of each domain, in its own unit."""
        store, outline = GradientStore(self.folder / "gradients"), Checkpoint(self.checkpoint).outline(LoadParameters())
        for name, settings in CANDIDATES.items():
            path = self.folder / "predictions" / f"{name}.json"
            if path.is_file():
                continue
            influence = InfluenceParameters.model_validate(settings)
            factors = Factors.load(self.folder / f"factors-{influence.fisher}") if influence.needs_factors else None
            curvature = build_curvature(
                influence,
                outline,
                factors=factors,
                optimizer_state={},
                train=TrainParameters(),
                horizon=None,
                device=torch.device("cpu"),
            )
            found = group_influence(store, curvature, reference=self.uniform, memory_megabytes=500)
            rows = dict(zip(found.tasks, found.effect_TK.tolist(), strict=True))
            errors = dict(zip(found.tasks, found.effect_stderr_TK.tolist(), strict=True))
            write_json(path, {"domains": list(found.domains), "effects": rows, "stderr": errors})

    def table(self) -> dict[str, float]:
        """Print agreement by kind of loss and candidate; return the figures."""
        figures: dict[str, float] = {}
        for kind in KINDS:
            tasks, gains_RTK = self._gains(kind)
            if not tasks:
                continue
            predicted = {name: self._predicted(name, kind, tasks) for name in CANDIDATES}
            rows = compared_rows(gains_RTK, predicted, tasks, seed=0)
            shown = [row for row in rows if row["task"] in (MEAN_OF_TASKS, MEAN_GAIN)]
            print(f"\n{kind}: {len(gains_RTK)} replicates, {len(tasks)} tasks")
            print_table(
                ["candidate", "over", "Spearman", "Pearson", "ceiling", "slope"],
                [
                    [
                        row["curvature"],
                        row["task"],
                        *(f"{row[name]:.3g}" for name in ("spearman", "pearson", "ceiling", "slope")),
                    ]
                    for row in shown
                ],
            )
            for row in shown:
                if row["task"] == MEAN_OF_TASKS:
                    figures[f"{kind}_{row['curvature'].replace(' ', '_')}_spearman"] = row["spearman"]
                    figures[f"{kind}_ceiling"] = row["ceiling"]
        return figures

    def _text(self) -> MeasuredText[InfluenceParameters]:
        influence = InfluenceParameters(
            tokens=TOKENS, items_per_task=MEASURED_ITEMS, factor_tokens=FACTOR_TOKENS, batch_size=4
        )
        train = TrainParameters(batch_size=BATCH, context=CONTEXT)
        return MeasuredText.open(Checkpoint(self.checkpoint), self.shards, LoadParameters(), train, influence, seed=0)

    def _gains(self, kind: str) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Return the tasks that have such a loss, and gains (R, T, K) of the replicates that are whole."""
        whole = [
            {name: read_json(folder / name / "scores.json") for name in self.mixtures}
            for folder in sorted(self.folder.glob("replicate-*/"))
            if all((folder / name / "scores.json").is_file() for name in self.mixtures)
        ]
        tasks = [task for task, scores in whole[0][BASELINE].items() if kind in scores]
        gains = [
            [[one[BASELINE][task][kind] - one[raised(domain)][task][kind] for domain in self.uniform] for task in tasks]
            for one in whole
        ]
        return tasks, np.array(gains)

    def _predicted(self, candidate: str, kind: str, tasks: list[str]) -> npt.NDArray[np.float64]:
        """Return effects (T, K); the probability of the right choice is predicted by the loss of the answer."""
        found = read_json(self.folder / "predictions" / f"{candidate}.json")
        order = [found["domains"].index(domain) for domain in self.uniform]
        loss = "answer" if kind == "choice" else kind
        return np.array([[found["effects"][f"{loss}/{task}"][k] for k in order] for task in tasks])


def right_choice(model: torch.nn.Module, choices: Sequence[ChoiceItem], tokenizer: CorpusTokenizer) -> float:
    """Return the mean of -log softmax over an item's options of their log-probability per byte, at the right one."""
    asked = [
        (number, Item(one.item.question, option, one.item.passage))
        for number, one in enumerate(choices)
        for option in one.options
    ]
    tokenised = tokenise_items([item for _, item in asked], tokenizer)
    order = sorted(range(len(asked)), key=lambda i: len(tokenised[i].question_ids) + len(tokenised[i].answer_ids))
    nats: list[float] = []
    ordered = [tokenised[i] for i in order]
    for batch in item_batches(ordered, context=CONTEXT, batch_size=16, loss="answer", pad_id=0):
        with torch.no_grad():
            nats += [
                loss_N.sum().item() for loss_N in token_losses(model, [alone(batch, row) for row in range(len(batch))])
            ]
    per_byte = dict(zip(order, (n / item.answer_bytes for n, item in zip(nats, ordered, strict=True)), strict=True))
    losses = []
    for number, one in enumerate(choices):
        scores = np.array([-per_byte[i] for i, (of, _) in enumerate(asked) if of == number])
        losses.append(float(np.logaddexp.reduce(scores) - scores[one.gold]))
    return float(np.mean(losses))


def alone(batch: TokenBatch, row: int) -> TokenBatch:
    """Let one sequence of a batch carry loss."""
    loss_BS = np.zeros_like(batch.loss_BS)
    loss_BS[row] = batch.loss_BS[row]
    return TokenBatch(batch.tokens_BS, loss_BS)


def main() -> None:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(description="Validate influence at SmolLM2-135M.")
    default = REPOSITORY / "data" / "05_model_input" / "smollm2-validation"
    parser.add_argument("folder", type=Path, nargs="?", default=default)
    parser.add_argument("--checkpoint", type=Path, default=REPOSITORY / "smollm2")
    parser.add_argument("--corpus", type=Path, default=REPOSITORY / "data" / "03_primary" / "smollm2")
    parser.add_argument("--replicates", type=int, default=2)
    parser.add_argument(
        "--choice-items", type=int, default=12, help="per task, whose options are all scored; or none: 0"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stages", nargs="+", default=["branches", "scores", "gradients", "predictions", "table"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine("torch", "transformers"))
    validation = Validation(
        arguments.folder, arguments.checkpoint, arguments.corpus, arguments.replicates, arguments.choice_items
    )
    for stage in arguments.stages:
        figures = getattr(validation, stage)()
        if figures:
            print_figures(figures)


if __name__ == "__main__":
    main()
