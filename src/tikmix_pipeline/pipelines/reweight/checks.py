"""What exports refuse before anything is computed."""

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.registry import check_trainer, write
from tikmix_pipeline.export.schedule import Domain, Schedule, Stage
from tikmix_pipeline.mixture.prior import prior_mixture
from tikmix_pipeline.mixture.simplex import nearest_name
from tikmix_pipeline.parameters import RunParameters


def check_exports(parameters: RunParameters, chunk_tokens: int) -> None:
    """Write the uniform mixture for every trainer asked for, and keep nothing of it.

    Raises:
        TikmixError: a trainer or a domain is not known, or a trainer cannot take a path or a size.
    """
    reweight, domains = parameters.reweight, list(parameters.corpus.domains)
    for trainer in reweight.exports:
        check_trainer(trainer, "reweight.exports")
    for domain in reweight.paths:
        if domain not in domains:
            known = nearest_name(domain, domains)
            raise TikmixError(f"reweight.paths names the domain '{domain}', which is not there.{known}")
    try:
        schedule = Schedule(
            stages=[Stage(0, 0, prior_mixture("uniform", dict.fromkeys(domains, 1)))],
            domains=[Domain(name, reweight.paths.get(name, name), None, 1.0) for name in domains],
            batch_tokens=reweight.batch_tokens or parameters.train.tokens_per_step,
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
