"""What the nodes that decide have in common: the influence decided on, and rows of the catalog of mixtures."""

from collections.abc import Mapping, Sequence
from typing import Any

from tikmix_pipeline.parameters import TikmixParameters
from tikmix_pipeline.pipelines.types import Table


def remembered(tables: Sequence[Table], domains: Sequence[str], tikmix: TikmixParameters) -> tuple[list[str], Any]:
    """Return the tasks and the influence (T, K) that a decision rests on, from the tables of the rounds so far."""
    from tikmix_pipeline.mixture.averaging import remember

    tasks = list(dict.fromkeys(tables[-1]["task"]))

    def matrix(table: Table, values: str) -> Any:
        # earlier rounds may have measured more than is asked for now
        wide = table.pivot(index="task", columns="domain", values=values).loc[tasks, [*domains]]
        return wide.to_numpy(dtype="float64")

    if tikmix.memory == "none":
        return tasks, matrix(tables[-1], "influence")
    errors = [matrix(table, "stderr") for table in tables] if tikmix.memory == "precision" else None
    return tasks, remember([matrix(table, "influence") for table in tables], errors)


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
