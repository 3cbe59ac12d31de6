"""What a team gives of its run besides parameters: samples of its domains, a tokenizer, and a mixture as a file."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json
from tikmix_pipeline.parameters import CorpusParameters, InfluenceParameters, RunParameters
from tikmix_pipeline.parameters.decision import ExternalParameters

_BYTES_PER_TOKEN = 8
"""More than any tokenizer's mean on text that it was made for."""
_LEAST_MEGABYTES = 1.0
"""Enough documents to tell held-out ones from, however little is measured."""


def narrowed_corpus(parameters: RunParameters) -> CorpusParameters:
    """Return the corpus with as much text of every domain as is measured, and no more."""
    corpus = parameters.corpus
    needed = needed_megabytes(parameters.influence, parameters.train.context) / (1 - corpus.heldout_fraction)
    domains = {
        name: domain.model_copy(update={"max_megabytes": min(domain.max_megabytes, needed)})
        if domain.max_megabytes
        else domain
        for name, domain in corpus.domains.items()
    }
    return corpus.model_copy(update={"max_megabytes": needed, "domains": domains})


def needed_megabytes(influence: InfluenceParameters, context: int) -> float:
    """Return how much text of a domain is enough for its measurement, in MB of UTF-8.

    Windows of `context` tokens are read by their beginnings, so most of it is passed over.
    """
    windows = ceil(max(influence.most_tokens, influence.factor_tokens) / influence.domain_context(context))
    return max(_LEAST_MEGABYTES, windows * context * _BYTES_PER_TOKEN / 1e6)


def tokenizer_folder(parameters: RunParameters) -> str:
    """Return the folder of the tokenizer: the checkpoint's, unless the user names another."""
    return parameters.corpus.tokenizer.path or parameters.model.checkpoint or ""


def given_mixture(remix: ExternalParameters, root: Path, experiment: str) -> Mapping[str, float] | None:
    """Return the current mixture as the user gives it, as weights or as a file; None where it is not given.

    Raises:
        TikmixError: the file is missing, holds no weights or is of another experiment.
    """
    if not isinstance(remix.current, str):
        return remix.current
    path = root / remix.current
    if not path.is_file():
        raise TikmixError(f"remix.current: there is no file {path}. Give weights by domain, or a mixture.json.")
    content = read_json(path)
    weights = content.get("weights", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise TikmixError(
            f"remix.current: {path} holds no weights. Expected a JSON object of domains and weights, or one with such "
            "an object as `weights`."
        )
    experiments, path_on_disk = (root / "data" / "07_model_output").resolve(), path.resolve()
    is_within = path_on_disk.is_relative_to(experiments)
    owner = path_on_disk.relative_to(experiments).parts[0] if is_within else experiment
    if owner != experiment:
        raise TikmixError(
            f"remix.current: {path} is a mixture of the experiment '{owner}', and this one is '{experiment}'. If the "
            "run was trained under it all the same, give its weights themselves; otherwise set experiment."
        )
    return weights
