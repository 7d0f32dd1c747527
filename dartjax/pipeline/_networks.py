"""Trained networks from a folder of weights, for the fits that use them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dartjax import data
from dartjax.models import (
    ISOLATION_PRESETS,
    SIMILARITY_PRESETS,
    IsolationNet,
    MultiViewSimilarity,
    ViewPair,
    no_hint,
)
from dartjax.registration import CROP_PIXELS

PACKAGED = "packaged"


def folder_of(name: str, given: str | None, *, needed: bool = False) -> str | None:
    """Where the weights are that a flag asks for: a folder, or the word `packaged`. None if it
    does not ask, unless they are `needed`: then the packaged ones."""
    if given is None and not needed:
        return None
    return str(data.NETWORKS / name) if given in (None, PACKAGED) else given


def check_unseen(folder: str, subjects: Sequence[str], flag: str) -> None:
    """DataError if the network in a folder has seen one of the subjects."""
    seen = data.read_card(folder)["subjects_included"]
    if leaked := [subject for subject in subjects if data.same_subject(subject, seen)]:
        raise data.DataError(
            f"the network in {folder} was trained on {', '.join(leaked)}: give other weights "
            f"by --{flag}=FOLDER, another recipe, or other subjects"
        )


@functools.cache
def isolation(folder: str) -> tuple[IsolationNet, PyTree]:
    """The network and its parameters. DataError if they are missing, damaged, or of another one."""
    net = IsolationNet(ISOLATION_PRESETS[_preset(folder, "isolation")])
    like = jax.eval_shape(functools.partial(random_isolation, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


@functools.cache
def similarity(folder: str) -> tuple[MultiViewSimilarity, PyTree]:
    """The network and its parameters. DataError if they are missing, damaged, or of another one."""
    net = MultiViewSimilarity(SIMILARITY_PRESETS[_preset(folder, "similarity")])
    like = jax.eval_shape(functools.partial(random_similarity, net), jax.random.key(0))
    return net, data.load_weights(folder, like)[0]


def random_similarity(net: MultiViewSimilarity, key: jax.Array) -> PyTree:
    """Parameters before training."""
    image = jnp.zeros((1, net.config.size, net.config.size))
    views = ViewPair(image, image, image, image, jnp.zeros((1, 7)))
    return jax.jit(net.init)(key, views, jnp.ones(1, bool))["params"]


def random_isolation(net: IsolationNet, key: jax.Array) -> PyTree:
    """Parameters before training."""
    image = jnp.zeros((CROP_PIXELS, CROP_PIXELS))
    return jax.jit(net.init)(key, image, no_hint(image))["params"]


def _preset(folder: str, name: str) -> str:
    card = data.read_card(folder)
    if card["name"] != name:
        raise data.DataError(
            f"the network in {folder} is one of {card['name']}: give --{card['name']}={folder}"
        )
    return card["preset"]
