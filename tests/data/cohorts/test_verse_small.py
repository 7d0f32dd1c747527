import numpy as np
import pytest

from dartjax import data
from tests.data import phantoms


def subjects_of(*ids, kind="real_ct_drr"):
    path = phantoms.Path("a")
    return [data.Subject(name, path, path, dataset_kind=kind) for name in ids]


def exact_cohort(kind="real_ct_drr"):
    """140 scans with 1,407 vertebrae among others."""
    ids = [f"verse{n:03d}" for n in range(141)]
    levels = {name: ("L1",) * 10 for name in ids} | {"verse000": ("L1",) * 17, "verse140": ()}
    return subjects_of(*ids, kind=kind), levels


def test_rule_keeps_scans_of_verse19_with_a_whole_vertebra():
    subjects = subjects_of(
        "verse004", "verse005", "verse400_split-verse090", "verse512", "GL003", "liver_1"
    )
    levels = {subject.id: ("T12", "L1") for subject in subjects} | {"verse005": ()}
    kept = data.verse_small(subjects, levels)
    assert list(kept.levels) == ["verse004", "verse400_split-verse090"]
    assert kept.name == "VerSe'19-rule (2 scans, 4 vertebrae)"


def test_name_is_given_to_the_exact_numbers_alone():
    subjects, levels = exact_cohort()
    kept = data.verse_small(subjects, levels)
    assert kept.name == "VerSe-small"
    assert (len(kept.subjects), sum(map(len, kept.levels.values()))) == (140, 1407)
    ids = list(kept.levels)
    assert data.verse_small(subjects, levels, ids).name == "VerSe-small"
    fewer = levels | {"verse007": ("L1",) * 9}
    assert data.verse_small(subjects, fewer).name == "VerSe'19-rule (140 scans, 1406 vertebrae)"
    assert (
        data.verse_small(subjects, levels, ids[:-1]).name
        == "VerSe id list (139 scans, 1397 vertebrae)"
    )


def test_synthetic_data_with_verse_ids_do_not_get_the_name():
    subjects, levels = exact_cohort("synthetic")
    with pytest.raises(data.DataError, match="none of 141 scans is a real CT of VerSe'19"):
        data.verse_small(subjects, levels)
    listed = data.verse_small(subjects, levels, [s.id for s in subjects[:140]])
    assert listed.name == "VerSe id list (140 scans, 1407 vertebrae)"


def test_nothing_kept():
    with pytest.raises(data.DataError, match="none of 1 scans holds a complete vertebra"):
        data.verse_small(subjects_of("verse004"), {"verse004": ()})


def test_lists_of_ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("sub-verse005\n# not used: verse001\n\nverse004  # the sample\nverse005\n")
    assert data.read_ids(path) == ["verse005", "verse004"]
    (tmp_path / "ids.json").write_text('["verse004", "sub-verse005"]')
    assert data.read_ids(tmp_path / "ids.json") == ["verse004", "verse005"]
    subjects = subjects_of("verse004", "verse005")
    levels = {"verse004": ("L1",), "verse005": ()}
    with pytest.raises(data.DataError, match=r"1 of 2 listed ids are not in the cohort: verse9"):
        data.verse_small(subjects, levels, ["verse004", "verse9"])
    with pytest.raises(data.DataError, match="without a complete vertebra: verse005"):
        data.verse_small(subjects, levels, ["verse005"])
    for text, message in (("# none\n", "has no id"), ("[1, ", "not a readable list")):
        path.write_text(text)
        with pytest.raises(data.DataError, match=message):
            data.read_ids(path)
    with pytest.raises(data.DataError, match="not a readable list"):
        data.read_ids(tmp_path / "absent.txt")


def test_foreign_material():
    labels = np.zeros((20, 20, 40), np.uint8)
    labels[5:15, 5:15, 2:12] = 19
    labels[5:15, 5:15, 22:32] = 20
    hu = np.where(labels > 0, 900, 0).astype(np.int16)
    hu[8:10, 8:10, 24:30] = 2800  # a screw: 2.4 % of L1
    hu[8, 8, 5] = 2800  # one dense voxel is none
    assert data.foreign_material(hu, labels) == ("L1",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("verse004", True),
        ("verse449_dir-ax", True),
        ("verse450", False),
        ("verse400_split-verse253", True),
        ("verse505_split-verse253", True),
        ("GL003", False),
        ("synth0004", False),
    ],
)
def test_ids_of_verse19(name, expected):
    assert data.is_verse19(name) is expected
