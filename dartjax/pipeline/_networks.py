"""Loading of trained networks from folders of weights."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dartjax import data, training
from dartjax.models import (
    DETECTOR_PRESETS,
    ISOLATION_PRESETS,
    LANDMARK_PRESETS,
    SIMILARITY_PRESETS,
    IsolationNet,
    LandmarkNet,
    MultiViewSimilarity,
    VertebraDetector,
    ViewPair,
    no_hint,
)
from dartjax.registration import CROP_PIXELS

PACKAGED = "packaged"


def weights_folder(name: str, given: str | None, *, needed: bool = False) -> str | None:
    """Find the folder of weights from an option: a folder, or the word `packaged`. None means no
    weights, or the packaged ones if they are `needed`."""
    if given is None and not needed:
        return None
    return str(data.NETWORKS / name) if given in (None, PACKAGED) else given


def check_not_trained_on(folder: str | None, subjects: Sequence[str], name: str) -> None:
    """Check that the network in a folder, if there is one, was trained on none of the subjects;
    else DataError."""
    if folder is None:
        return
    seen = data.read_card(folder)["subjects_included"]
    if leaked := [subject for subject in subjects if data.same_subject(subject, seen)]:
        raise data.DataError(
            f"the {name} network in {folder} was trained on {', '.join(leaked)}: give the folder "
            "of other weights, another recipe, or other subjects"
        )


def network_folders(given: Mapping[str, str | None], needed: str | None) -> dict[str, str | None]:
    """Find the folder of each network by name: the given one, or the packaged one if it is
    `needed`; else None."""
    return {
        name: weights_folder(name, folder, needed=name == needed) for name, folder in given.items()
    }


def check_networks(folders: Mapping[str, str | None], subjects: Sequence[str]) -> None:
    """Raise DataError if a network was trained on one of the subjects."""
    for name, folder in folders.items():
        if folder is not None:
            check_not_trained_on(folder, subjects, name)


Network = VertebraDetector | LandmarkNet | IsolationNet | MultiViewSimilarity


def load_network(name: str, folder: str) -> tuple[Network, PyTree]:
    """Load the network of that name, `detector`, `landmarks`, `isolation` or `similarity`, with its
    parameters. DataError if they are missing, damaged, or of another network."""
    return _LOADERS[name](folder)


@functools.cache
def isolation_network(folder: str) -> tuple[IsolationNet, PyTree]:
    """Load the network that isolates a vertebra, with its parameters. DataError if they are
    missing, damaged, or of another network."""
    net = IsolationNet(ISOLATION_PRESETS[_preset(folder, "isolation")])
    like = jax.eval_shape(functools.partial(untrained_isolation, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


@functools.cache
def similarity_network(folder: str) -> tuple[MultiViewSimilarity, PyTree]:
    """Load the multi-view similarity, with its parameters. DataError if they are missing, damaged,
    or of another network."""
    net = MultiViewSimilarity(SIMILARITY_PRESETS[_preset(folder, "similarity")])
    like = jax.eval_shape(functools.partial(untrained_similarity, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


def detector_folder(given: str | None) -> str:
    """Find the folder of the detector: the given one, or the packaged one."""
    return str(data.NETWORKS / "detector") if given in (None, PACKAGED) else given


@functools.cache
def detector_network(folder: str | None) -> tuple[VertebraDetector, PyTree]:
    """Load the detector of vertebrae (None: the packaged one), with its parameters. DataError if
    they are missing, damaged, or of another network."""
    folder = detector_folder(folder)
    _preset(folder, "detector")
    net = VertebraDetector(DETECTOR_PRESETS[data.read_card(folder)["network"]])
    like = jax.eval_shape(functools.partial(training.untrained_detector, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


def landmark_folder(given: str | None) -> str | None:
    """Find the folder of the landmark network: the given one, or the packaged one. None if there is
    none: then vertebrae have no landmarks."""
    packaged = data.NETWORKS / "landmarks"
    if given not in (None, PACKAGED):
        return given
    return str(packaged) if given == PACKAGED or packaged.is_dir() else None


@functools.cache
def landmark_network(folder: str) -> tuple[LandmarkNet, PyTree]:
    """Load the landmark network in a folder, with its parameters. DataError if they are missing,
    damaged, or of another network."""
    _preset(folder, "landmarks")
    net = LandmarkNet(LANDMARK_PRESETS[data.read_card(folder)["network"]])
    like = jax.eval_shape(functools.partial(training.untrained_landmarks, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


_LOADERS = {
    "detector": detector_network,
    "isolation": isolation_network,
    "landmarks": landmark_network,
    "similarity": similarity_network,
}


def untrained_similarity(net: MultiViewSimilarity, key: jax.Array) -> PyTree:
    """Draw the parameters of the multi-view similarity before training."""
    image = jnp.zeros((1, net.config.size, net.config.size))
    views = ViewPair(image, image, image, image, jnp.zeros((1, 7)))
    return jax.jit(net.init)(key, views, jnp.ones(1, bool))["params"]


def untrained_isolation(net: IsolationNet, key: jax.Array) -> PyTree:
    """Draw the parameters of the isolation network before training."""
    image = jnp.zeros((CROP_PIXELS, CROP_PIXELS))
    return jax.jit(net.init)(key, image, no_hint(image))["params"]


def _preset(folder: str, name: str) -> str:
    card = data.read_card(folder)
    if card["name"] != name:
        raise data.DataError(
            f"the network in {folder} is one of {card['name']}, not of {name}: give this folder "
            f"as the {card['name']} network"
        )
    return card["preset"]
