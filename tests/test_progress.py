import pytest

from tikmix_pipeline.progress import at_step, no_progress_bars, one_bar, progress_bar


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


def test_a_bar_says_which_step_of_the_run_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    at_step("step 7 of 36, round 1")
    try:
        assert "step 7 of 36, round 1: Training: 100%" in drawn(capsys)
    finally:
        at_step("")
    assert "step" not in drawn(capsys)


def test_parts_of_a_step_share_one_bar_that_names_the_part(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tikmix_pipeline.progress._LOG_SECONDS", 0.0)
    with one_bar("read", 2, "domain") as bar:
        for number, name in enumerate(("code", "prose"), start=1):
            bar.begin(name, number, 2)
            with progress_bar("sample", 100, "B") as part:
                part.update(45)
            bar.update()
    said = capsys.readouterr().err
    assert "code 1/2, 45%" in said
    assert "prose 2/2, 45%" in said
    assert "sample" not in said
    assert "read: 100%" in said
    assert "Training: 100%" in drawn(capsys)


def test_a_log_gets_a_few_lines_of_a_bar_however_many_steps_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    with one_bar("read", 500, "domain") as bar, progress_bar("sample", 500, "B") as part:
        for number in range(500):
            bar.begin("code", number, 500)
            part.update()
            bar.update()
    assert capsys.readouterr().err.count("read") < 10


def test_inside_of_silence_parts_count_and_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with no_progress_bars(), one_bar("read", 1, "domain") as bar:
        bar.begin("code", 1, 1)
        with progress_bar("sample", 100, "B") as part:
            part.update(45)
        bar.update()
    assert capsys.readouterr().err == ""
