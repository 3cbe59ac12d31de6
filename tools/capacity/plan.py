"""Seconds and dollars of `influence` and of a `sweep` by lookahead.

    seconds = operations / (devices · peak · utilisation)  +  bytes / (devices · rate)

The bytes are those of elementwise work in memory, of files, and of reductions between devices.

A phase is spread over all devices evenly; only an eigendecomposition is done by one. Reading and multiplying do not
overlap. What is left out: loading the model, the corpus, start-up, the solver, and the surrogate (seconds each).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tools.capacity import costs
from tools.capacity.costs import Workload
from tools.capacity.devices import Device
from tools.capacity.shape import DecoderShape

Curvature = Literal["kfac", "identity"]

_SUM_MOVES = 5
"""Times that a batch's gradient goes to or from memory: written, and with its sum read and written again."""
_PRECONDITION_MOVES = 12
"""Times that a preconditioned gradient goes to or from memory, beside the products' own operands."""
_FUNCTION_MOVES = 20
"""The same of eigenvalues in float64 while f of them is taken, in units of a gradient."""


@dataclass(frozen=True)
class Cluster:
    """Equal devices that work together.

    Attributes:
        device: one of them.
        devices: how many.
    """

    device: Device
    devices: int = 1

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise TikmixError(f"--devices ({self.devices}) must be at least 1.")

    def passes(self, flops: float) -> float:
        """Return the seconds of passes through the model."""
        return flops / (self.devices * self.device.peak * self.device.utilisation)

    def products(self, flops: float) -> float:
        """Return the seconds of products in float32."""
        return flops / (self.devices * self.device.float32_peak * self.device.float32_utilisation)

    def moving(self, size: float) -> float:
        """Return the seconds in which so many bytes go between memory and processors."""
        return size / (self.devices * self.device.memory_rate)

    def elementwise(self, numbers: float) -> float:
        """Return the seconds of elementwise work that so many numbers of activations take part in."""
        return self.moving(numbers * self.device.number)

    def writing(self, size: float) -> float:
        """Return the seconds in which so many bytes are written to files."""
        return size / (self.devices * self.device.write_rate)

    def reading(self, size: float) -> float:
        """Return the seconds in which so many bytes are read from files."""
        return size / (self.devices * self.device.read_rate)

    def decompositions(self, sizes: Iterable[int]) -> float:
        """Return the seconds in which covariances of these sizes are decomposed, each by one device."""
        single = [costs.decomposition_flops(size) * (1 + self.device.eigen_half / size) for size in sizes]
        return max(sum(single) / self.devices, *single) / self.device.eigen_rate

    def reduction(self, size: float) -> float:
        """Return the seconds in which so many bytes, that every device has, are summed and shared out."""
        return 0.0 if self.devices == 1 else size / self.device.network_rate


@dataclass(frozen=True)
class Phase:
    """One phase of a plan.

    Attributes:
        name: what it does.
        flops: operations of all devices.
        seconds: on the clock.
        memory: bytes of one device.
        disk: bytes that are left there.
        devices: that it is paid for.
    """

    name: str
    flops: float
    seconds: float
    memory: float
    disk: float
    devices: int

    def dollars(self, device: Device) -> float:
        """Return the price of all devices for as long."""
        return self.seconds / 3600 * self.devices * device.dollars


def influence_phases(shape: DecoderShape, workload: Workload, cluster: Cluster, curvature: Curvature) -> list[Phase]:
    """Return the phases of one measurement.

    Args:
        shape: the model's.
        workload: what is measured.
        cluster: where.
        curvature: `kfac`, or `identity`, which needs no factors.
    """
    of = (shape, workload, cluster)
    if curvature == "identity":
        return [_gradients(*of), _products(*of, preconditioned=False)]
    return [_factors(*of), _decompositions(shape, cluster), _gradients(*of), _products(*of, preconditioned=True)]


def _factors(shape: DecoderShape, workload: Workload, cluster: Cluster) -> Phase:
    tokens = workload.factor_tokens
    passes, covariances = (
        tokens * costs.factor_pass_flops(shape, workload.context),
        tokens * costs.covariance_flops(shape),
    )
    size = costs.factor_disk(shape)
    batches = _batches(tokens, workload, cluster)
    seconds = (
        cluster.passes(passes)
        + cluster.products(covariances)
        + cluster.elementwise(tokens * costs.factor_traffic(shape))
    )
    seconds += cluster.writing(size) + cluster.reduction(size)
    # every batch adds its covariances to the sums: a product to be written, and both to be read and one written
    seconds += cluster.moving(4 * size * batches)
    memory = costs.factor_memory(shape, workload, cluster.device, cluster.devices)
    return Phase("factors", passes + covariances, seconds, memory, size, cluster.devices)


def _decompositions(shape: DecoderShape, cluster: Cluster) -> Phase:
    flops = costs.eigendecomposition_flops(shape)
    seconds = cluster.decompositions(costs.decomposed_sizes(shape))
    memory = costs.decomposition_memory(shape, cluster.devices)
    return Phase("eigendecompositions", flops, seconds, memory, 0.0, cluster.devices)


def _gradients(shape: DecoderShape, workload: Workload, cluster: Cluster) -> Phase:
    of_domains = workload.domains * workload.tokens
    of_tasks = workload.tasks * workload.items * workload.item_tokens
    flops = of_domains * costs.training_flops(shape, workload.context)
    flops += of_tasks * costs.training_flops(shape, workload.item_tokens)
    size = costs.gradient_disk(shape, workload)
    gradient = costs.FLOAT32 * shape.parameters
    batches = max(sum(workload.rows), _batches(of_domains + of_tasks, workload, cluster))
    seconds = cluster.passes(flops) + cluster.elementwise((of_domains + of_tasks) * costs.training_traffic(shape))
    seconds += cluster.moving(_SUM_MOVES * gradient * batches) + cluster.writing(size) + cluster.reduction(size)
    memory = costs.gradient_memory(shape, workload, cluster.device, cluster.devices)
    return Phase("gradients", flops, seconds, memory, size, cluster.devices)


def _products(shape: DecoderShape, workload: Workload, cluster: Cluster, *, preconditioned: bool) -> Phase:
    task_rows, domain_rows = workload.rows
    flops = task_rows * domain_rows * costs.dot_flops(shape)
    gradient = costs.FLOAT32 * shape.parameters
    moved = (task_rows + 2 * domain_rows) * gradient
    if preconditioned:
        flops += task_rows * costs.precondition_flops(shape)
        moved += (_PRECONDITION_MOVES * task_rows + _FUNCTION_MOVES) * gradient
    size = costs.gradient_disk(shape, workload)
    seconds = cluster.products(flops) + cluster.moving(moved) + cluster.reading(size)
    working = 1e6 * InfluenceParameters().memory_megabytes
    memory = costs.product_memory(shape, cluster.devices, working) if preconditioned else working
    return Phase("products", flops, seconds, memory, 0.0, cluster.devices)


def sweep_phases(shape: DecoderShape, workload: Workload, cluster: Cluster) -> list[Phase]:
    """Return the phases of a sweep by lookahead: branches side by side, each on as few devices as hold it.

    Raises:
        TikmixError: all devices together cannot hold one branch.
    """
    if not workload.branches:
        return []
    group = _devices_per_branch(shape, workload, cluster)
    one = Cluster(cluster.device, group)
    waves = ceil(workload.branches / (cluster.devices // group))
    training = workload.branch_tokens * costs.training_flops(shape, workload.branch_context)
    scored = workload.tasks * workload.scored_items * workload.item_tokens
    scoring = scored * costs.forward_flops(shape, workload.item_tokens)
    loading = one.reading(costs.checkpoint_disk(shape))
    memory = costs.branch_memory(shape, workload, cluster.device, group)
    trained_in = (
        loading + one.passes(training) + one.elementwise(workload.branch_tokens * costs.training_traffic(shape))
    )
    scored_in = one.passes(scoring) + one.elementwise(scored * costs.forward_traffic(shape))
    times = {
        f"branches, {group} devices each" if group > 1 else "branches": (training, trained_in),
        "scoring": (scoring, scored_in),
    }
    return [
        Phase(name, workload.branches * flops, waves * seconds, memory, 0.0, cluster.devices)
        for name, (flops, seconds) in times.items()
    ]


def least_devices(shape: DecoderShape, workload: Workload, device: Device, curvature: Curvature) -> int | None:
    """Return the fewest devices, among powers of two, whose memory holds every phase of `influence`.

    Returns:
        None where a device's own share, whatever their number, is more than its memory.
    """
    for devices in _powers_of_two(1 << 14):
        phases = influence_phases(shape, workload, Cluster(device, devices), curvature)
        if all(phase.memory <= device.memory for phase in phases):
            return devices
    return None


def _devices_per_branch(shape: DecoderShape, workload: Workload, cluster: Cluster) -> int:
    for devices in _powers_of_two(cluster.devices):
        if costs.branch_memory(shape, workload, cluster.device, devices) <= cluster.device.memory:
            return devices
    needed = costs.branch_memory(shape, workload, cluster.device, cluster.devices)
    raise TikmixError(
        f"--devices {cluster.devices}: a branch needs {needed / 1e9:.0f} GB on each of them, and one has "
        f"{cluster.device.memory / 1e9:.0f} GB. Take more devices, lower --batch-tokens, or leave the sweep out by "
        "--branches 0."
    )


def _powers_of_two(most: int) -> Iterator[int]:
    devices = 1
    while devices <= most:
        yield devices
        devices *= 2


def _batches(tokens: int, workload: Workload, cluster: Cluster) -> int:
    """Return the batches of all devices."""
    return max(cluster.devices, ceil(tokens / workload.batch_tokens))
