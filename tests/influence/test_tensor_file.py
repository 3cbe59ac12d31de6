from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.tensor_file import TensorFile

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(4, 3),
    "double": torch.linspace(0, 1, 5, dtype=torch.float64),
    "scalar": torch.tensor(2.5),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "part.safetensors"
    save_file(TENSORS, file, {"loss": "1.5"})
    return file


def test_tensors_and_metadata_are_those_that_were_saved(path):
    file = TensorFile.open(path)
    assert file.metadata == {"loss": "1.5"}
    assert file.shapes == {name: tuple(values.shape) for name, values in TENSORS.items()}
    for name, values in TENSORS.items():
        read = torch.empty_like(values)
        file.read_into(name, read)
        assert file.dtype(name) == values.dtype
        assert (read == values).all()


def test_slice_along_the_first_axis_is_read_alone(path):
    read = torch.empty(2, 3)
    TensorFile.open(path).read_into("matrix", read, start=1)
    assert (read == TENSORS["matrix"][1:3]).all()


@pytest.mark.parametrize("kept", [0, 5, 40, -4])
def test_truncated_file_is_named(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TikmixError, match=r"part\.safetensors is damaged"):
        TensorFile.open(path)


@pytest.mark.parametrize("content", [b"garbage that is no tensor file", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_garbage_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(TikmixError, match=r"part\.safetensors is damaged"):
        TensorFile.open(path)


def test_half_precision_is_refused(path):
    save_file({"matrix": torch.ones(2, dtype=torch.float16)}, path)
    with pytest.raises(TikmixError, match="is damaged"):
        TensorFile.open(path)


def test_file_that_is_cut_after_it_was_opened_is_told(path):
    file = TensorFile.open(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TikmixError, match="it ends too early"):
        file.read_into("matrix", torch.empty(4, 3))
    path.unlink()
    with pytest.raises(TikmixError, match="cannot be read"):
        file.read_into("matrix", torch.empty(4, 3))


def test_what_is_written_in_slices_is_a_file_that_the_library_reads(tmp_path):
    described = {name: (values.dtype, tuple(values.shape)) for name, values in TENSORS.items()}
    path = tmp_path / "slices.safetensors"
    TensorFile.lay_out(path, described, {"loss": "1.5"})
    for start, stop in ((3, 4), (0, 3)):  # by two processes, say, each with the file opened for itself
        TensorFile.open(path).write("matrix", TENSORS["matrix"].T.contiguous().T[start:stop], start)
    for name in ("double", "scalar"):
        TensorFile.open(path).write(name, TENSORS[name])
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all((found[name] == values).all() for name, values in TENSORS.items())
    assert TensorFile.open(path).metadata == {"loss": "1.5"}


def test_equal_tensors_are_laid_out_in_equal_bytes(tmp_path):
    described = {name: (values.dtype, tuple(values.shape)) for name, values in TENSORS.items()}
    TensorFile.lay_out(tmp_path / "a", described, {})
    TensorFile.lay_out(tmp_path / "b", dict(reversed(described.items())), {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_file_that_cannot_be_written_is_named(tmp_path):
    file = TensorFile.lay_out(tmp_path / "a", {"matrix": (torch.float32, (4, 3))}, {})
    (tmp_path / "a").unlink()
    with pytest.raises(TikmixError, match=r"a cannot be written"):
        file.write("matrix", TENSORS["matrix"])
