import re

import pytest

from tikmix_pipeline.report.figure_style import arm_styles, colours, new_figure, panel_grid, svg_group

ARMS = [f"arm-{number}" for number in range(15)]


def test_no_two_of_fifteen_arms_look_alike_and_fewer_look_the_same() -> None:
    styles = arm_styles(ARMS)
    assert len({style["color"] for style in styles.values()}) == 15
    assert arm_styles(ARMS[:3]) == {arm: styles[arm] for arm in ARMS[:3]}


@pytest.mark.parametrize("count", [1, 10, 20])
def test_up_to_twenty_colours_differ(count: int) -> None:
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
