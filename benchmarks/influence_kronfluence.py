"""Group Influence by kronfluence 1.0.1, run by `influence.py` in kronfluence's own environment.

Stages, each for the strategy `ekfac` or `kfac`, with labels sampled from the model, all domain sequences for the
factors, and λ = 0.1 x the mean eigenvalue of each layer (`damping_factor=None`):

- `factors`: covariances, eigendecompositions and, for `ekfac`, lambda matrices.
- `fastest`: scores of every task sequence with every domain sequence, the preconditioned gradients of all task
  sequences held at once (`query_gradient_accumulation_steps=4`), then means over the groups.
- `aggregated`: one call per task with `aggregate_query_gradients`, then means over the groups.

Kronfluence tracks linear layers only. Its scores are products of gradients summed over the tokens of a sequence; they
are divided by the squared length to become means over tokens, as ours are.

Axes: T tasks, K domains, Q task sequences, N domain sequences, B sequences of a batch, S tokens of a sequence.
"""

from argparse import Namespace
from collections.abc import Callable

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from influence_model import DOMAINS, LENGTH, TASKS, load_model, load_sets, summed_loss, warm_up
from influence_stage import print_result, run_steps, stage_arguments

QUERY_BATCH = 32
ACCUMULATION_STEPS = 4


class LanguageModelling(Task):
    """Summed next-token cross-entropy, of the data or of labels sampled from the model."""

    def compute_train_loss(self, batch: list[Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        """Return the summed loss of a batch of tokens (B, S)."""
        (tokens_BS,) = batch
        if not sample:
            return summed_loss(model, tokens_BS)
        logits_NV = model(input_ids=tokens_BS[:, :-1], use_cache=False).logits.flatten(0, 1)
        labels_N = torch.multinomial(logits_NV.detach().softmax(dim=1), 1).flatten()
        return nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")

    def compute_measurement(self, batch: list[Tensor], model: nn.Module) -> Tensor:
        """Return the summed loss of a batch of tokens (B, S)."""
        return self.compute_train_loss(batch, model)


class Peer:
    """One analyzer on the experiment's model and sets."""

    def __init__(self, arguments: Namespace) -> None:
        self._arguments = arguments
        domains, tasks = load_sets(arguments.folder)
        model, task = load_model(arguments.folder), LanguageModelling()
        warm_up(model, domains["domain_0"][:4])
        self._domains = TensorDataset(torch.cat(list(domains.values())))
        self._tasks = TensorDataset(torch.cat(list(tasks.values())))
        self._analyzer = Analyzer(
            "kronfluence",
            prepare_model(model, task),
            task,
            cpu=True,
            disable_tqdm=True,
            output_dir=str(arguments.folder),
        )

    def factor_steps(self) -> dict[str, Callable[[], object]]:
        """Return the steps that fit the factors of the strategy."""
        name = self._arguments.strategy
        fit = {
            "factors_name": name,
            "factor_args": FactorArguments(strategy=name),
            "overwrite_output_dir": True,
        }
        data = {"dataset": self._domains, "per_device_batch_size": self._arguments.batch_size}
        torch.manual_seed(0)
        steps: dict[str, Callable[[], object]] = {
            "covariances": lambda: self._analyzer.fit_covariance_matrices(**fit, **data),
            "eigendecompositions": lambda: self._analyzer.perform_eigendecomposition(**fit),
        }
        if name == "ekfac":
            steps["lambda"] = lambda: self._analyzer.fit_lambda_matrices(**fit, **data)
        return steps

    def fastest(self) -> None:
        """Score all pairs of sequences in one call and average over groups."""
        scores_QN = self._scores(range(sum(TASKS.values())), query_gradient_accumulation_steps=ACCUMULATION_STEPS)
        rows = [block_QN.mean(dim=0) for block_QN in scores_QN.split(list(TASKS.values()))]
        self._save(torch.stack(rows))

    def aggregated(self) -> None:
        """Score each task's summed gradient with all domain sequences and average over groups."""
        rows, first = [], 0
        for sequences in TASKS.values():
            scores_1N = self._scores(range(first, first + sequences), aggregate_query_gradients=True)
            rows.append(scores_1N[0] / sequences)
            first += sequences
        self._save(torch.stack(rows))

    def _scores(self, queries: range, **options: bool | int) -> Tensor:
        self._analyzer.compute_pairwise_scores(
            "scores",
            self._arguments.strategy,
            query_dataset=self._tasks,
            train_dataset=self._domains,
            query_indices=list(queries),
            per_device_query_batch_size=QUERY_BATCH,
            per_device_train_batch_size=self._arguments.batch_size,
            score_args=ScoreArguments(damping_factor=None, **options),
            overwrite_output_dir=True,
        )
        return self._analyzer.load_pairwise_scores("scores")["all_modules"]

    def _save(self, scores_TN: Tensor) -> None:
        influence_TK = torch.stack([block.mean(dim=1) for block in scores_TN.split(list(DOMAINS.values()), dim=1)], 1)
        path = self._arguments.folder / f"kronfluence-{self._arguments.stage}-{self._arguments.strategy}.safetensors"
        save_file({"influence_TK": influence_TK.double() / LENGTH**2}, path)


def main() -> None:
    """Run one stage."""
    arguments = stage_arguments(__doc__, ["factors", "fastest", "aggregated"])
    peer = Peer(arguments)
    if arguments.stage == "factors":
        print_result(run_steps(peer.factor_steps()))
    else:
        print_result(run_steps({"scores": getattr(peer, arguments.stage)}))


if __name__ == "__main__":
    main()
