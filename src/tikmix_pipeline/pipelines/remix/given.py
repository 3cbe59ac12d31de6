"""What a team gives of its run besides parameters: a mixture as a file, and samples of its domains."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json
from tikmix_pipeline.mixture.external_run import SampledDomain
from tikmix_pipeline.parameters.decision import ExternalParameters

if TYPE_CHECKING:
    from tikmix_pipeline.corpus.shards import TokenShards


def sampled_domain(corpus: "TokenShards", domain: str) -> SampledDomain:
    """Return what the sample of a domain tells of the whole."""
    source = corpus.manifest.sources.domains[domain]
    return SampledDomain(
        tokens=corpus.tokens(domain),
        bytes_per_token=corpus.bytes_per_token(domain),
        total_bytes=source.total_bytes,
        is_estimate=bool(source.sampled),
    )


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
    owner = _owner(path, root)
    if owner not in (None, experiment):
        raise TikmixError(
            f"remix.current: {path} is a mixture of the experiment '{owner}', and this one is '{experiment}'. If the "
            "run was trained under it all the same, give its weights themselves; otherwise set experiment."
        )
    return weights


def _owner(path: Path, root: Path) -> str | None:
    """Return the experiment whose folder a file lies in, if it lies in one's."""
    experiments = (root / "data" / "07_model_output").resolve()
    path = path.resolve()
    return path.relative_to(experiments).parts[0] if path.is_relative_to(experiments) else None
