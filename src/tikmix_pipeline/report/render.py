"""The report as one page of HTML that needs nothing else: no network, no script, no font."""

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.report import notation
from tikmix_pipeline.report.constraint_cost import cost_sentence, held
from tikmix_pipeline.report.content import RemixReport
from tikmix_pipeline.report.gain_chart import gain_chart
from tikmix_pipeline.report.headline import headline, moved_share
from tikmix_pipeline.report.influence_map import influence_map
from tikmix_pipeline.report.mixture_chart import mixture_lines
from tikmix_pipeline.report.supply_chart import supply_lines
from tikmix_pipeline.report.sureness import order_sentence, shakiest

if TYPE_CHECKING:
    from jinja2 import Environment

_WIDEST_NAME = 22
"""Characters of a domain's or task's name that a table makes room for on one line."""

_FILTERS = {
    "large": notation.large,
    "times": notation.times,
    "share": notation.share,
    "operations": notation.operations,
    "correlation": notation.correlation,
    "listed": notation.listed,
}


def render_report(report: RemixReport) -> str:
    """Return the page; the same report gives the same text."""
    return _environment().get_template("report.html").render(_page(report))


def page_digest() -> str:
    """Return the SHA-256 of the templates: another one, another page."""
    digest = hashlib.sha256()
    for template in sorted((Path(__file__).parent / "templates").iterdir()):
        digest.update(template.read_bytes())
    return digest.hexdigest()


def _page(report: RemixReport) -> dict[str, Any]:
    """Gather what the template shows and cannot work out itself."""
    tasks, domains = [row.name for row in report.tasks], [row.name for row in report.domains]
    return {
        "report": report,
        "name_width": min(max(map(len, (*tasks, *domains)), default=1) + 1, _WIDEST_NAME),
        "headline": headline(report),
        "moved": moved_share(report.domains),
        "mixture": mixture_lines(report.domains),
        "gains": gain_chart(report.tasks),
        "held": held(report),
        "constraints_cost": cost_sentence(report.tasks),
        "supply": supply_lines(report.domains),
        "order": order_sentence(report.rank_stability),
        "shakiest": shakiest(report.tasks),
        "influence": influence_map(report.cells, tasks, domains),
        "cost_share": report.cost.flops / report.cost.chunk_flops,
    }


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        # names of domains and tasks are the user's: they may hold anything
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment
