"""What exports refuse before anything is computed."""

from collections.abc import Collection

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.export.registry import check_trainer, write
from tikmix_pipeline.export.schedule import Domain, Schedule, Stage
from tikmix_pipeline.mixture.simplex import prior_mixture
from tikmix_pipeline.parameters import RunParameters


def check_exports(parameters: RunParameters, chunk_tokens: int, known: Collection[str]) -> None:
    """Write the uniform mixture for every trainer asked for, and keep nothing of it.

    Args:
        parameters: of the run.
        chunk_tokens: of the coming chunk.
        known: domains that may have a path; those of earlier rounds may be among them.

    Raises:
        TikmixError: a trainer or a domain is not known, or a trainer cannot take a path or a size.
    """
    reweight, domains = parameters.reweight, list(parameters.corpus.domains)
    for trainer in reweight.exports:
        check_trainer(trainer, "reweight.exports")
    for domain in reweight.paths:
        if domain not in known:
            nearest = nearest_name(domain, known)
            raise TikmixError(f"reweight.paths names the domain '{domain}', which is not there.{nearest}")
    batch = reweight.batch_tokens or parameters.train.tokens_per_step
    if batch > chunk_tokens:
        raise TikmixError(
            f"reweight.batch_tokens is {batch}, more than the {chunk_tokens} tokens of a chunk, so that no chunk would "
            "begin with a batch. Lower it, or lengthen the chunk (chunk_tokens of `train` or `remix`)."
        )
    try:
        schedule = Schedule(
            stages=[Stage(0, 0, prior_mixture("uniform", dict.fromkeys(domains, 1)))],
            domains=[Domain(name, reweight.paths.get(name, name), None, 1.0) for name in domains],
            batch_tokens=batch,
            context=reweight.context or parameters.train.context,
            chunk_tokens=chunk_tokens,
            experiment=parameters.experiment,
            round=0,
            epochs={},
            expected_gain={},
            gain_unit="none",
        )
        for trainer in reweight.exports:
            write(trainer, schedule)
    except TikmixError as error:
        raise TikmixError(f"reweight (exports, paths, batch_tokens, context): {error}") from None
