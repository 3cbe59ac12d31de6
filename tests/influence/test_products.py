import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from group_examples import CURVATURES, DOMAINS, MODELS, TASKS, collected, curvature_of, dealt
from influence_oracle import tiny_model

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.gradients import deal_into_chunks
from tikmix_pipeline.influence.products import chunk_products
from tikmix_pipeline.influence.store import GradientStore

CPU = torch.device("cpu")


def products(store: GradientStore, curvature: Curvature, megabytes: float = 1000, device: torch.device = CPU):
    return chunk_products(store, curvature, memory_megabytes=megabytes, device=device)[0]


def one_by_one(store: GradientStore, curvature: Curvature) -> np.ndarray:
    """Every chunk of a task with every chunk of a domain, each block whole."""
    result = np.zeros((3, 3, 2, 3))
    for block in curvature:
        sides = [
            {name: store.rows(side, names, name) for name in block.names}
            for side, names in (("task", list(TASKS)), ("domain", list(DOMAINS)))
        ]
        for row in range(9):
            preconditioned = block.precondition({name: rows[[row]] for name, rows in sides[0].items()})
            for column in range(6):
                dots = [(values[0] * sides[1][name][column]).sum().item() for name, values in preconditioned.items()]
                result[row // 3, row % 3, column // 3, column % 3] += sum(dots)
    return result


@pytest.mark.parametrize(("kind", "tied"), MODELS)
@pytest.mark.parametrize("name", CURVATURES)
def test_products_do_not_depend_on_how_memory_cuts_them(tmp_path, kind, tied, name):
    model = tiny_model(kind, tied=tied)
    store, curvature = collected(tmp_path, model), curvature_of(model, name)
    expected = one_by_one(store, curvature)
    for megabytes in (1000, 0.1, 0.02):
        found = products(store, curvature, megabytes)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_memory_too_small_for_one_row_is_refused_with_the_least_that_would_do(tmp_path):
    model = tiny_model("llama")
    store, curvature = collected(tmp_path, model), curvature_of(model)
    with pytest.raises(TikmixError, match=r"memory_megabytes \(0\.001\) is too little .* Raise it to 1\."):
        products(store, curvature, 0.001)


def test_every_number_is_read_once_when_all_task_rows_of_a_piece_fit(tmp_path, monkeypatch):
    model = tiny_model("llama")
    store, curvature = collected(tmp_path, model), curvature_of(model)
    read: list[int] = []
    rows_of = GradientStore.rows

    def counted(self, *args, **kwargs):
        rows = rows_of(self, *args, **kwargs)
        read.append(rows.numel())
        return rows

    monkeypatch.setattr(GradientStore, "rows", counted)
    products(store, curvature)
    assert sum(read) == 15 * sum(block.size for block in curvature)


def test_parameters_outside_the_groups_take_no_part(tmp_path):
    model = tiny_model("llama")
    store = collected(tmp_path, model)
    groups = [["linear"], ["embedding", "head", "elementwise"]]
    chunks = [products(store, curvature_of(model, groups=chosen)) for chosen in groups]
    np.testing.assert_allclose(sum(chunks), products(store, curvature_of(model)), rtol=1e-9, atol=1e-9)


def test_sets_of_unequal_chunks_are_refused(tmp_path):
    uneven = {name: deal_into_chunks(batches, 2 + number) for number, (name, batches) in enumerate(DOMAINS.items())}
    store = collected(tmp_path, sets={**dealt(), "domain": uneven})
    with pytest.raises(ValueError, match="same number of chunks"):
        products(store, curvature_of(tiny_model("llama")))


_PEAK = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS
from tikmix_pipeline.influence.curvature.build import BlockOutline
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.layers import Layout
from tikmix_pipeline.influence.curvature.eigenblock import FUNCTIONS, DampingFunction
from tikmix_pipeline.influence.gradients import MeanGradient
from tikmix_pipeline.influence.products import chunk_products
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.cost_records import NO_COST

def status(key):
    return next(int(row.split()[1]) for row in open("/proc/self/status") if row.startswith(key)) / 1000

torch.set_num_threads(1)
store, shapes = GradientStore(Path(sys.argv[1])), {"dense": (600, 300), "embedding": (1500, 200)}
sets = {"task": ["a", "b"], "domain": ["c", "d", "e"]}
for side, names in sets.items():
    for name in names:
        for chunk in range(4):
            mean = MeanGradient({key: torch.randn(shape) for key, shape in shapes.items()}, 1.0, 1)
            store.write(side, name, chunk, mean, key="", identity="", cost=NO_COST)
store.finish({side: {name: [""] * 4 for name in names} for side, names in sets.items()}, {})
function = DampingFunction(FUNCTIONS["horizon"], 0.1)
blocks = [
    EigenBlock(Layout("dense"), "", torch.rand(600, 300), torch.eye(600), torch.eye(300), function),
    EigenBlock(Layout("embedding"), "", torch.rand(1500, 200), None, torch.eye(200), function),
]
class Opened(list):
    process_group = SINGLE_PROCESS
    outlines = [BlockOutline(block.names, block.size, block.rows_oo is None) for block in blocks]

curvature, peaks = Opened(blocks), []
for limit in map(float, sys.argv[2:]):
    for _ in range(2):  # what libraries take at their first use is not ours
        before = status("VmRSS")
        open("/proc/self/clear_refs", "w").write("5")
        chunk_products(store, curvature, memory_megabytes=limit, device=torch.device("cpu"))
    peaks.append(status("VmHWM") - before)
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_working_memory_stays_below_the_setting(tmp_path):
    """20 gradients of 1.9 MB; the task rows of the larger block alone take four times 9.6 MB if nothing is cut."""
    limits = [12, 24]
    command = [sys.executable, "-c", _PEAK, str(tmp_path), *map(str, limits)]
    # without it malloc keeps what is freed, to use it again
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for limit, peak in zip(limits, json.loads(ended.stdout), strict=True):
        assert 0.3 * limit < peak < limit + 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_the_gpu_are_those_on_the_cpu(tmp_path):
    store = collected(tmp_path)
    on_cpu = products(store, curvature_of(tiny_model("llama")))
    model = tiny_model("llama").cuda()
    found = products(store, curvature_of(model), device=torch.device("cuda"))
    np.testing.assert_allclose(found, on_cpu, rtol=1e-7, atol=1e-7 * np.abs(on_cpu).max())
