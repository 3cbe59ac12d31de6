"""Group Influence and TiKMiX-D as two functions of plain texts, for those who need no pipeline.

    measured = group_influence(model, tokenizer, domains={"web": [...]}, tasks={"quiz": [("Q: ...", " answer")]})
    solved = solve_mixture(measured, prior={"web": 0.8, "code": 0.2})

They import neither Kedro nor MLflow. What a run adds to them: text that is read and cut once, measurements that resume,
several rounds, branches, and provenance.

Axes: T tasks, K domains, L gradient chunks of a domain.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tikmix_pipeline.corpus.batches import TokenBatch
    from tikmix_pipeline.influence.curvature.build import Curvature

_BATCH = 8
_MEMORY_MEGABYTES = 1_000.0

TaskItem = str | tuple[str, str] | Mapping[str, Any]
"""A text that is scored whole, a question and its answer, which alone is scored, or a record such as a corpus reads."""


@dataclass(frozen=True, eq=False)
class Influence:
    """What a checkpoint's gradients say that each domain does for each task, and for the other domains."""

    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    influence_TK: npt.NDArray[np.float64]
    """S: positive where more of the domain lowers the task's loss."""
    stderr_TK: npt.NDArray[np.float64]
    heldout_KK: npt.NDArray[np.float64]
    """D: the same for text of the domain of the row."""
    curved_KK: npt.NDArray[np.float64]
    """Q: how much less the second of two domains does after the first."""

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return S by task and domain."""
        rows = zip(self.tasks, self.influence_TK.tolist(), strict=True)
        return {task: dict(zip(self.domains, row, strict=True)) for task, row in rows}


@dataclass(frozen=True)
class SolvedMixture:
    """A mixture, and what it rests on."""

    weights: dict[str, float]
    """Shares of the tokens by domain; they sum to 1."""
    expected_gain: dict[str, float]
    """Of each task over the prior, in the unit of S."""
    notes: tuple[str, ...]
    """What a reader should know, in sentences."""


def group_influence(
    model: "PreTrainedModel",
    tokenizer: Any,
    *,
    domains: Mapping[str, Sequence[str]],
    tasks: Mapping[str, Sequence[TaskItem]],
    context: int = 256,
    chunks: int = 4,
    curvature: str = "kfac",
    damping: float = 0.1,
    seed: int = 0,
) -> Influence:
    """Measure what more of each domain's text would do for each task at a checkpoint (TiKMiX, Eqs. 2-8).

    Args:
        model: a causal language model, on the device to work on; it is left as it was.
        tokenizer: of Transformers, with an end-of-text token.
        domains: texts of each domain, enough for `chunks` windows of `context` tokens.
        tasks: items of each task, at least as many as chunks. Records are read, and prompted with, as a corpus does.
        chunks: parts that the gradients are measured in; their spread is where standard errors come from.
        curvature, damping: as `influence.curvature` and, relative to its mean eigenvalue, `influence.damping`.
        seed: of the labels that the curvature is fitted to.

    Raises:
        TikmixError: there is no domain or task, one has too little text, what should be a text or an item is none, the
            tokenizer has no end of text, or the model has layers that influence does not know.
    """
    import torch

    from tikmix_pipeline.influence.between_domains import convex_part, domain_products, of_domains
    from tikmix_pipeline.influence.collect import collect_gradients
    from tikmix_pipeline.influence.gradients import deal_sets
    from tikmix_pipeline.influence.group import group_influence as influence_of_store
    from tikmix_pipeline.influence.store import GradientStore, Side

    end = _end_of_text(tokenizer)
    texts = {name: _windows(name, some, tokenizer, end, context, chunks) for name, some in domains.items()}
    items = {name: _items(name, some, tokenizer, end, context) for name, some in tasks.items()}
    dealt: dict[Side, dict[str, list[list[TokenBatch]]]] = {
        "task": deal_sets("task", items, chunks),
        "domain": deal_sets("domain", texts, chunks),
    }
    fitted = _curvature(model, [batch for some in texts.values() for batch in some], curvature, damping, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = GradientStore(Path(folder))
        collect_gradients(model, dealt, store, key="")
        device = torch.device(model.device)
        found = influence_of_store(store, fitted, memory_megabytes=_MEMORY_MEGABYTES, device=device)
        between = domain_products(store, fitted, memory_megabytes=_MEMORY_MEGABYTES, device=device)
    heldout_KK, curved_KK = (
        of_domains(products_KLKL, found.domain_tokens_KL)[0]
        for products_KLKL in (between.linear_KLKL, between.curved_KLKL)
    )
    return Influence(
        found.tasks, found.domains, found.influence_TK, found.stderr_TK, heldout_KK, convex_part(curved_KK)
    )


def solve_mixture(
    influence: Influence | Mapping[str, Mapping[str, float]], prior: Mapping[str, float], **optimize: Any
) -> SolvedMixture:
    """Return the best mixture by what was measured: TiKMiX-D.

    Args:
        influence: what `group_influence` returned, for gains of second order; or S alone, by task and domain, for the
            paper's, of first order.
        prior: the mixture that gains are over and that no task may do worse than; it is the current one, too.
        optimize: what `optimize` is called in a run's parameters: `bounds`, `pinned`, `min_weight`, `task_weights`,
            `guardrails`, `entropy`, ...

    Raises:
        TikmixError: an unknown parameter or domain, an influence that is no number, or no mixture within the bounds.
    """
    from tikmix_pipeline.mixture.bounds import unlimited_bounds
    from tikmix_pipeline.mixture.direct import solve_direct
    from tikmix_pipeline.mixture.influence_matrix import contrast
    from tikmix_pipeline.mixture.response import response_problem
    from tikmix_pipeline.mixture.second_order import DomainProducts
    from tikmix_pipeline.mixture.simplex import by_name, check_mixture
    from tikmix_pipeline.parameters import OptimizeParameters
    from tikmix_pipeline.parameters.check import check_group

    tasks, domains, influence_TK = _matrix(influence)
    method = "response" if isinstance(influence, Influence) else "paper"
    parameters = check_group("optimize", OptimizeParameters, {"anchor": "uniform", "method": method, **optimize})
    if parameters.method == "response" and not isinstance(influence, Influence):
        raise TikmixError(
            "optimize.method=response rests on products of the domains among themselves: give solve_mixture what "
            "group_influence returned, not S alone, or leave the method out."
        )
    prior_K = check_mixture(prior, domains, "the prior")
    bounds = unlimited_bounds(parameters, domains, prior)
    if isinstance(influence, Influence) and parameters.method == "response":
        products = DomainProducts(influence.heldout_KK, influence.curved_KK)
        found = response_problem(
            contrast(influence_TK, prior_K), products, prior_K, bounds, parameters, domains=domains, tasks=tasks
        ).decision()
    else:
        found = solve_direct(influence_TK, prior_K, bounds, parameters, domains=domains, tasks=tasks)
    return SolvedMixture(
        weights=by_name(domains, found.weights_K),
        expected_gain=by_name(tasks, found.expected_gain_T),
        notes=found.notes,
    )


def _matrix(
    influence: Influence | Mapping[str, Mapping[str, float]],
) -> tuple[list[str], list[str], npt.NDArray[np.float64]]:
    """Return tasks, domains and S."""
    if isinstance(influence, Influence):
        return list(influence.tasks), list(influence.domains), influence.influence_TK
    tasks = list(influence)
    domains = list(dict.fromkeys(domain for row in influence.values() for domain in row))
    for task, row in influence.items():
        missing = [domain for domain in domains if domain not in row]
        if missing:
            raise TikmixError(
                f"The influence on '{task}' has no value for {', '.join(missing)}. Give every domain one."
            )
    if not domains:
        raise TikmixError("The influence is of no task on no domain: give {task: {domain: value}}.")
    return tasks, domains, np.array([[influence[task][domain] for domain in domains] for task in tasks], dtype=float)


def _end_of_text(tokenizer: Any) -> int:
    end = tokenizer.eos_token_id
    if end is None:
        raise TikmixError(
            "The tokenizer has no end-of-text token: set tokenizer.eos_token to the one that ends documents."
        )
    return int(end)


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _windows(
    name: str, texts: Sequence[str], tokenizer: Any, end: int, context: int, chunks: int
) -> list["TokenBatch"]:
    from tikmix_pipeline.corpus.batches import TokenBatch, Windows

    named = _named(f"domains[{name!r}]", texts, "texts")
    tokens = [token for place, text in named for token in (end, *_encode(tokenizer, _text(place, text)))]
    windows = Windows([np.array(tokens, dtype=np.int64)], context)
    if len(windows) < chunks:
        raise TikmixError(
            f"Domain '{name}' has {len(tokens)} tokens, and {chunks} chunks of at least one window of {context} tokens "
            f"take {chunks * context + 1}. Give it more text, or lower context or chunks."
        )
    count = max(1, min(_BATCH, len(windows) // chunks))
    tokens_NS = windows.take(np.arange(len(windows)))
    return [TokenBatch.of_windows(tokens_NS[first : first + count]) for first in range(0, len(windows), count)]


def _items(name: str, items: Sequence[TaskItem], tokenizer: Any, end: int, context: int) -> list["TokenBatch"]:
    from tikmix_pipeline.corpus.tasks import TokenisedItem, item_batches

    def tokenised() -> Iterator[TokenisedItem]:
        for place, question, answer in _pairs(f"tasks[{name!r}]", items):
            question_ids = [end, *(_encode(tokenizer, question) if question else ())]
            answer_ids, size = _encode(tokenizer, answer), len(answer.encode())
            if not answer_ids:
                raise TikmixError(f"{place}: the answer {answer!r} gives no token. Leave the item out.")
            yield TokenisedItem(question_ids, answer_ids, size, size + len(question.encode()))

    return item_batches([*tokenised()], context=context, batch_size=_BATCH, loss="answer", pad_id=end)


def _pairs(source: str, items: Sequence[TaskItem]) -> Iterator[tuple[str, str, str]]:
    """Yield of every item its place, what the model is given, and what it is to continue with."""
    from tikmix_pipeline.corpus.task_records import every_item

    named = list(_named(source, items, "items"))
    records = iter(every_item((place, dict(item)) for place, item in named if isinstance(item, Mapping)))
    for place, item in named:
        if isinstance(item, Mapping):
            read = next(records)
            yield place, read.prompt, read.completion
        elif isinstance(item, str):
            yield place, "", _text(place, item)
        elif isinstance(item, tuple | list) and len(item) == 2:
            yield place, _text(f"{place}[0]", item[0]), _text(f"{place}[1]", item[1])
        else:
            kind = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
            raise TikmixError(
                f"{place} is {kind}. Expected a text, a pair (question, answer), or a record such as "
                "{'question': ..., 'answer': ...}."
            )


def _named(source: str, values: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each of what must be a list."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TikmixError(f"{source} is {type(values).__name__}, expected a list of {kind}. Give it as [...].")
    for number, value in enumerate(values):
        yield f"{source}[{number}]", value


def _text(place: str, text: Any) -> str:
    """Return what must be a text that UTF-8 can write."""
    from tikmix_pipeline.corpus.text import require_utf_8

    if not isinstance(text, str):
        raise TikmixError(f"{place} is {type(text).__name__}, expected a text. Leave it out, or give it one.")
    require_utf_8(text, place, "Mend it, or leave it out.")
    return text


def _curvature(
    model: "PreTrainedModel", batches: Sequence["TokenBatch"], name: str, damping: float, seed: int
) -> "Curvature":
    from tikmix_pipeline.influence.curvature.build import build_curvature
    from tikmix_pipeline.influence.curvature.fit import fit_factors
    from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters

    told = InfluenceParameters.model_validate({"curvature": name, "damping": damping})
    factors = None
    if told.needs_factors:
        factors = fit_factors(model, batches, kind=name, fisher=told.fisher, seed=seed, groups=told.groups)  # type: ignore[arg-type]
    return build_curvature(told, model, factors=factors, optimizer_state={}, train=TrainParameters(), horizon=None)
