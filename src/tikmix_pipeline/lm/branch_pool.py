"""Branches, or lookahead runs: short trainings from one checkpoint, each under a mixture of its own.

A branch goes on where the checkpoint stands, with its optimiser state, its step (and so its learning rate) and its
place in every domain's text. What differs between two branches is the mixture alone.

Replicates of a branch read other text. Replicate r leaves out r times as many windows of each domain as any branch of
the comparison may read of it; from there every branch of that replicate reads a domain's windows in one order, only
more or fewer of them. The noise that the text brings is so common to the branches of a replicate and independent
between replicates, unless a domain is so short that its next epoch is reached: the same windows in another order.

A branch that stands for a longer stretch of training reads only a share of every domain's windows, and so repeats text
as often as the whole stretch would.

A pool trains many, scores each on the same texts and writes it down as it ends.
A result stands in a small file named by its key: the checkpoint, the corpus, the mixture, what is trained and how,
the texts and the code. A branch that is there is never trained again, so a stopped pool loses what was under way, and
another replicate or another mixture costs only itself.

On a CPU every branch runs in one thread, in a process of its own if there are several workers: the results are the same
bits for any number of them.
"""

import contextlib
import dataclasses
import gc
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from tikmix_pipeline.corpus.batches import TokenBatch, digest_of
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.launch import folder_beside
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.jobs.engine import each_job, workers_here
from tikmix_pipeline.jobs.worker_pool import Died
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import restore_state, train_chunk
from tikmix_pipeline.lm.cost import SequenceFlops
from tikmix_pipeline.lm.cost_records import BranchCostRecord, Cost, cost_report
from tikmix_pipeline.lm.divergence import STEPS_TO_JUDGE_BY, DivergedError, require_better_than_guessing
from tikmix_pipeline.lm.evaluation import TextLoss, text_losses
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters.training import EngineParameters, LoadParameters, StepParameters
from tikmix_pipeline.progress import no_progress_bars, progress_bar
from tikmix_pipeline.store.keyed import KeyedEntry, KeyedResults, key_of

_LOG = logging.getLogger(__name__)

_AGAIN = " To try it again, lower `workers` and delete the table of losses that this stage writes."

Texts = Mapping[str, Sequence[TokenBatch]]


def train_branch(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    steps: int,
    replicate: int = 0,
    reach: Mapping[str, int] | None = None,
    share: float = 1.0,
    model: LoadParameters,
    train: StepParameters,
    schedule: Schedule,
    seed: int,
    description: str = "Training",
) -> TrainingState:
    """Train `steps` more steps from a checkpoint, which is not changed, under a mixture of its tokens.

    Args:
        replicate: which text is read; 0 goes on with the very text that training would read next.
        reach: windows of each domain that any branch to be compared with may read (`windows_in_reach`); by default as
            many as the whole branch has.
        share: of every domain's windows, read in the place of all (`MixtureStream.subsample`).
        train: what the checkpoint was trained with. `train.world_size` processes work beside the checkpoint, on
            replicate 0 alone.
        schedule: learning rates by global step.

    Returns:
        The trained model, on `train.device`, or the CPU if ranks trained it, and all that is needed to go on.

    Raises:
        TikmixError: the checkpoint fits neither shards nor parameters, the mixture is none of their domains, or ranks
            fail (`run_ranks`).
        DivergedError: as `train_steps`.
    """
    if train.world_size > 1:
        if replicate or share < 1:
            raise ValueError("a branch of several processes goes on with the text that training would read next")
        resume = KeyedEntry(folder_beside(checkpoint.folder), "branch")
        resume.discard()
        schedule = dataclasses.replace(schedule, chunk_steps=steps)  # a branch is a chunk of so many steps
        as_chunk = partial(train_chunk, checkpoint, shards, mixture, model=model, train=train, schedule=schedule)
        state = as_chunk(seed=seed, resume=resume, description=description)
        resume.discard()
        return state
    checkpoint.require_tokenizer(shards.tokenizer_digest)
    state = restore_state(checkpoint, shards, mixture, model=model, train=train, seed=seed)
    state.stream.subsample(share)
    windows = reach if reach is not None else dict.fromkeys(shards.domains, steps * train.batch_size)
    state.stream.skip({domain: replicate * count for domain, count in windows.items()})
    state.stream.set_weights(mixture)
    train_steps(state, train, schedule, last_step=state.step + steps, description=description)
    return state


def windows_in_reach(mixtures: Iterable[Mapping[str, float]], *, steps: int, batch_size: int) -> dict[str, int]:
    """Return the most windows of each domain that a branch of `steps` steps reads under one of `mixtures`."""
    largest: dict[str, float] = {}
    for mixture in mixtures:
        for domain, share in mixture.items():
            largest[domain] = max(share, largest.get(domain, 0.0))
    # a stream is within one row of its weights at either end of any stretch of batches
    most = {domain: math.ceil(share * steps * batch_size) + 1 for domain, share in largest.items()}
    return {domain: min(count, steps * batch_size) for domain, count in most.items()}


@dataclass(frozen=True)
class Branch:
    """One branch to train."""

    name: str
    mixture: Mapping[str, float]
    replicate: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a branch has no losses. A branch that ran out of memory is tried again by the next pool."""

    kind: Literal["diverged", "memory"]
    reason: str


@dataclass(frozen=True)
class BranchResult:
    """What became of a branch: its loss on every text, or why there is none."""

    branch: Branch
    losses: Mapping[str, TextLoss]
    failure: Failure | None = None


@dataclass(frozen=True)
class BranchSetting:
    """What all branches of a pool have in common; for the fields see `train_branch`."""

    checkpoint: Path
    shards: Path
    steps: int
    model: LoadParameters
    train: StepParameters
    schedule: Schedule
    seed: int
    reach: Mapping[str, int] | None = None
    share: float = 1.0
    by_token: bool = False
    """Whether the loss of every token that branches are scored on is kept, too."""

    @property
    def on_cpu(self) -> bool:
        """Whether the branches are trained on a CPU."""
        return resolve_device(self.train.device).type == "cpu"

    def described(self) -> dict[str, Any]:
        """Return all that decides the bits of a branch, but for its own mixture and replicate."""
        first = Checkpoint(self.checkpoint).step
        files = sorted(file for file in self.checkpoint.iterdir() if file.is_file())
        return {
            "checkpoint": {file.name: sha256_of_file(file) for file in files},
            "corpus": TokenShards.open(self.shards, verify=False).manifest_digest,
            "steps": self.steps,
            "model": self.model.narrowed(LoadParameters).recorded(),
            "train": self.train.narrowed(StepParameters).recorded(),
            "rates": [self.schedule.factor(step) for step in range(first, first + self.steps)],
            "seed": self.seed,
            "share": self.share,
        }


def run_branches(
    setting: BranchSetting,
    branches: Sequence[Branch],
    texts: Texts,
    *,
    folder: Path,
    key: str,
    workers: int | Literal["auto"] = "auto",
    engine: EngineParameters = EngineParameters(),  # noqa: B008 (immutable)
) -> list[BranchResult]:
    """Train every branch that has no result yet, score it on `texts`, and return one result per branch, in their order.

    A branch that diverges, or runs out of memory, is left out with a warning.

    Args:
        folder: where results are, and go.
        key: names the code that runs, or whatever else results are to be told apart by.
        workers: branches at a time; `auto` is one per core on a CPU, and one on a GPU, and on Ray as many as there is
            room for.

    Raises:
        TikmixError: branches cannot be trained at all, since checkpoint, corpus and parameters do not fit, or all of
            them have failed.
    """
    kept, keys = KeyedResults(folder), _keys(setting, branches, texts, key)
    found = [_kept_result(kept.read(of_one), branch, texts) for of_one, branch in zip(keys, branches, strict=True)]
    results = {number: result for number, result in enumerate(found) if result is not None}
    missing = [number for number in range(len(branches)) if number not in results]
    if missing:
        with progress_bar("branches", len(missing), "branch") as bar:
            for position, result in _train(setting, texts, [branches[number] for number in missing], workers, engine):
                number = missing[position]
                results[number] = result
                kept.write(keys[number], dataclasses.asdict(result))
                bar.update(1)
    for result in results.values():
        if result.failure is not None:
            name, replicate = result.branch.name, result.branch.replicate
            again = _AGAIN if result.failure.kind == "memory" else ""
            _LOG.warning("Branch %s of replicate %d is left out. %s%s", name, replicate, result.failure.reason, again)
    if all(result.failure is not None for result in results.values()):
        raise TikmixError("No branch came through: the warnings above say why, one by one.")
    return [results[number] for number in range(len(branches))]


def losses_by_text(results: Sequence[BranchResult], texts: Sequence[str]) -> dict[str, list[float]]:
    """Return of every branch that came through, by name, the losses on these texts in nats per token.

    Of multiple choice they are in nats per item.
    """
    return {
        one.branch.name: [one.losses[name].nats / one.losses[name].tokens for name in texts]
        for one in results
        if one.losses
    }


def _train(
    setting: BranchSetting,
    texts: Texts,
    branches: Sequence[Branch],
    workers: int | Literal["auto"],
    engine: EngineParameters,
) -> Iterator[tuple[int, BranchResult]]:
    if engine.kind == "local" and workers_here(workers, len(branches), on_cpu=setting.on_cpu) <= 1:
        for number, branch in enumerate(branches):
            yield number, train_and_score((setting, texts), branch)
        return
    for number, outcome in each_job(
        train_and_score,
        (setting, texts),
        branches,
        engine=engine,
        workers=workers,
        on_cpu=setting.on_cpu,
        folders=(setting.checkpoint, setting.shards),
    ):
        if isinstance(outcome, Died):
            reason = f"{outcome.reason[0].upper()}{outcome.reason[1:]}: use fewer workers."
            yield number, BranchResult(branches[number], {}, Failure("memory", reason))
        else:
            yield number, outcome


def train_and_score(shared: tuple[BranchSetting, Texts], branch: Branch) -> BranchResult:
    """Train one branch and score it on texts; `shared` is its setting and the texts."""
    setting, texts = shared
    try:
        with _one_thread(setting.on_cpu), no_progress_bars():
            losses = _losses_after(setting, texts, branch)
    except DivergedError as error:
        return BranchResult(branch, {}, Failure("diverged", str(error)))
    except (MemoryError, RuntimeError) as error:
        # the CPU's allocator has no error class of its own
        is_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (is_of_memory or "can't allocate memory" in str(error)):
            raise
        first_line, _, _ = str(error).partition("\n")
        reason = f"Memory ran out: {first_line or type(error).__name__}"
    else:
        return BranchResult(branch, losses)
    gc.collect()  # what the error held on to
    torch.cuda.empty_cache()
    return BranchResult(branch, {}, Failure("memory", reason))


def _losses_after(setting: BranchSetting, texts: Texts, branch: Branch) -> dict[str, TextLoss]:
    state = train_branch(
        Checkpoint(setting.checkpoint),
        TokenShards.open(setting.shards, verify=False),
        branch.mixture,
        steps=setting.steps,
        replicate=branch.replicate,
        reach=setting.reach,
        share=setting.share,
        model=setting.model,
        train=setting.train.model_copy(update={"world_size": 1}),
        schedule=setting.schedule,
        seed=setting.seed,
    )
    losses = text_losses(state.model, texts, device=setting.train.device, by_token=setting.by_token)
    for name, loss in losses.items():
        if not math.isfinite(loss.nats):
            raise DivergedError(f"Training diverged in its last steps: the loss on {name} is {loss.nats}.")
    last = [record.loss for record in state.records[-STEPS_TO_JUDGE_BY:]]
    require_better_than_guessing(last, state.model.config.vocab_size, of="the last steps of the branch")
    return losses


@contextlib.contextmanager
def _one_thread(on_cpu: bool) -> Iterator[None]:
    threads = torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _keys(setting: BranchSetting, branches: Sequence[Branch], texts: Texts, code: str) -> list[str]:
    """Name every branch by all that its result depends on."""
    scored = {name: digest_of(batches) for name, batches in texts.items()}
    common = key_of([code, setting.described(), scored, setting.by_token])
    # where replicate 0 begins depends on no other branch
    return [
        key_of([common, dict(branch.mixture), branch.replicate, setting.reach if branch.replicate else None])
        for branch in branches
    ]


def _kept_result(content: Mapping[str, Any] | None, branch: Branch, texts: Texts) -> BranchResult | None:
    """Return the result that is kept of a branch, its losses in the order of the texts as those of a new branch are.

    None if it is still to be trained.
    """
    if content is None:
        return None
    failure = Failure(**content["failure"]) if content["failure"] else None
    if failure is not None and failure.kind == "memory":
        return None
    losses = content["losses"]
    return BranchResult(branch, {name: TextLoss(**losses[name]) for name in texts if name in losses}, failure)


@dataclass(frozen=True)
class BranchCost:
    """What branches took, whenever they were trained.

    `trained` are all that did not run out of memory. One that diverged counts in full, since where it stopped is not
    known. Scored, on all texts, are those that came through; tokens are without padding, operations with it.
    """

    trained: int
    training: Cost
    scoring: Cost

    def to_record(self) -> BranchCostRecord:
        """Return what `sweep/cost.json` holds."""
        return BranchCostRecord(branches=self.trained, cost=cost_report(training=self.training, scoring=self.scoring))


def cost_of_branches(setting: BranchSetting, results: Sequence[BranchResult], texts: Texts) -> BranchCost:
    """Count what `run_branches` has done with these arguments, or an earlier call of it."""
    train = setting.train
    network = Checkpoint(setting.checkpoint).model(setting.model).to(resolve_device(train.device))
    trains, scores = (SequenceFlops.of(network, train.context, training=training) for training in (True, False))
    trained = sum(one.failure is None or one.failure.kind == "diverged" for one in results)
    scored = sum(one.failure is None for one in results)
    return BranchCost(
        trained,
        training=trains.of_windows(setting.steps * train.batch_size, train.context) * trained,
        scoring=scores.cost(batch for batches in texts.values() for batch in batches) * scored,
    )
