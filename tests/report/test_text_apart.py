"""Labels of marks: of each its own, and none upon another or upon a mark."""

from itertools import combinations

from matplotlib.figure import Figure

from bench.report.render.text_apart import label_apart


def test_labels_of_near_marks_stand_apart():
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    marks = [(1.0, 1.0, "0.25", "k"), (1.02, 1.0, "0.5", "k"), (1.0, 1.03, "0.17", "k"), (1.5, 2.0, "", "k")]
    axis.plot([x for x, *_ in marks], [y for _, y, *_ in marks], "o", markersize=7)
    axis.set_xscale("log")
    label_apart(axis, marks)
    figure.draw_without_rendering()
    assert [text.get_text() for text in axis.texts] == ["0.25", "0.5", "0.17"]
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    places = axis.transData.transform([(x, y) for x, y, *_ in marks])
    assert not any(box.contains(x, y) for box in boxes for x, y in places)


def test_a_long_label_beside_the_edge_stays_in_the_panel():
    figure = Figure(figsize=(4, 3), layout="constrained")
    axis = figure.subplots()
    marks = [
        (0.0, 0.0, "int4 in groups of 64", "k"),
        (0.05, 0.0, "int8", "k"),
        (0.05, 0.02, "int4", "k"),
        (1, 1, "", "k"),
    ]
    axis.plot([x for x, *_ in marks], [y for _, y, *_ in marks], "o", markersize=7)
    label_apart(axis, marks)
    figure.draw_without_rendering()
    panel, boxes = axis.get_window_extent(), [text.get_window_extent() for text in axis.texts]
    assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
