"""How much of a team's text its measurement needs, and whose tokenizer reads it."""

from math import ceil

from tikmix_pipeline.parameters import CorpusParameters, InfluenceParameters, RunParameters

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
