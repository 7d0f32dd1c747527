"""Every packaged file can be read by its loader, and no packaged file is unused."""

import contextlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import dartjax
from dartjax import data, pipeline, registration, render
from dartjax.data.packaged import _morphometry

ASSETS = Path(dartjax.__file__).parent / "assets"
SETS = sorted(card.parent for card in (ASSETS / "ssm").glob("*/card.json"))
NETWORKS = ("detector", "isolation", "similarity")


class Opened:
    """Files opened while it is active; an audit hook cannot be removed again."""

    def __init__(self):
        self.files, self.on = set(), False
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if event == "open" and self.on and isinstance(arguments[0], str | Path):
            self.files.add(Path(arguments[0]).absolute())

    @contextlib.contextmanager
    def listening(self):
        self.on = True
        try:
            yield self.files
        finally:
            self.on = False


@pytest.fixture(scope="module")
def opened():
    return Opened()


def load_shape_models():
    for folder in SETS:
        for level in data.shape_model_levels(folder):
            model = data.load_shape_model(level, path=folder)
            assert np.isfinite(np.asarray(model.mean_shape)).all()
            assert np.isfinite(np.asarray(model.modes)).all()


def load_template():
    template = data.load_template()
    assert set(template.level_shapes) <= set(data.MODELLED_LEVELS)
    assert all(np.isfinite(shape).all() for shape in template.level_shapes.values())


def load_networks():
    assert {path.name for path in data.NETWORKS.iterdir()} == set(NETWORKS)
    for name in NETWORKS:
        # Networks are kept by the name of their folder; under this one no other test asks.
        _, params = pipeline.load_network(name, f"{data.NETWORKS / name}/./")
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def load_failure_model():
    stored = data.load_failure_model()
    own = len(registration.FEATURE_NAMES)  # those of the other vertebrae in the view come after
    assert stored.features[:own] == registration.FEATURE_NAMES


def load_xray_tables():
    render.physics_tables.cache_clear()
    tables = render.physics_tables()
    materials, energies = len(render.material_names()), len(tables["energies_kev"])
    assert tables["mass_attenuation"].shape == (materials, energies)
    assert np.isfinite(np.asarray(render.tube_spectrum(70.0).weights)).all()
    card = data.read_json(ASSETS / "xray" / "card.json")
    assert all(source["licence"] for source in card["sources"].values())


def load_morphometry():
    _morphometry._tables.cache_clear()
    assert all(data.published(level) for level in ("T1", "T12", "L5"))


def load_spine_priors():
    for exclude in ((), ("verse005",)):
        for position in ("supine", "prone"):
            prior = data.load_spine_prior(exclude=exclude, position=position)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(prior))


LOADERS = {
    "shape models": load_shape_models,
    "template": load_template,
    "networks": load_networks,
    "failure model": load_failure_model,
    "X-ray tables": load_xray_tables,
    "published lengths": load_morphometry,
    "priors of the spine": load_spine_priors,
}


def test_every_file_is_loaded(opened):
    shipped = {path for path in ASSETS.rglob("*") if path.is_file() and path.suffix != ".py"}
    shipped = {path for path in shipped if "__pycache__" not in path.parts}
    with opened.listening() as files:
        for load in LOADERS.values():
            load()
    unread = {str(path.relative_to(ASSETS)) for path in shipped - files}
    assert not unread, f"no loader reads {sorted(unread)}: load them here, or do not ship them"
