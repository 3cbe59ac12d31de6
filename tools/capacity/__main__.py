"""Print what influence and a sweep by lookahead would take on given devices.

python -m tools.capacity --preset 7B --domains 26 --tasks 9 --devices 64
python -m tools.capacity --parameters 3e9 --device a100 --devices 8 --dollars 1.5
python -m tools.capacity --config path/to/checkpoint --curvature identity --branches 0
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from tikmix_pipeline.errors import TikmixError
from tools.capacity.configs import read_shape
from tools.capacity.devices import DEVICES, Device
from tools.capacity.plan import Cluster, influence_stages, least_devices, sweep_stages
from tools.capacity.shape import SHAPES, DecoderShape, shape_with_parameters
from tools.capacity.table import describe_shape, plan_table
from tools.capacity.workload import Workload

_OF_SHAPE = ("layers", "width", "feed_forward", "heads", "key_value_heads", "vocabulary", "tied")
_OF_DEVICE = tuple(field.name for field in fields(Device) if field.name != "number")
_SOURCES = ("preset", "parameters", "config")
_VOCABULARY = 128_256


def _option(name: str, kind: Any, about: str, default: Any = None) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=default, help=about)
    return click.Option([flag], type=kind, default=default, show_default=default is not None, help=about)


def _options() -> list[click.Parameter]:
    described = _described(Workload) | _described(DecoderShape) | _described(Device)
    model = [
        _option("preset", click.Choice(list(SHAPES)), "A shape: Llama 3.2 1B (the default), Llama 2 7B, Llama 3 70B."),
        _option("parameters", float, "A Llama-like shape of about so many parameters, such as 7e9."),
        _option("config", Path, "A checkpoint's folder, or its config.json."),
        *(_option(name, bool if name == "tied" else int, described[name]) for name in _OF_SHAPE),
    ]
    work = [
        _option(field.name, type(field.default), described[field.name], field.default) for field in fields(Workload)
    ]
    place = [
        _option("curvature", click.Choice(["kfac", "identity"]), "Of the measurement.", "kfac"),
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
    sections = {"influence": influence_stages(shape, workload, cluster, given["curvature"])}
    notes = []
    try:
        sections["sweep by lookahead"] = sweep_stages(shape, workload, cluster)
    except TikmixError as error:  # influence may fit all the same
        notes.append(f"No sweep by lookahead: {error}")
    lines = [
        f"{describe_shape(shape)}; {given['curvature']}, {workload.domains} domains, {workload.tasks} tasks, "
        f"{workload.branches} branches of {workload.branch_tokens} tokens; {cluster.devices} x {given['device']}",
        plan_table({title: stages for title, stages in sections.items() if stages}, cluster),
    ]
    if any(stage.memory > cluster.device.memory for stage in sections["influence"]):
        least = least_devices(shape, workload, cluster.device, given["curvature"])
        advice = f"takes {least} devices" if least else "fits no number of devices: lower --batch-tokens"
        notes.append(f"! more than the {cluster.device.memory / 1e9:.0f} GB of a device: influence {advice}.")
    return "\n".join([*lines, *notes])


def _print_plan(**given: Any) -> None:
    try:
        click.echo(_plan(given))
    except TikmixError as error:
        raise click.ClickException(str(error)) from error


command = click.Command(
    "python -m tools.capacity",
    callback=_print_plan,
    params=_options(),
    help=__doc__.replace("\n\n", "\n\n\b\n"),
)

if __name__ == "__main__":
    command()
