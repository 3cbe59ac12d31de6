"""Rules that need no fitting, which a surrogate has to beat to be worth its runs; like a loss, lower is better.

    uniform distance    ||w − 1/K||₁: the more even, the better
    matching domain     −ln(w_match + 1e-3): the more of the domain with the target's own name, the better
    additive influence  −S w: each domain helps by what influence says, whatever the others do

Axes: N mixtures, K domains, T targets.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses

UNIFORM_DISTANCE = "uniform distance"
MATCHING_DOMAIN = "matching domain"
ADDITIVE_INFLUENCE = "additive influence"

_EPSILON = 1e-3


def naive_predictions(
    responses: Responses, matches: Mapping[str, str], additive_NT: FloatArray | None
) -> dict[str, FloatArray]:
    """Return what each rule predicts, (N, T); nan where it says nothing of a target.

    Args:
        responses: the mixtures, and the targets of axis T.
        matches: target -> domain, where one matches.
        additive_NT: what additive influence predicts of these mixtures; without it, there is no such rule.
    """
    weights_NK = responses.weights_NK
    shape = responses.response_NT.shape
    distance_N = np.abs(weights_NK - 1 / weights_NK.shape[1]).sum(axis=1)
    matching_NT = np.full(shape, np.nan)
    for t, target in enumerate(responses.targets):
        if target in matches:
            matching_NT[:, t] = -np.log(weights_NK[:, responses.domains.index(matches[target])] + _EPSILON)
    predictions = {UNIFORM_DISTANCE: np.repeat(distance_N[:, None], shape[1], axis=1), MATCHING_DOMAIN: matching_NT}
    if additive_NT is not None:
        predictions[ADDITIVE_INFLUENCE] = additive_NT
    return predictions


def matching_domains(domains: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return for each target the domain of the same name, where there is one.

    Domains and targets may each share a beginning and an end, as `train_the_pile_arxiv` and
    `metric/the_pile_arxiv_val_loss` do. Of all ways to cut those off at a break between words, the one that pairs the
    most names is taken, the least cut among equals.
    """
    best: dict[str, str] = {}
    cut_domains = [_cut_all(domains, front, back) for front, back in _shared_ends(domains)]
    cut_targets = [_cut_all(targets, front, back) for front, back in _shared_ends(targets)]
    for of_domain, of_target in itertools.product(cut_domains, cut_targets):
        pairs = {of_target[core]: of_domain[core] for core in of_target if core in of_domain}
        if len(pairs) > len(best):
            best = pairs
    return {target: best[target] for target in targets if target in best}


def _shared_ends(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return how much may be cut from the front and the back of all names, at breaks between words, the least first."""
    starts, ends = _shared_breaks(names), _shared_breaks([name[::-1] for name in names])
    return sorted(itertools.product(starts, ends), key=sum)


def _shared_breaks(names: Sequence[str]) -> list[int]:
    """Return the lengths of the beginnings that all names share and that end where a word does."""
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return [0, *(place for place, letters in enumerate(shared, start=1) if not letters[0].isalnum())]


def _cut_all(names: Sequence[str], front: int, back: int) -> dict[str, str]:
    """Return the names by what is left of them."""
    return {name[front : len(name) - back]: name for name in names if front + back < len(name)}
