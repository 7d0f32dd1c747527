import pytest

from dartjax import anatomy, data


@pytest.mark.parametrize(
    ("level", "label", "region"),
    [
        ("T1", 8, "T1-T4"),
        ("T4", 11, "T1-T4"),
        ("T5", 12, "T5-T8"),
        ("T12", 19, "T9-T12"),
        ("T13", 28, "T9-T12"),
        ("L1", 20, "L1-L5"),
        ("L6", 25, "L1-L5"),
    ],
)
def test_labels_and_regions(level, label, region):
    assert data.label_of(level) == label
    assert data.level_of(label) == level
    assert data.region_of(level) == region


def test_every_label_has_one_level():
    assert len(data.LABEL_OF_LEVEL) == len(data.LEVEL_OF_LABEL) == 7 + 13 + 6


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("L1", ("L1",)),
        ("t5-t8, L1", ("T5", "T6", "T7", "T8", "L1")),
        ("T11-L2", ("T11", "T12", "L1", "L2")),
        ("T12-T13", ("T12", "T13")),
        ("L1,L1-L2", ("L1", "L2")),
    ],
)
def test_ranges(text, levels):
    assert data.parse_levels(text) == levels


def test_all_is_t1_to_l5():
    levels = data.parse_levels("all")
    assert (len(levels), levels[0], levels[-1]) == (17, "T1", "L5")


def test_unknown_level_lists_what_is_allowed():
    with pytest.raises(data.DataError, match=r"'L7'.*did you mean.*allowed are C1, .*T13.*L6"):
        data.parse_levels("T5-L7")


def test_range_from_foot_to_head_is_rejected():
    with pytest.raises(data.DataError, match="T5-T8"):
        data.parse_levels("T8-T5")


def test_empty_list():
    with pytest.raises(data.DataError, match="no level given"):
        data.parse_levels(" , ")


def test_cervical_has_no_region():
    with pytest.raises(data.DataError, match="cervical"):
        data.region_of("C5")


@pytest.mark.parametrize("label", [0, 26, 29])
def test_no_level_for_other_labels(label):
    with pytest.raises(data.DataError, match=f"label {label} is not a vertebra"):
        data.level_of(label)


def test_numbers_of_other_programs():
    """TotalSegmentator numbers 24 vertebrae from L5 to C1 upward."""
    for numbering, first in (("totalsegmentator", 27), ("totalsegmentator_v1", 18)):
        table = anatomy.verse_label_table(numbering)
        assert table[first : first + 24].tolist() == list(range(24, 0, -1))
        assert (table[:first][table[:first] > 0] == 26).all()  # the sacrum alone
        assert set(table[first + 24 :].tolist()) <= {0, 26}
    assert anatomy.verse_label_table("verse").tolist() == list(range(29))
