"""Which columns of a table of scores are targets, and which of these are the better the higher.

Nothing but their names tells. A column that says when or how a run was trained would be optimised like any other, so
it is asked about; a direction that was assumed is said.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tikmix_pipeline.errors import TikmixError, quoted

_OF_TRAINING = (
    "batch batches checkpoint ckpt clock cost cpu cpus created date day days device devices duration elapsed epoch "
    "epochs examples fewshot flops gpu gpus grad gradient heads hour hours iter iteration iterations iters job layers "
    "learning limit lr memory mfu minutes model norm parameters params phase rank rate replicate rng run runs runtime "
    "sample samples second seconds seed shot shots size slurm stage step steps temperature throughput time timestamp "
    "token tokens total train trained updated version wall walltime warmup world year"
)
_FILLERS = "avg d eval global id max mean min n num of per random seen the trainer train val valid wandb"
_OF_SPREADS = "ci sd sem std stddev stderr stdev var variance"
_PHRASES_OF_TRAINING = ("loss scale",)
_OF_LOSSES = "bits bpb bpc ce cer entropy err error loss losses mae mse nats nll perplexity ppl rmse wer"
_OF_SCORES = (
    "acc accuracy auc auroc bleu chrf correct em exact f1 matthews mcc loglikelihood logprob "
    "logprobs pass reward rouge rouge1 rouge2 rougel score winrate"
)
_PHRASES_OF_SCORES = ("win rate", "log prob", "log probs", "log likelihood")
_TURNED = frozenset({"neg", "negative"})

_NO_METRIC, _LOWER, _HIGHER = (frozenset(words.split()) for words in (_OF_TRAINING, _OF_LOSSES, _OF_SCORES))
_FILLING, _SPREAD = frozenset(_FILLERS.split()), frozenset(_OF_SPREADS.split())
"""A column all of whose words are of training, or fill in beside one that is, is no metric, nor is one that ends in the
name of a spread; one that has a word of scores is the better the higher, if it has none of losses."""


def chosen_targets(path: Path, columns: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Return the columns that are targets, in the order of the file.

    Args:
        path: of the file, for complaints.
        columns: that the file has besides the runs' ids.
        named: those that the user says are; None for all.

    Raises:
        TikmixError: a name is of no column, or nobody has said that a column is a target that looks like none.
    """
    if named is not None:
        unknown = [name for name in named if name not in columns]
        if unknown or not named:
            found = f"names {quoted(unknown)}, no column of {path}" if unknown else "names none"
            raise TikmixError(f"sweep.table.targets {found}. There are {quoted(columns)}.")
        return [name for name in columns if name in named]
    odd = [name for name in columns if _is_no_metric(name)]
    if odd:
        others = [name for name in columns if name not in odd]
        raise TikmixError(
            f"{path}: {quoted(odd)} {'look' if len(odd) > 1 else 'looks'} like no metric, and every target is "
            f"optimised. Say which columns are targets: sweep.table.targets={'+'.join(others or columns)}"
        )
    return list(columns)


def is_higher_better(
    path: Path, targets: Sequence[str], named: Sequence[str] | Literal["auto"]
) -> tuple[list[bool], str]:
    """Return of each target whether it is the better the higher, and a sentence that says so.

    Raises:
        TikmixError: a name is of no target.
    """
    if named != "auto":
        unknown = [name for name in named if name not in targets]
        if unknown:
            raise TikmixError(
                f"sweep.table.higher_is_better names {quoted(unknown)}, no target of {path}. There are "
                f"{quoted(targets)}."
            )
    higher = [_rises(name) if named == "auto" else name in named for name in targets]
    if not any(higher):
        said = f"All targets of {path} are taken as losses, the better the lower"
    else:
        up = quoted([name for name, is_higher in zip(targets, higher, strict=True) if is_higher])
        down = quoted([name for name, is_higher in zip(targets, higher, strict=True) if not is_higher])
        said = f"Of {path} the higher the better: {up}, whose sign is turned from here on; the lower: {down or 'none'}"
    assumed = ", by their names (sweep.table.higher_is_better says otherwise)" if named == "auto" else ""
    return higher, f"{said}{assumed}."


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found = [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]
    return [word if word in _HIGHER else word.rstrip("0123456789") or word for word in found]


def _is_no_metric(name: str) -> bool:
    words = _words(name)
    of_training = [word for word in words if word not in _FILLING]
    is_of_training = bool(of_training) and all(word in _NO_METRIC for word in of_training)
    is_phrase = " ".join(words).endswith(_PHRASES_OF_TRAINING)
    return bool(words) and (is_of_training or is_phrase or (len(words) > 1 and words[-1] in _SPREAD))


def _rises(name: str) -> bool:
    words = _words(name)
    has_phrase = any(f" {phrase} " in f" {' '.join(words)} " for phrase in _PHRASES_OF_SCORES)
    rises = (has_phrase or not _HIGHER.isdisjoint(words)) and _LOWER.isdisjoint(words)
    is_known = rises or not _LOWER.isdisjoint(words)
    return rises != (is_known and not _TURNED.isdisjoint(words))
