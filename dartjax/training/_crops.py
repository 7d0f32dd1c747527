"""Training data of the networks: crops of simulated X-rays around vertebrae with known surfaces,
each vertebra in several views.

The crops of a subject are simulated once and stored as npz without pickle; an interrupted
preparation continues where it stopped. A batch is a pure function of seed and step, so training
resumes exactly.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from dartjax import camera as cameras
from dartjax import data, simulation, ssm, transforms
from dartjax._progress import Progress, no_progress
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.registration import (
    CROP_PIXELS,
    CROP_WIDTH_MM,
    detected_crop,
    mask_centroid,
    stack,
)
from dartjax.render import (
    XrayBody,
    XraySettings,
    simulate_radiograph,
    xray_body,
    xray_settings,
)
from dartjax.simulation import disturbed_mask

LEVELS = data.MODELLED_LEVELS
NUM_VIEWS = 8
NEVER_TRAINED_ON = (
    "lidc0001",
    "tptct",
    "verse005",
    "verse006",
    "verse007",
)  # test subjects, on whom results are reported
_DEPTH_ERROR_MM = 4.0  # per axis, of the position that gives the depth of a crop
_WINDOW = 2  # window of a mask before it is cropped, in widths of a crop
_VERSION = 2  # of the stored crops
_MASK_DICE, _MASK_DICE_SPREAD = 0.9, 0.04
_MASK_NOISE_MM = 6.0
_SAMPLES = 320  # per ray
_PROJECTION_NOISE_MM = 5.0


class Crops(NamedTuple):
    """Crops of the vertebrae of one or more subjects; leading axis vertebra."""

    subject: np.ndarray
    level: Int[np.ndarray, " n"]  # index into LEVELS
    images: Float[np.ndarray, "n view h w"]  # line integrals, float16
    masks: UInt8[np.ndarray, "n view h w"]
    camera_from_world: Float[np.ndarray, "n view 7"]
    focal_length: Float[np.ndarray, "n view 2"]
    principal_point: Float[np.ndarray, "n view 2"]
    sdd: Float[np.ndarray, "n view"]
    vertices: Float[np.ndarray, "n vertex 3"]  # the template on the true surface, world mm
    pose: Float[np.ndarray, "n 7"]  # of the best fit of a model, see `with_best_fits`
    coefficients: Float[np.ndarray, "n mode"]


def camera_of(crops: Crops, vertebra: int | np.ndarray, view: int | np.ndarray) -> Camera:
    """Make the cameras of the chosen views (index arrays of the same shape give leading axes)."""
    size = crops.images.shape[-2:]

    def one(pose: jax.Array, focal: jax.Array, center: jax.Array, sdd: jax.Array) -> Camera:
        return Camera(transforms.SE3(pose), focal, center, sdd, size)

    parts = (crops.camera_from_world, crops.focal_length, crops.principal_point, crops.sdd)
    leaves = [jnp.asarray(part[vertebra, view]) for part in parts]
    for _ in range(leaves[-1].ndim):
        one = jax.vmap(one)
    return one(*leaves)


def stacked_shape_models(without: Sequence[str]) -> ssm.ShapeModel:
    """Load the packaged shape models of LEVELS that exclude these subjects, stacked (level)."""
    return stack([data.load_shape_model(level, exclude=without) for level in LEVELS])


def with_best_fits(crops: Crops, models: ssm.ShapeModel) -> Crops:
    """Replace pose and coefficients by the best fit of these models (`stacked_shape_models`) to the
    true surfaces. The stored files contain the best fits of the models that exclude the
    subject."""

    @jax.jit
    def one(level: jax.Array, vertices: jax.Array):
        model = jax.tree.map(lambda leaf: leaf[level], models)
        return ssm.project(model, vertices, noise=_PROJECTION_NOISE_MM)

    found = [one(*each) for each in zip(crops.level, crops.vertices, strict=True)]
    poses = np.stack([np.asarray(pose.parameters()) for pose, _ in found])
    return crops._replace(pose=poses, coefficients=np.stack([np.asarray(c) for _, c in found]))


def prepare_crops(
    folder: pathlib.Path,
    scan: data.Case | data.Subject,
    seed: int,
    surroundings: simulation.Surroundings = "none",
) -> pathlib.Path:
    """Simulate the crops of one subject, unless the folder has them; return the path of the
    file."""
    name = scan.subject if isinstance(scan, data.Case) else scan.id
    ending = "" if surroundings == "none" else f"-{surroundings}"
    file = folder / f"{name}-seed{seed}-v{_VERSION}{ending}.npz"
    if not file.is_file():
        case = scan if isinstance(scan, data.Case) else data.load_case(scan)
        data.publish_arrays(file, _crops_of(case, seed, surroundings)._asdict())
    return file


def load_crops(files: Sequence[pathlib.Path]) -> Crops:
    """Load and concatenate the crops of several subjects; DataError for an invalid file."""
    parts = []
    for file in files:
        with data.open_arrays(
            file, problem="holds no crops, or is damaged", remedy="remove it"
        ) as arrays:
            parts.append(Crops(*(arrays[name] for name in Crops._fields)))
    return Crops(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def cohort_crops(
    cohort: str,
    folder: str,
    wanted: Sequence[str],
    validation: Sequence[str],
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Crops, Crops]:
    """Load the crops of the training subjects (all other subjects if `wanted` is empty), and of the
    held-out validation subjects. DataError for unknown subjects and for real ones, on whom results
    are reported."""
    subjects = {s.id: s for s in data.find_subjects(cohort)}
    if not validation:
        raise data.DataError("name subjects for validation, which are held out of the training")
    wanted = list(wanted) or [name for name in subjects if name not in validation]
    if unknown := sorted({*wanted, *validation} - set(subjects)):
        raise data.DataError(f"{cohort} has no {', '.join(unknown)}")
    if both := sorted(set(wanted) & set(validation)):
        raise data.DataError(
            f"{', '.join(both)}: both in training and validation: remove from one of the two"
        )
    files = {}
    with progress("X-rays for training", len(wanted) + len(validation)) as step:
        for name in (*wanted, *validation):
            kind = subjects[name].dataset_kind
            if kind != "synthetic":
                raise data.DataError(f"{name} is {kind}: train on synthetic subjects")
            files[name] = prepare_crops(pathlib.Path(folder), subjects[name], seed)
            step(name)
    held_out = [files.pop(name) for name in validation]
    return load_crops(list(files.values())), load_crops(held_out)


def check_not_reported(subjects: Sequence[str]) -> None:
    """Raise DataError if results are reported on one of the subjects."""
    if known := sorted(set(subjects) & set(NEVER_TRAINED_ON)):
        raise data.DataError(f"results are reported on {', '.join(known)}: train on other subjects")


def _crops_of(case: data.Case, seed: int, surroundings: simulation.Surroundings) -> Crops:
    known = [t for t in simulation.true_vertebrae(case) if t.landmarks is not None]
    if not known:
        raise data.DataError(f"{case.subject} has no vertebra with a reliable surface")
    body = xray_body(simulation.scene_volume(case, known, surroundings))
    rows = []
    for truth in known:
        rng = np.random.default_rng([seed, *case.subject.encode(), *truth.level.encode()])
        rows.append(_vertebra(case, truth, rng, body))
    return Crops(*(np.stack(column) for column in zip(*rows, strict=True)))


def _vertebra(
    case: data.Case, truth: simulation.TrueVertebra, rng: np.random.Generator, body: XrayBody
) -> tuple:
    views = _views(truth, rng)
    crops, masks = zip(*(_crop(truth, view, rng) for view in views), strict=True)
    view = jax.device_get(stack(list(crops)))
    return (
        np.array(case.subject),
        np.array(LEVELS.index(truth.level)),
        np.stack([_image(body, crop, rng) for crop in crops]),
        np.stack(masks).astype(np.uint8),
        view.camera_from_world.parameters(),
        view.focal_length,
        view.principal_point,
        view.sdd,
        np.asarray(truth.dense, np.float32),
        np.asarray(truth.oracle.pose.parameters(), np.float32),
        np.asarray(truth.oracle.coefficients, np.float32),
    )


def _views(truth: simulation.TrueVertebra, rng: np.random.Generator) -> list[Camera]:
    """Draw random views, each with its own isocentre, so that the vertebra lies anywhere on the
    detector and not always in the central beam."""
    setup, views = simulation.CarmSetup(), []
    center = np.asarray(truth.pose.translation(), float)
    for _ in range(NUM_VIEWS):
        isocenter = center + np.array([15.0, 15.0, 120.0]) * rng.uniform(-1.0, 1.0, 3)
        views += simulation.random_views(rng, isocenter, setup, num_views=1)
    return views


def _crop(
    truth: simulation.TrueVertebra, view: Camera, rng: np.random.Generator
) -> tuple[Camera, np.ndarray]:
    """Make the crop of a vertebra as it is made in use: around the centroid of a mask with the
    errors of a detector, at the depth of a position with an error; and the mask in it."""
    place = np.asarray(truth.pose.translation(), float) + _DEPTH_ERROR_MM * rng.normal(size=3)
    place = jnp.asarray(place, jnp.float32)
    size = _WINDOW * CROP_PIXELS
    window = cameras.region_around(view, place, width_mm=_WINDOW * CROP_WIDTH_MM, num_pixels=size)
    dice = float(np.clip(rng.normal(_MASK_DICE, _MASK_DICE_SPREAD), 0.75, 0.98))
    noise_px = _MASK_NOISE_MM * CROP_PIXELS / CROP_WIDTH_MM
    (true,) = simulation.true_masks(truth, [window])
    mask = np.asarray(disturbed_mask(true, rng, dice, noise_px), np.float32)
    center = mask_centroid(mask, window, view)
    crop = detected_crop(view, center, place, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS)
    return crop, np.asarray(resample(Radiograph(jnp.asarray(mask), window), crop).image) > 0.5


def _image(body: XrayBody, crop: Camera, rng: np.random.Generator) -> np.ndarray:
    """Simulate the radiograph of a crop with spectrum, scatter and noise; each has another tube
    voltage, filter, scatter and dose."""
    settings = xray_settings(
        kvp=float(rng.uniform(65.0, 110.0)),
        filtration_mm_cu=float(rng.uniform(0.0, 0.3)),
        photons_per_pixel=float(10.0 ** rng.uniform(4.5, 6.2)),
        scatter_to_primary=float(rng.uniform(0.1, 1.2)),
        num_samples=_SAMPLES,
    )
    key = jax.random.key(int(rng.integers(2**31)))
    return np.asarray(_expose(body, crop, settings, key), np.float16)


@jax.jit
def _expose(body: XrayBody, crop: Camera, settings: XraySettings, key: jax.Array) -> jax.Array:
    return simulate_radiograph(body, crop, settings, key=key).image


def crop_sampler(
    num_vertebrae: int, num_views: int, batch_size: int, seed: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Make the function that draws the vertebrae (batch,) and views (batch, num_views; without
    repetition) of a step, from seed and step alone. Every vertebra is drawn once before any is
    drawn again."""

    def with_views(vertebra: int, rng: np.random.Generator):
        return vertebra, rng.permutation(NUM_VIEWS)[:num_views]

    rows = data.grain().MapDataset.range(num_vertebrae).seed(seed).shuffle().repeat()
    return rows.random_map(with_views).batch(batch_size).__getitem__
