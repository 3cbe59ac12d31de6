"""Print what influence and a sweep by lookahead would take on given devices.

python -m tools.capacity --preset 7B --domains 26 --tasks 9 --devices 64
python -m tools.capacity --parameters 3e9 --device a100 --devices 8 --dollars 1.5
python -m tools.capacity --config path/to/checkpoint --curvature identity --branches 0
python -m tools.capacity --preset 8B --vocabulary 32000 --devices 1 --gradients stream
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import click

from tikmix_pipeline.columns import aligned
from tikmix_pipeline.errors import TikmixError
from tools.capacity.costs import Workload
from tools.capacity.devices import DEVICES, Device
from tools.capacity.plan import Cluster, Keeping, Phase, influence_phases, least_devices, sweep_phases
from tools.capacity.shape import SHAPES, DecoderShape, read_shape, shape_with_parameters
from tools.capacity.space import (
    MOST_KEPT,
    Gradients,
    KeptPrecision,
    gradient_disk,
    least_working,
    numbers_read,
    single_read_working,
)

_OF_SHAPE = ("layers", "width", "feed_forward", "heads", "key_value_heads", "vocabulary", "tied")
_OF_DEVICE = tuple(field.name for field in fields(Device) if field.name != "number")
_SOURCES = ("preset", "parameters", "config")
_VOCABULARY = 128_256
_ALONE = "one process alone can stream"
_PRESETS = "A shape: SmolLM2 135M, Llama 3.2 1B (the default), Llama 2 7B, Llama 3.1 8B, Llama 3 70B."


def _option(name: str, kind: Any, about: str, default: Any = None) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=default, help=about)
    return click.Option([flag], type=kind, default=default, show_default=default is not None, help=about)


def _options() -> list[click.Parameter]:
    described = _described(Workload) | _described(DecoderShape) | _described(Device)
    model = [
        _option("preset", click.Choice(list(SHAPES)), _PRESETS),
        _option("parameters", float, "A Llama-like shape of about so many parameters, such as 7e9."),
        _option("config", Path, "A checkpoint's folder, or its config.json."),
        *(_option(name, bool if name == "tied" else int, described[name]) for name in _OF_SHAPE),
    ]
    work = [
        _option(field.name, type(field.default), described[field.name], field.default) for field in fields(Workload)
    ]
    place = [
        _option("curvature", click.Choice(["kfac", "identity"]), "Of the measurement.", "kfac"),
        _option("gradients", click.Choice(["auto", *get_args(Gradients)]), "As influence.gradients.", "auto"),
        _option("kept_precision", click.Choice(get_args(KeptPrecision)), "As influence.kept_precision.", "float32"),
        _option("free_disk", float, "Bytes that auto finds free.", float("inf")),
        _option("device", click.Choice(list(DEVICES)), "A kind of device; what follows changes its figures.", "h100"),
        _option("devices", int, "How many.", 8),
        *(_option(name, float, described[name]) for name in _OF_DEVICE),
    ]
    return [*model, *work, *place]


def _described(owner: type) -> dict[str, str]:
    """Return what a dataclass's docstring says of its fields."""
    lines = (owner.__doc__ or "").partition("Attributes:")[2].strip().splitlines()
    pairs = (line.strip().partition(": ") for line in lines)
    return {name: about[:1].upper() + about[1:] for name, _, about in pairs if about}


def _shape(given: dict[str, Any]) -> DecoderShape:
    sources = [name for name in _SOURCES if given[name] is not None]
    if len(sources) > 1:
        raise TikmixError(f"--{sources[0]} and --{sources[1]} both describe the model. Give one of the two.")
    if given["parameters"] is not None:
        shape = shape_with_parameters(given["parameters"], given["vocabulary"] or _VOCABULARY)
    elif given["config"] is not None:
        shape = read_shape(given["config"])
    else:
        shape = SHAPES[given["preset"] or "1B"]
    changes = {name: given[name] for name in _OF_SHAPE if given[name] is not None}
    if changes.keys() & {"width", "heads"}:
        changes = {"head_width": None, "key_value_heads": changes.get("heads", shape.key_value_heads)} | changes
    return replace(shape, **changes)


def _plan(given: dict[str, Any]) -> str:
    shape = _shape(given)
    workload = Workload(**{field.name: given[field.name] for field in fields(Workload)})
    changes = {name: given[name] for name in _OF_DEVICE if given[name] is not None}
    cluster = Cluster(replace(DEVICES[given["device"]], **changes), given["devices"])
    keeping, why = _keeping(shape, workload, cluster, given)
    sections = {"influence": influence_phases(shape, workload, cluster, given["curvature"], keeping)}
    notes = [*_notes(shape, workload, cluster, given["curvature"], keeping)]
    try:
        sections["sweep by lookahead"] = sweep_phases(shape, workload, cluster)
    except TikmixError as error:  # influence may fit all the same
        notes.append(f"No sweep by lookahead: {error}")
    lines = [
        f"{describe_shape(shape)}; {given['curvature']}, {workload.domains} domains, {workload.tasks} tasks, "
        f"{workload.branches} branches of {workload.branch_tokens} tokens; {cluster.devices} x {given['device']}",
        f"influence.gradients={keeping.gradients}: {why}",
        plan_table({title: phases for title, phases in sections.items() if phases}, cluster),
    ]
    if any(phase.memory > cluster.device.memory for phase in sections["influence"]):
        least = least_devices(shape, workload, cluster.device, given["curvature"], keeping)
        advice = f"takes {least} devices" if least else "fits no number of devices: lower --pass-tokens"
        notes.append(f"! more than the {cluster.device.memory / 1e9:.0f} GB of a device: influence {advice}.")
    return "\n".join([*lines, *notes])


def _keeping(shape: DecoderShape, workload: Workload, cluster: Cluster, given: dict[str, Any]) -> tuple[Keeping, str]:
    """Return what becomes of the gradients, and why, as `influence.gradients` decides it in a run."""
    kept, streamed = (
        gradient_disk(shape, workload, gradients, given["kept_precision"]) for gradients in get_args(Gradients)
    )
    sizes = f"kept they take {_gigabytes(kept)} GB on disk, streamed {_gigabytes(streamed)} GB"
    asked = given["gradients"]
    if asked == "auto":
        streams = cluster.devices == 1 and kept > min(MOST_KEPT, given["free_disk"] / 2)
        why = "as auto chooses above 10 GB or half of the free disk" if cluster.devices == 1 else _ALONE
        return Keeping("stream" if streams else "keep", given["kept_precision"]), f"{sizes}; {why}"
    alone = f"; on paper, for {_ALONE}" if asked == "stream" and cluster.devices > 1 else ""
    return Keeping(asked, given["kept_precision"]), sizes + alone


def _notes(
    shape: DecoderShape, workload: Workload, cluster: Cluster, curvature: str, keeping: Keeping
) -> Iterator[str]:
    """Yield what `influence.memory_megabytes` should be, where it is too little."""
    given, least = 1e6 * workload.memory_megabytes, least_working(shape)
    if curvature == "identity":
        return
    if given < least:
        yield f"! influence.memory_megabytes ({workload.memory_megabytes:g}) must be {least / 1e6:.0f} at least."
    enough = single_read_working(shape, workload)
    if keeping.gradients == "keep" and given < enough:
        read, once = numbers_read(shape, workload), shape.parameters * sum(workload.rows)
        yield (
            f"Gradients are read {read / once:.3g} times over; with influence.memory_megabytes={enough / 1e6:.0f} once."
        )


def _print_plan(**given: Any) -> None:
    try:
        click.echo(_plan(given))
    except TikmixError as error:
        raise click.ClickException(str(error)) from error


_HEADER = ("", "FLOPs", "GB per device", "GB on disk", "time", "dollars")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def plan_table(sections: dict[str, Sequence[Phase]], cluster: Cluster) -> str:
    """Return a table of the phases with a total for every section; what does not fit in memory is marked by `!`.

    Args:
        sections: phases by what they make together.
        cluster: where they run.
    """
    rows: list[Sequence[str]] = [_HEADER]
    for title, phases in sections.items():
        rows += [_row(f"  {phase.name}", [phase], cluster.device) for phase in phases]
        rows.append(_row(title, phases, cluster.device))
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


def _row(name: str, phases: Sequence[Phase], device: Device) -> Sequence[str]:
    memory = max(phase.memory for phase in phases)
    disk = sum(phase.disk for phase in phases)
    return (
        name,
        f"{sum(phase.flops for phase in phases):.2e}",
        f"{_gigabytes(memory)}{'!' if memory > device.memory else ' '}",
        _gigabytes(disk) if disk else "-",
        in_words(sum(phase.seconds for phase in phases)),
        f"{sum(phase.dollars(device) for phase in phases):,.2f}",
    )


def _gigabytes(size: float) -> str:
    gigabytes = size / 1e9
    return f"{gigabytes:,.0f}" if gigabytes >= 10 else f"{gigabytes:.2g}"


command = click.Command(
    "python -m tools.capacity",
    callback=_print_plan,
    params=_options(),
    help=__doc__.replace("\n\n", "\n\n\b\n"),
)

if __name__ == "__main__":
    command()
