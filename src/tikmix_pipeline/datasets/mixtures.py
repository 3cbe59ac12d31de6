"""The catalog of mixtures: one table per experiment, to which each round appends its rows."""

from tikmix_pipeline.datasets.rounds import RoundRowsDataset


class MixtureRowsDataset(RoundRowsDataset):
    """The rows of one round in `mixtures.parquet` (`round, strategy, domain, weight, epochs, tokens`).

    Rows of later rounds are dropped when a round's mixture changes, since they were decided from it.
    """

    def _last_kept(self, fingerprints: dict[int, str], fingerprint: str) -> int:
        unchanged = fingerprints.get(self._round) == fingerprint
        return max(fingerprints, default=-1) if unchanged else self._round

    def _order(self) -> list[str]:
        return ["round", "strategy", "domain"]
