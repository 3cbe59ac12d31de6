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
from tools.capacity import costs, space
from tools.capacity.costs import Workload
from tools.capacity.devices import Device
from tools.capacity.shape import DecoderShape
from tools.capacity.space import Gradients, KeptPrecision

Curvature = Literal["kfac", "identity"]

_SUM_MOVES = 5
"""Times that a batch's gradient goes to or from memory: written, and with its sum read and written again."""
_PRECONDITION_MOVES = 12
"""Times that a preconditioned gradient goes to or from memory, beside the products' own operands."""
_FUNCTION_MOVES = 20
"""The same of eigenvalues in float64 while f of them is taken, in units of a gradient."""
_RAISED = 3
"""Times that a row in bfloat16 goes to or from memory until it is multiplied, raised to float32, in its own bytes; and
twice more as float32."""


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
class Keeping:
    """What becomes of gradients (`influence.gradients`), and in what precision they are kept.

    Attributes:
        gradients: of tasks and domains kept, or streamed.
        precision: of kept ones (`influence.kept_precision`).
    """

    gradients: Gradients = "keep"
    precision: KeptPrecision = "float32"


@dataclass(frozen=True)
class Phase:
    """One phase of a plan.

    Attributes:
        name: what it does.
        flops: operations of all devices.
        seconds: on the clock.
        memory: bytes of one device.
        disk: most bytes there at a time.
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


_KEPT = Keeping()


def influence_phases(
    shape: DecoderShape, workload: Workload, cluster: Cluster, curvature: Curvature, keeping: Keeping = _KEPT
) -> list[Phase]:
    """Return the phases of one measurement.

    Args:
        shape: the model's.
        workload: what is measured.
        cluster: where. Streaming is counted on several devices as if they shared it, which they cannot do yet.
        curvature: `kfac`, or `identity`, which needs no factors.
        keeping: what becomes of the gradients.
    """
    fitted = curvature != "identity"
    first = [_factors(shape, workload, cluster), _decompositions(shape, cluster, keeping)] if fitted else []
    gradients = _gradients(shape, workload, cluster, keeping)
    if keeping.gradients == "stream":
        return [*first, gradients, _streamed_products(shape, workload, cluster, preconditioned=fitted)]
    return [*first, gradients, _products(shape, workload, cluster, keeping.precision, preconditioned=fitted)]


def _factors(shape: DecoderShape, workload: Workload, cluster: Cluster) -> Phase:
    tokens = workload.factor_tokens
    passes, covariances = (
        tokens * costs.factor_pass_flops(shape, workload.context),
        tokens * costs.covariance_flops(shape),
    )
    size = space.factor_disk(shape)
    batches = _batches(tokens, workload, cluster)
    seconds = (
        cluster.passes(passes)
        + cluster.products(covariances)
        + cluster.elementwise(tokens * costs.factor_traffic(shape))
    )
    seconds += cluster.writing(size) + cluster.reduction(size)
    # every batch adds its covariances to the sums: a product to be written, and both to be read and one written
    seconds += cluster.moving(4 * size * batches)
    memory = space.factor_memory(shape, workload, cluster.device, cluster.devices)
    return Phase("factors", passes + covariances, seconds, memory, size, cluster.devices)


def _decompositions(shape: DecoderShape, cluster: Cluster, keeping: Keeping) -> Phase:
    flops = costs.eigendecomposition_flops(shape)
    seconds = cluster.decompositions(costs.decomposed_sizes(shape))
    memory = space.decomposition_memory(shape, cluster.devices)
    if keeping.gradients == "stream":  # the model is needed again for the domains
        memory += space.FLOAT32 * shape.parameters / cluster.devices
    return Phase("eigendecompositions", flops, seconds, memory, 0.0, cluster.devices)


def _gradients(shape: DecoderShape, workload: Workload, cluster: Cluster, keeping: Keeping) -> Phase:
    of_domains = workload.domains * workload.tokens
    of_tasks = workload.tasks * workload.items * workload.item_tokens
    flops = of_domains * costs.training_flops(shape, workload.context)
    flops += of_tasks * costs.training_flops(shape, workload.item_tokens)
    size = space.gradient_disk(shape, workload, keeping.gradients, keeping.precision)
    gradient = space.FLOAT32 * shape.parameters
    batches = max(sum(workload.rows), _batches(of_domains + of_tasks, workload, cluster))
    seconds = cluster.passes(flops) + cluster.elementwise((of_domains + of_tasks) * costs.training_traffic(shape))
    seconds += cluster.moving(_SUM_MOVES * gradient * batches) + cluster.writing(size) + cluster.reduction(size)
    memory = space.gradient_memory(shape, workload, cluster.device, cluster.devices)
    return Phase("gradients", flops, seconds, memory, size, cluster.devices)


def _multiplying(shape: DecoderShape, workload: Workload, *, preconditioned: bool) -> tuple[float, float]:
    """Return the operations of all products, and the bytes moved to multiply the tasks' gradients by the curvature."""
    task_rows, domain_rows = workload.rows
    flops = task_rows * domain_rows * costs.dot_flops(shape)
    if not preconditioned:
        return flops, 0.0
    moved = (_PRECONDITION_MOVES * task_rows + _FUNCTION_MOVES) * space.FLOAT32 * shape.parameters
    return flops + task_rows * costs.precondition_flops(shape), moved


def _products(
    shape: DecoderShape, workload: Workload, cluster: Cluster, kept: KeptPrecision, *, preconditioned: bool
) -> Phase:
    task_rows, domain_rows = workload.rows
    flops, moved = _multiplying(shape, workload, preconditioned=preconditioned)
    moved += (task_rows + 2 * domain_rows) * space.FLOAT32 * shape.parameters
    numbers = space.numbers_read(shape, workload) if preconditioned else shape.parameters * sum(workload.rows)
    read = numbers * (space.FLOAT32 if kept == "float32" else space.BFLOAT16)
    seconds = cluster.products(flops) + cluster.moving(moved) + cluster.reading(read)
    memory = space.product_memory(shape, workload, cluster.devices, preconditioned=preconditioned)
    return Phase("products", flops, seconds, memory, 0.0, cluster.devices)


def _streamed_products(shape: DecoderShape, workload: Workload, cluster: Cluster, *, preconditioned: bool) -> Phase:
    """Return the products of streamed gradients: all rows of the tasks are read for every chunk of every domain."""
    task_rows, domain_rows = workload.rows
    flops, moved = _multiplying(shape, workload, preconditioned=preconditioned)
    rows = space.BFLOAT16 * task_rows * shape.parameters
    moved += domain_rows * (_RAISED + 2 * space.FLOAT32 / space.BFLOAT16) * rows
    seconds = cluster.products(flops) + cluster.moving(moved)
    seconds += cluster.reading((1 + domain_rows) * rows) + cluster.writing(rows)
    memory = space.streaming_memory(shape, workload, cluster.device, cluster.devices, preconditioned=preconditioned)
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
    loading = one.reading(space.checkpoint_disk(shape))
    memory = space.branch_memory(shape, workload, cluster.device, group)
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


def least_devices(
    shape: DecoderShape, workload: Workload, device: Device, curvature: Curvature, keeping: Keeping = _KEPT
) -> int | None:
    """Return the fewest devices, among powers of two, whose memory holds every phase of `influence`.

    Returns:
        None where a device's own share, whatever their number, is more than its memory.
    """
    for devices in _powers_of_two(1 << 14):
        phases = influence_phases(shape, workload, Cluster(device, devices), curvature, keeping)
        if all(phase.memory <= device.memory for phase in phases):
            return devices
    return None


def _devices_per_branch(shape: DecoderShape, workload: Workload, cluster: Cluster) -> int:
    for devices in _powers_of_two(cluster.devices):
        if space.branch_memory(shape, workload, cluster.device, devices) <= cluster.device.memory:
            return devices
    needed = space.branch_memory(shape, workload, cluster.device, cluster.devices)
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
    return max(cluster.devices, ceil(tokens / workload.pass_tokens))
