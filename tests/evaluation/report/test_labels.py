from hypothesis import given
from hypothesis import strategies as st

from ragzip.evaluation.report.labels import place

AREA = (0.0, 0.0, 400.0, 300.0)
points = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), min_size=1, max_size=25)


@given(points, st.integers(10, 120))
def test_labels_cover_neither_each_other_nor_points_and_stay_inside(spots, width):
    found = place(spots, [(float(width), 12.0)] * len(spots), AREA)
    boxes = [(p.x, p.y - 6, p.x + width, p.y + 6) for p in found]
    for number, box in enumerate(boxes):
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= 400 and box[3] <= 300
        assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in spots)
        for other in boxes[:number]:
            assert not (
                box[0] < other[2] - 1e-6
                and other[0] < box[2] - 1e-6
                and box[1] < other[3] - 1e-6
                and other[1] < box[3] - 1e-6
            )


def test_a_lone_point_has_its_label_beside_it():
    (found,) = place([(100.0, 100.0)], [(50.0, 12.0)], AREA)
    assert (found.x, found.y, found.far) == (107.0, 100.0, False)
