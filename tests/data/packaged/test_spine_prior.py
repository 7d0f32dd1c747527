"""The packaged priors of the spine, and the table they are estimated from."""

import gzip

import numpy as np
import pytest

from dartjax import data, ssm
from dartjax.data.packaged import _spine_prior

HEADER = "split,scan_id,source_file,level,keypoint,x_lps_mm,y_lps_mm,z_lps_mm\n"
ROWS = (
    "Training,a,COLONOG/COLO1/p7/x/3.0-PRONE-1,L1,body,10.0,20.0,30.0\n"
    "Training,a,COLONOG/COLO1/p7/x/3.0-PRONE-1,L1,left,25.0,42.0,35.0\n"
    "Training,b,verse20/01_training/rawdata/sub-gl003/sub-gl003_ct.mha,L2,body,1.0,2.0,3.0\n"
)


def test_people_of_verse_have_a_prior_of_others():
    everybody, others = (data.load_spine_prior(exclude=names) for names in ((), ["sub-verse005"]))
    assert not np.allclose(everybody.mean, others.mean)
    card = data.spine_prior_card(_spine_prior.SPINE_PRIORS / "without_verse")
    assert "--without_verse" in card["command"]
    assert card["num_people"] < data.spine_prior_card()["num_people"]
    np.testing.assert_array_equal(data.load_spine_prior(exclude=["lidc0001"]).mean, everybody.mean)


def test_prone_and_supine_differ_a_little():
    supine, prone = (data.load_spine_prior(position=p) for p in ("supine", "prone"))
    step = np.abs(np.asarray(prone.mean - supine.mean))
    assert 0.1 < step.max() < 5.0


def test_an_unknown_position_and_damaged_files(tmp_path):
    with pytest.raises(data.DataError, match="supine or prone"):
        data.load_spine_prior(position="sitting")
    with pytest.raises(data.DataError, match=r"prior\.npz"):
        data.load_spine_prior(path=tmp_path)
    n = ssm.num_spine_values()
    arrays = {"mean": np.zeros(n), "prone_shift": np.zeros(n), "noise": np.zeros(n)}
    card = {"name": "x", "sources": {}, "num_people": 1, "command": "", "quality": {}}
    frames = np.tile(np.eye(4), (len(ssm.SPINE_LEVELS), 1, 1))
    arrays |= {"loadings": np.zeros((n, 2)), "T_vertebra_frame": frames}
    data.save_spine_prior(tmp_path, arrays, card)
    with pytest.raises(data.DataError, match="not positive"):
        data.load_spine_prior(path=tmp_path)
    data.save_spine_prior(tmp_path, arrays | {"T_vertebra_frame": frames[:3]}, card)
    with pytest.raises(data.DataError, match="no frames of all levels"):
        data.load_spine_prior(path=tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_of_points(tmp_path, packed):
    path = tmp_path / ("points.csv.gz" if packed else "points.csv")
    content = (HEADER + ROWS).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    first, second = data.load_spine_scans(path)
    assert (first.person, first.position) == ("p7", "prone")
    assert (second.person, second.position) == ("gl003", "supine")
    np.testing.assert_array_equal(first.levels["L1"]["left"], [-25.0, -42.0, 35.0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("scan_id,level\n", "no column keypoint"),
        (HEADER, "empty"),
        (HEADER + "T,a,s,L1,middle,1,2,3\n", "line 2"),
        (HEADER + "T,a,s,L1,body,1,2,\n", "line 2"),
        (HEADER + "T,a,s,L1,body,1,nan,2\n", "line 2"),
        (HEADER + 2 * "T,a,s,L1,body,1,2,3\n", "line 3: a second body of L1"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(tmp_path, text, reason):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(data.DataError, match=reason):
        data.load_spine_scans(tmp_path / "points.csv")
    whole = gzip.compress(text.encode())
    (tmp_path / "points.csv.gz").write_bytes(whole[:14] + b"xx" + whole[16:])
    with pytest.raises(data.DataError, match="not a readable table"):
        data.load_spine_scans(tmp_path / "points.csv.gz")
