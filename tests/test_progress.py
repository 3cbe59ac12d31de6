import pytest

from tikmix_pipeline.progress import no_progress_bars, progress_bar


def drawn(capsys: pytest.CaptureFixture[str]) -> str:
    with progress_bar("Training", 10, "tok") as bar:
        bar.update(10)
    return capsys.readouterr().err


def test_no_bar_is_drawn_inside_and_bars_come_back_after(capsys: pytest.CaptureFixture[str]) -> None:
    with no_progress_bars():
        assert drawn(capsys) == ""
    assert "Training: 100%" in drawn(capsys)


def test_small_numbers_are_counted_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert "10/10" in drawn(capsys)
