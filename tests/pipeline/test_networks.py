"""Loading of networks: the right kind, not trained on the reconstructed subject."""

import jax
import numpy as np
import pytest

from dartjax import data
from dartjax.models import SIMILARITY_PRESETS, MultiViewSimilarity
from dartjax.pipeline import Study, _learned
from dartjax.pipeline import _networks as networks
from dartjax.pipeline import _recipes as methods
from dartjax.registration import _presets as methods_presets

CARD = {
    "preset": "smoke",
    "subjects_included": ["synth0004", "synth0005"],
    "never_seen": ["lidc0001"],
    "command": [],
    "quality": {},
}


def untrained():
    net = MultiViewSimilarity(SIMILARITY_PRESETS["smoke"])
    return networks.untrained_similarity(net, jax.random.key(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save an untrained similarity network."""
    folder = tmp_path_factory.mktemp("weights")
    like = untrained()
    data.save_weights(folder, like, CARD | {"name": "similarity"})
    return str(folder)


def test_a_network_comes_back_as_it_was_saved(folder):
    net, params = networks.similarity_network(folder)
    like = untrained()
    for leaf, other in zip(jax.tree.leaves(params), jax.tree.leaves(like), strict=True):
        np.testing.assert_allclose(leaf, other, atol=2e-3)
    assert net.config.size == 32 and networks.similarity_network(folder)[0] is net


def test_a_subject_of_the_training_is_rejected(folder):
    networks.check_not_trained_on(folder, ["synth0002", "lidc0001"], "similarity")
    with pytest.raises(
        data.DataError, match=r"trained on sub-SYNTH0005: give the folder of other weights"
    ):
        networks.check_not_trained_on(folder, ["synth0002", "sub-SYNTH0005"], "similarity")


def test_weights_of_the_other_network_are_named(folder):
    with pytest.raises(data.DataError, match="is one of similarity, not of isolation"):
        networks.isolation_network(folder)


def test_methods_without_their_weights_are_not_run(folder):
    learned = set(methods.NEEDED_NETWORK)
    assert not learned & set(Study().methods)
    assert learned & set(Study(similarity=folder).methods) == {"faithful", "ours"}
    assert learned & set(Study(isolation=folder).methods) == {"isolated"}


def test_scales_with_the_learned_term_are_as_fine_as_its_network(folder):
    faithful = _learned.faithful_fit_options(folder)
    assert {scale.num_pixels for scale in faithful.scales} == {32}
    assert faithful.weights.similarity == faithful.weights.landmarks == 0.0
    ours = _learned.with_score(methods_presets.FIT_OPTIONS[methods_presets.JOINT], folder, 0.2)
    assert [scale.num_pixels for scale in ours.scales] == [64, 64, 128, 128]
    assert ours.multiview is faithful.multiview and ours.weights.multiview == 0.2
    assert hash(ours) == hash(
        _learned.with_score(methods_presets.FIT_OPTIONS[methods_presets.JOINT], folder, 0.2)
    )


@pytest.mark.parametrize("name", ["similarity", "isolation"])
def test_the_packaged_networks_are_small_and_exclude_the_test_subjects(name):
    folder = str(data.NETWORKS / name)
    card = data.read_card(folder)
    assert card["name"] == name
    assert not any(data.same_subject(who, card["subjects_included"]) for who in card["never_seen"])
    assert {"lidc0001", "tptct"} <= set(card["never_seen"])
    networks.check_not_trained_on(folder, card["never_seen"], name)
    _net, params = networks.load_network(name, folder)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert sum(file.stat().st_size for file in data.NETWORKS.glob(f"{name}/*")) < 15e6


def test_needed_weights_default_to_the_packaged_ones():
    packaged = str(data.NETWORKS / "similarity")
    assert networks.weights_folder("similarity", None) is None
    assert networks.weights_folder("similarity", None, needed=True) == packaged
    assert networks.weights_folder("similarity", "packaged") == packaged
    assert networks.weights_folder("similarity", "mine", needed=True) == "mine"
