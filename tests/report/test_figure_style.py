import re
from pathlib import Path

import pytest

from tikmix_pipeline.report import page
from tikmix_pipeline.report.figure_style import (
    BLUE,
    VERMILLION,
    YELLOW,
    arm_styles,
    colours,
    cut_interval,
    ink_on,
    new_figure,
    panel_grid,
    svg_group,
)
from tikmix_pipeline.report.page import IN_PAGE

ARMS = [f"arm-{number}" for number in range(15)]


def test_no_two_of_fifteen_arms_look_alike_and_fewer_look_the_same() -> None:
    styles = arm_styles(ARMS)
    assert len({style["color"] for style in styles.values()}) == 15
    assert arm_styles(ARMS[:3]) == {arm: styles[arm] for arm in ARMS[:3]}


@pytest.mark.parametrize("count", [1, 10, 24])
def test_up_to_twenty_four_colours_differ(count: int) -> None:
    assert len(set(colours(count))) == count


@pytest.mark.parametrize(("count", "size"), [(1, (3.0, 2.0)), (3, (7.0, 2.0)), (4, (7.0, 3.0))])
def test_a_grid_is_as_large_as_its_panels_and_spare_ones_are_empty(count: int, size: tuple[float, float]) -> None:
    figure, panels = panel_grid(count, 3, (2.0, 1.0), (1.0, 1.0))
    assert len(panels) == count
    assert tuple(figure.get_size_inches()) == size
    assert [axes.axison for axes in figure.axes] == [True] * count + [False] * (len(figure.axes) - count)


def test_drawings_for_a_page_keep_text_take_its_colours_and_repeat_no_ids() -> None:
    def drawing(name: str) -> str:
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1], [0, 1], "D", color="#0072b2", label="a mark")
        figure.text(0.5, 0.5, "said")
        return svg_group(figure, name, {"#0072b2": "--recommended"})

    one, other = drawing("one"), drawing("other")
    assert one == drawing("one")
    assert one.startswith('<g id="one">')
    assert ">said</text>" in one
    assert "fill: var(--recommended)" in one
    assert "#0072b2" not in one
    ids = [re.findall(r' id="([^"]*)"', text) for text in (one, other)]
    assert not set(ids[0]) & set(ids[1])


def test_text_is_white_on_dark_colours_and_black_on_light_ones() -> None:
    assert [ink_on(colour) for colour in (BLUE, VERMILLION, YELLOW, "white")] == ["white", "black", "black", "black"]


def test_pages_and_figures_share_one_palette():
    style = Path(page.__file__).parent / "templates" / "style.css"
    light = style.read_text(encoding="utf-8").partition("@media")[0]
    named = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6})", light))
    # a drawing's paper is one shade off, so that no other white of it takes the page's
    assert {name: named[name] for name in IN_PAGE.values()} == {v: k for k, v in IN_PAGE.items()} | {
        "--paper": "#ffffff"
    }


@pytest.mark.parametrize(("interval", "arrows"), [((0.2, 0.8), []), ((-1, 0.8), ["<"]), ((-1, 2), ["<", ">"])])
def test_an_interval_that_the_axis_cuts_has_an_arrow_there(interval: tuple[float, float], arrows: list[str]) -> None:
    axes = new_figure(2, 1).subplots()
    cut_interval(axes, *interval, 0.0, (0.0, 1.0), color="black")
    assert [line.get_marker() for line in axes.lines[1:]] == arrows
    ends = axes.lines[0].get_xdata()
    assert [max(interval[0], 0), min(interval[1], 1)] == list(ends)
