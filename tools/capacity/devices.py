"""Devices: what they reach, hold and cost.

The figures of the GPUs are data sheets (dense rates, https://www.nvidia.com/en-us/data-center/h100/ and .../a100/) and
assumptions, marked below; those of the CPU are measured (`benchmarks/capacity.py`).
"""

from dataclasses import dataclass

from tikmix_pipeline.errors import TikmixError


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        peak: rate of matrix products in passes through the model, operations per second.
        float32_peak: the same in float32, which covariances, preconditioning and products are in.
        eigen_rate: operations per second that a large float64 eigendecomposition reaches, at 9 n³ each.
        eigen_half: size n of the one that reaches half of that.
        memory: bytes.
        memory_rate: bytes per second between memory and processor in elementwise work.
        write_rate: bytes per second to the store of gradients and factors.
        read_rate: bytes per second from there, and from checkpoints.
        network_rate: bytes per second that a device sends to others in a reduction.
        utilisation: share of `peak` that the matrix products of passes reach, communication between devices included.
        float32_utilisation: share of `float32_peak` that covariances and products reach.
        number: bytes of a number in activations.
        dollars: per device and hour.
    """

    peak: float
    float32_peak: float
    eigen_rate: float
    eigen_half: float
    memory: float
    memory_rate: float
    write_rate: float
    read_rate: float
    network_rate: float
    utilisation: float
    float32_utilisation: float
    number: int
    dollars: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name in ("dollars", "eigen_half") else 1e-9
            most = 1 if "utilisation" in name else float("inf")
            if not least <= value <= most:
                raise TikmixError(
                    f"--{name.replace('_', '-')} ({value:g}) must be above 0{' and at most 1' if most == 1 else ''}."
                )


DEVICES = {
    "h100": Device(
        peak=989e12,
        float32_peak=67e12,
        eigen_rate=1e12,  # assumed: 1.5 % of the float64 tensor rate
        eigen_half=4096,  # assumed
        memory=80e9,
        memory_rate=3.35e12,
        write_rate=1e9,  # assumed: a parallel file system's share of one device
        read_rate=2e9,  # assumed
        network_rate=50e9,  # assumed: one 400 Gbit/s link per device
        utilisation=0.5,  # assumed: with elementwise work it makes 0.4 to 0.45 of the peak
        float32_utilisation=0.7,  # assumed
        number=2,
        dollars=3.0,  # assumed
    ),
    "a100": Device(
        peak=312e12,
        float32_peak=19.5e12,
        eigen_rate=0.4e12,  # assumed
        eigen_half=4096,  # assumed
        memory=80e9,
        memory_rate=2.0e12,
        write_rate=1e9,  # assumed
        read_rate=2e9,  # assumed
        network_rate=25e9,  # assumed
        utilisation=0.55,  # assumed
        float32_utilisation=0.8,  # assumed
        number=2,
        dollars=1.8,  # assumed
    ),
    "cpu": Device(
        peak=94.5e9,
        float32_peak=94.5e9,
        eigen_rate=50e9,
        eigen_half=300,
        memory=16e9,
        memory_rate=14e9,
        write_rate=1.1e9,  # to the system's cache, as long as it holds them
        read_rate=4.6e9,  # the same
        network_rate=1e9,  # assumed
        utilisation=0.95,
        float32_utilisation=0.88,
        number=4,
        dollars=0.04,  # assumed
    ),
}
"""`cpu` is one core of the machine of docs/scaling.md."""
