"""Seconds, bytes and dollars: how they scale, and what does not fit."""

from dataclasses import replace

import pytest

from tikmix_pipeline.errors import TikmixError
from tools.capacity.costs import Workload, decomposed_sizes, decomposition_flops
from tools.capacity.devices import DEVICES, Device
from tools.capacity.plan import Cluster, Keeping, Phase, influence_phases, least_devices, sweep_phases
from tools.capacity.shape import SHAPES, shape_with_parameters
from tools.capacity.space import gradient_disk

SMALL = SHAPES["1B"]
H100 = DEVICES["h100"]
WORK = Workload()


def by_name(phases: list[Phase]) -> dict[str, Phase]:
    return {phase.name.partition(",")[0]: phase for phase in phases}


def plan(devices: int = 8, device: Device = H100, work: Workload = WORK) -> dict[str, Phase]:
    return by_name(influence_phases(SMALL, work, Cluster(device, devices), "kfac"))


@pytest.mark.parametrize(
    ("name", "billions"), [("135M", 0.1345), ("1B", 1.236), ("7B", 6.738), ("8B", 8.030), ("70B", 70.55)]
)
def test_presets_have_the_parameters_of_their_models(name: str, billions: float) -> None:
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("parameters", [3e7, 1e9, 7e9, 70e9, 400e9])
def test_shape_has_about_as_many_parameters_as_asked_for(parameters: float) -> None:
    shape = shape_with_parameters(parameters, 32_000)
    assert shape.parameters == pytest.approx(parameters, rel=0.1)


def test_kept_gradients_are_a_copy_of_the_model_per_part_and_streamed_ones_of_the_tasks_alone() -> None:
    parts, parameters, table = 4, SMALL.parameters, SMALL.vocabulary * SMALL.width
    assert gradient_disk(SMALL, WORK) == (9 + 26) * parts * 4 * parameters
    assert gradient_disk(SMALL, WORK, "keep", "bfloat16") == (9 + 26) * parts * 2 * parameters
    assert gradient_disk(SMALL, WORK, "stream") == 9 * parts * 2 * (parameters + table)
    assert plan()["gradients"].disk == gradient_disk(SMALL, WORK)


def test_streaming_reads_the_tasks_rows_for_every_chunk_of_a_domain() -> None:
    alone = Cluster(replace(H100, memory_rate=1e30, float32_peak=1e30, write_rate=1e30))
    found = by_name(influence_phases(SMALL, WORK, alone, "kfac", Keeping("stream")))["products"]
    assert found.seconds == pytest.approx((1 + 26 * 4) * 9 * 4 * 2 * SMALL.parameters / H100.read_rate, rel=1e-3)


def test_room_for_all_rows_of_the_tasks_reads_every_gradient_once() -> None:
    alone = replace(H100, memory_rate=1e30, float32_peak=1e30)
    enough = replace(WORK, memory_megabytes=1e6)
    once, again = plan(1, alone, enough)["products"].seconds, plan(1, alone)["products"].seconds
    assert once == pytest.approx(gradient_disk(SMALL, WORK) / H100.read_rate, rel=1e-3)
    assert again > 10 * once


def test_identity_has_no_factors_and_takes_less() -> None:
    identity = by_name(influence_phases(SMALL, WORK, Cluster(H100, 8), "identity"))
    assert list(identity) == ["gradients", "products"]
    assert identity["gradients"] == plan()["gradients"]
    assert identity["products"].seconds < plan()["products"].seconds


def test_twice_the_devices_halve_passes_and_share_memory() -> None:
    alone = replace(H100, network_rate=1e30)
    few, many = plan(8, alone), plan(16, alone)
    for name in ("gradients", "products"):
        assert many[name].seconds == pytest.approx(few[name].seconds / 2, rel=1e-3)
        assert many[name].dollars(alone) == pytest.approx(few[name].dollars(alone), rel=1e-3)
    assert many["gradients"].memory < few["gradients"].memory


def test_one_device_reduces_nothing() -> None:
    slow = replace(H100, network_rate=1.0)
    assert plan(1, slow)["gradients"].seconds == plan(1)["gradients"].seconds
    assert plan(2, slow)["gradients"].seconds > 100 * plan(2)["gradients"].seconds


def test_largest_eigendecomposition_is_not_shared() -> None:
    steady = replace(H100, eigen_half=0.0)
    largest = decomposition_flops(max(decomposed_sizes(SMALL)))
    assert plan(512, steady)["eigendecompositions"].seconds == largest / H100.eigen_rate
    halved = replace(H100, eigen_half=float(max(decomposed_sizes(SMALL))))
    assert plan(512, halved)["eigendecompositions"].seconds == 2 * largest / H100.eigen_rate


def test_a_dollar_is_a_device_for_an_hour() -> None:
    phase = Phase("gradients", 0.0, 1800.0, 0.0, 0.0, 64)
    assert phase.dollars(H100) == 64 * H100.dollars / 2


def test_branches_take_as_few_devices_as_hold_one() -> None:
    small = sweep_phases(SMALL, WORK, Cluster(H100, 8))
    large = sweep_phases(SHAPES["7B"], WORK, Cluster(H100, 8))
    assert [phase.name for phase in small] == ["branches", "scoring"]
    assert large[0].name == "branches, 2 devices each"
    assert large[0].memory <= H100.memory < 16 * SHAPES["7B"].parameters
    fewer = sweep_phases(SMALL, Workload(branches=9), Cluster(H100, 8))
    assert fewer[0].seconds == pytest.approx(small[0].seconds * 2 / 32), "nine branches on eight devices are two waves"


def test_branch_that_fits_no_device_says_what_to_change() -> None:
    with pytest.raises(TikmixError, match=r"--devices 8: a branch needs 1\d\d GB .* lower --batch-tokens"):
        sweep_phases(SHAPES["70B"], WORK, Cluster(H100, 8))


def test_least_devices_hold_every_phase() -> None:
    work = Workload(pass_tokens=512)
    found = least_devices(SHAPES["70B"], work, H100, "kfac")
    assert found is not None
    for devices, fits in ((found, True), (found // 2, False)):
        phases = influence_phases(SHAPES["70B"], work, Cluster(H100, devices), "kfac")
        assert all(phase.memory <= H100.memory for phase in phases) is fits
    assert least_devices(SHAPES["70B"], WORK, H100, "kfac") is None
