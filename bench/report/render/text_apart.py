"""Labels beside the marks of a figure, at places where they cover neither marks nor each other."""

from collections.abc import Sequence
from typing import Any, Final

SIZE: Final = 7.0
"""Of a label's letters, in points."""
MARK: Final = 8.0
"""Width and height of a mark, in points."""
PLACES: Final = tuple(
    (right, up)
    for far in (1.0, 1.8, 2.6)
    for right, up in ((far, 0), (-far, 0), (0, far), (0, -far), (1, far), (1, -far), (-1, far), (-1, -far))
)
"""Where a label may stand beside its mark, the nearest first: in widths and heights of a mark and the label."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in points."""


def label_apart(axis: Any, marks: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the label of each ``(x, y, label, colour)`` at the first place in the panel that is free, or the nearest.

    The axis has its scales and marks already; a mark without a label keeps its place free.
    """
    axis.figure.draw_without_rendering()
    points = axis.transData.transform([(x, y) for x, y, _label, _colour in marks]) * 72 / axis.figure.dpi
    left, bottom, right_end, top = axis.bbox.extents * 72 / axis.figure.dpi
    taken: list[Box] = [_around(x, y, MARK, MARK) for x, y in points]
    for (x, y), (at_x, at_y, label, colour) in zip(points, marks, strict=True):
        if not label:
            continue
        wide, high = 0.62 * SIZE * len(label), SIZE
        moves = [(right * (MARK + wide) / 2, up * (MARK + high) / 2) for right, up in PLACES]
        boxes = [_around(x + right, y + up, wide, high) for right, up in moves]
        inside = [
            place
            for place, box in enumerate(boxes)
            if left <= box[0] and bottom <= box[1] and box[2] <= right_end and box[3] <= top
        ]
        free = [place for place in inside if not any(_meet(boxes[place], other) for other in taken)]
        chosen = next(iter(free or inside), 0)
        taken.append(boxes[chosen])
        axis.annotate(
            label,
            (at_x, at_y),
            xytext=moves[chosen],
            textcoords="offset points",
            fontsize=SIZE,
            color=colour,
            ha="center",
            va="center",
        )


def _around(x: float, y: float, wide: float, high: float) -> Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
