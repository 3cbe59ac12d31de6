"""A plan as text."""

from collections.abc import Sequence

from tikmix_pipeline.columns import aligned
from tools.capacity.devices import Device
from tools.capacity.plan import Cluster, Stage
from tools.capacity.shape import DecoderShape

_HEADER = ("", "FLOPs", "GB per device", "GB on disk", "time", "dollars")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def plan_table(sections: dict[str, Sequence[Stage]], cluster: Cluster) -> str:
    """Return a table of the stages with a total for every section; what does not fit in memory is marked by `!`.

    Args:
        sections: stages by what they make together.
        cluster: where they run.
    """
    rows: list[Sequence[str]] = [_HEADER]
    for title, stages in sections.items():
        rows += [_row(f"  {stage.name}", [stage], cluster.device) for stage in stages]
        rows.append(_row(title, stages, cluster.device))
    return "\n".join(line.rstrip() for line in aligned(rows))


def describe_shape(shape: DecoderShape) -> str:
    """Return a line about the model."""
    return (
        f"{shape.parameters / 1e9:.3g}B parameters: {shape.layers} layers, width {shape.width}, feed-forward "
        f"{shape.feed_forward}, {shape.heads} heads ({shape.key_value_heads} of keys and values), vocabulary "
        f"{shape.vocabulary}{', tied' if shape.tied else ''}"
    )


def in_words(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _row(name: str, stages: Sequence[Stage], device: Device) -> Sequence[str]:
    memory = max(stage.memory for stage in stages)
    disk = sum(stage.disk for stage in stages)
    return (
        name,
        f"{sum(stage.flops for stage in stages):.2e}",
        f"{_gigabytes(memory)}{'!' if memory > device.memory else ' '}",
        _gigabytes(disk) if disk else "-",
        in_words(sum(stage.seconds for stage in stages)),
        f"{sum(stage.dollars(device) for stage in stages):,.2f}",
    )


def _gigabytes(size: float) -> str:
    gigabytes = size / 1e9
    return f"{gigabytes:,.0f}" if gigabytes >= 10 else f"{gigabytes:.2g}"
