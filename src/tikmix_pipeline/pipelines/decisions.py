"""What the nodes that decide have in common: the influence decided on, and rows of the catalog of mixtures."""

from collections.abc import Mapping, Sequence
from typing import Any

from tikmix_pipeline.parameters import TikmixParameters
from tikmix_pipeline.pipelines.types import Table


def remembered(tables: Sequence[Table], domains: Sequence[str], tikmix: TikmixParameters) -> tuple[list[str], Any]:
    """Return the tasks and the influence (T, K) that a decision rests on, from the tables of the rounds so far."""
    from tikmix_pipeline.mixture.memory import remember

    matrices = [influence_matrix(table, domains) for table in tables]
    tasks, influence_TK = matrices[-1]
    if tikmix.memory == "none":
        return tasks, influence_TK
    errors = [influence_matrix(table, domains, "stderr")[1] for table in tables]
    return tasks, remember([matrix for _, matrix in matrices], errors if tikmix.memory == "precision" else None)


def influence_matrix(table: Table, domains: Sequence[str], values: str = "influence") -> tuple[list[str], Any]:
    """Turn a table of `task, domain, influence, stderr` into task names and a (T, K) matrix of one of the last two."""
    import pandas as pd

    wide = table.pivot(index="task", columns="domain", values=values).loc[pd.unique(table["task"]), [*domains]]
    return list(wide.index), wide.to_numpy(dtype="float64")


def as_rows(record: Mapping[str, Any]) -> Table:
    """Return a record's rows in the catalog of mixtures."""
    import pandas as pd

    domains = list(record["weights"])
    return pd.DataFrame(
        {
            "round": record["round"],
            "strategy": record["strategy"],
            "domain": domains,
            "weight": [record["weights"][domain] for domain in domains],
            "epochs": [record["epochs"][domain] for domain in domains],
            "tokens": [record["tokens"][domain] for domain in domains],
        }
    )
