"""What the name of a column says: that it is no metric, or that it is the better the higher.

A name is taken apart into words. Those that say when or how a run was trained, with any that only fill, make no metric
(`trainer/global_step`, `n_layers`); any other word makes one of it (`train_data_code_loss`, `step_accuracy`), unless
the name says that it counts, or how far a metric is spread.
"""

import re
from itertools import pairwise

_OF_TRAINING = (
    "batch batches beta checkpoint checkpoints ckpt clock context cost count cpu cpus created d date day days decay "
    "depth device devices dim diverged dropout duration elapsed energy epoch epochs examples failed fewshot finished "
    "flop flops flos gpu gpus grad gradient gradients hfu hour hours id iter iteration iterations iters job kwh layer "
    "layers learning length limit lr memory mfu microbatch minute minutes model momentum node nodes norm param "
    "parameters params phase rank rate replicate requests rng run runs runtime sample samples second seconds seed "
    "seeds seq sequence sequences shot shots size stage started step steps temperature tflops throughput time "
    "timestamp token tokens total train trained uid updated uptime utilization uuid version vocab wall wallclock "
    "walltime warmup width world year"
)
_FILLERS = (
    "accumulation adam adamw allocated avg b best current cumulative data dev effective eval evaluation final first gb "
    "global h head heads hidden in internal k last local m max mb mean micro min ms muon n nb num number of optimizer "
    "per peak random ratio remaining s seen sgd slurm so far start state sum system test trainer training up used val "
    "valid validation value wandb weight"
)
_OF_SPREAD = "ci ci95 sigma std stddev stderr stdev var variance"
_OF_ERROR = "sd se sem"
_OF_LOSSES = "bits bpb bpc ce cer entropy err error loss losses mae mse nats nll perplexity ppl rmse wer"
_OF_SCORES = (
    "acc accuracy auc auroc bleu chrf correct elo em exact f1 likelihood loglik loglikelihood logp logprob logprobs "
    "matthews mcc mrr ndcg pass reward rewards rouge rouge1 rouge2 rougel score scores winrate"
)
_JOINED = {
    ("log", "likelihood"): "loglikelihood",
    ("log", "prob"): "logprob",
    ("log", "probs"): "logprob",
    ("log", "probability"): "logprob",
    ("win", "rate"): "winrate",
    ("loss", "scale"): "scale",
}
"""Words that mean something else together; the scale of a loss is of training."""

_TRAINING, _FILLER, _SPREAD, _ERROR, _LOWER, _HIGHER = (
    frozenset(words.split())
    for words in (f"{_OF_TRAINING} scale", _FILLERS, _OF_SPREAD, _OF_ERROR, _OF_LOSSES, _OF_SCORES)
)
_COUNTING = {"n", "num", "nb"}
_OF_TIME = {"s", "sec", "second", "minute", "min", "hour", "h", "day"}
_NEGATIVE = {"neg", "negative", "minus"}
_OF_LOGARITHMS = {"likelihood", "loglik", "loglikelihood", "logp", "logprob", "logprobs"}


def is_no_metric(name: str) -> bool:
    """Say whether a column of that name tells when or how a run was trained, counts, or is the spread of a metric."""
    words = _words(name)
    if not words:
        return False
    is_measured = not _LOWER.isdisjoint(words) or not _HIGHER.isdisjoint(words)
    is_of_training = _TRAINING.issuperset(word for word in words if not _fills(word)) and not all(map(_fills, words))
    return (
        is_of_training
        or (words[0] in _COUNTING and len(words) > 1 and not is_measured)
        or any(word == "per" and unit in _OF_TIME for word, unit in pairwise(words))
        or _is_of_spread(words)
    )


def is_the_better_the_higher(name: str) -> bool:
    """Say whether a metric of that name is a score; one that has a word of losses, too, is a loss.

    What is called negative is the other way round.
    """
    words = _words(name)
    known = [n for n, word in enumerate(words) if word in _LOWER or word in _HIGHER]
    if not known:
        return False
    rises = _LOWER.isdisjoint(words)
    before = words[known[0] - 1] if known[0] else ""
    # `sst_negative_acc` is the accuracy on what is negative
    is_sign = before != "negative" or known[0] == 1 or words[known[0]] in _OF_LOGARITHMS
    return rises != (words[0] in _NEGATIVE or (before in _NEGATIVE and is_sign))


def _is_of_spread(words: list[str]) -> bool:
    """Say whether the words are those of a standard error or its like: `acc_stderr,none`, `loss_var`, `acc_se`."""
    if not _SPREAD.isdisjoint((words[0], words[-1])) or {"stderr", "stdev", "stddev"} & set(words):
        return True
    return len(words) > 1 and words[-1] in _ERROR and words[-2] in _LOWER | _HIGHER


def _fills(word: str) -> bool:
    return word in _FILLER or word.isdigit()


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found = [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]
    found = [word if word in _HIGHER | _SPREAD else word.rstrip("0123456789") or word for word in found]
    words: list[str] = []
    for word in found:
        joined = _JOINED.get((words[-1], word)) if words else None
        words[-1:] = [joined] if joined else [*words[-1:], word]
    return words
