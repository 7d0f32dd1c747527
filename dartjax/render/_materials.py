"""Decomposition of CT voxels into two basis materials: water and cortical bone.

Over the energies of a radiograph, attenuation in the body is the sum of the photoelectric effect
and Compton scatter, hence a combination of any two materials that differ in them (Alvarez and
Macovski, Phys. Med. Biol. 21, 1976). Water and cortical bone reproduce air, lung,
adipose tissue, soft tissue and bone mineral within 0.1 % from 40 to 100 keV, titanium within
0.5 % (tested). A voxel's material follows from its CT number: piecewise linear between air,
lung, adipose tissue, water, soft tissue, cortical bone, dense bone at 3000 HU and titanium.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax._types import Matrix4, Scalar
from dartjax.camera import Camera
from dartjax.image import Volume
from dartjax.render._raycast import PiecewiseLinear, paired_drr
from dartjax.render._spectrum import linear_attenuation, physics_tables

BASIS = ("water", "cortical_bone")
WATER_PER_MM = 0.0192  # attenuation of water in dartjax's volumes, at 0 HU
CT_ENERGY_KEV = 70.0  # assumed effective energy of a CT number
DENSE_BONE_HU = 3000.0
# Materials between which a voxel is interpolated, in the order of their CT numbers.
_ANCHORS = (
    "air",
    "lung",
    "adipose",
    "water",
    "soft_tissue",
    "cortical_bone",
    "dense_bone",
    "titanium",
)
_FIT_KEV = np.arange(40.0, 101.0)


class XrayBody(eqx.Module):
    """A body with its attenuation at every X-ray energy.

    Only the attenuation at the CT's energy is stored. The bone fraction is a function of that
    value, so both basis materials come from one volume.
    """

    volume: Volume  # attenuation in 1/mm, water = 0.0192
    bone_fraction: PiecewiseLinear  # attenuation (1/mm) -> density relative to cortical bone
    bone_per_mm: Scalar  # attenuation of cortical bone on the volume's scale, 1/mm

    @property
    def world_from_voxel(self) -> Matrix4:
        """Affine of the volume's grid."""
        return self.volume.world_from_voxel


def xray_body(volume: Volume) -> XrayBody:
    """Make the body of an attenuation volume in 1/mm, 0.0192 (1 + HU / 1000).

    Host function; the volume is not copied. CT numbers up to 3000 HU are tissue; above, the
    material is interpolated between dense bone and titanium (10,900 HU), so metal from a scanner
    that saturates at 3071 HU counts as dense bone. ValueError for a volume that is not finite or
    is in HU.
    """
    values = np.asarray(volume.values)
    if not np.isfinite(values).all():
        raise ValueError("the volume has values that are not finite: replace them")
    if values.max(initial=0.0) > 5.0 or values.min(initial=0.0) < -0.1:
        raise ValueError(
            f"the volume spans {values.min():g} to {values.max():g}, not attenuation in 1/mm: "
            "convert Hounsfield units by 0.0192 (1 + HU / 1000)"
        )
    attenuation, bone = anchors()
    slopes = np.diff(bone) / np.diff(attenuation)
    changes = np.diff(slopes, prepend=0.0)
    function = PiecewiseLinear(
        jnp.asarray(attenuation[:-1], jnp.float32), jnp.asarray(changes, jnp.float32)
    )
    _, bone_per_mm = ct_scale()
    return XrayBody(volume, function, jnp.asarray(bone_per_mm, jnp.float32))


def basis_thickness(
    body: XrayBody, camera: Camera, *, num_samples: int = 350, rays_per_chunk: int = 32768
) -> Float[Array, "basis h w"]:
    """Compute the path lengths (mm) of water and cortical bone equivalent to the body on every ray.

    Water can be negative behind much metal: it is a coordinate in the basis, not an amount. One
    pass over the volume; derivatives with respect to the camera as in `drr`.
    """
    whole, bone = paired_drr(
        body.volume,
        body.bone_fraction,
        camera,
        num_samples=num_samples,
        rays_per_chunk=rays_per_chunk,
    )
    water = (whole - body.bone_per_mm * bone) / WATER_PER_MM
    return jnp.stack([water, bone])


def basis_attenuation(energies_kev: Float[Array, " bin"]) -> Float[Array, "bin basis"]:
    """Return the attenuation of water and of cortical bone, 1/mm, at each energy."""
    return jnp.stack([linear_attenuation(name, energies_kev) for name in BASIS], axis=1)


def ct_scale() -> tuple[float, float]:
    """Return the attenuation of water and cortical bone on the scale of dartjax's volumes, 1/mm:
    their ratio is that at 70 keV, water is 0.0192."""
    water, bone = (_tabulated(name, np.array([CT_ENERGY_KEV]))[0] for name in BASIS)
    return WATER_PER_MM, float(WATER_PER_MM * bone / water)


def basis_coefficients(material: str) -> Float[np.ndarray, "2"]:
    """Fit the (water, cortical bone) coefficients of a material from 40 to 100 keV.

    Least squares of the relative error, then scaled to be exact at 70 keV."""
    basis = np.stack([_tabulated(name, _FIT_KEV) for name in BASIS], axis=1)
    target = _tabulated(material, _FIT_KEV)
    found = np.linalg.lstsq(basis / target[:, None], np.ones(len(target)), rcond=None)[0]
    at_ct = int(CT_ENERGY_KEV - _FIT_KEV[0])
    return found * target[at_ct] / (basis[at_ct] @ found)


def anchors() -> tuple[Float[np.ndarray, " anchor"], Float[np.ndarray, " anchor"]]:
    """Return attenuation (1/mm, the volume's scale) and bone coefficient of the materials between
    which voxels are interpolated, vacuum first."""
    scale = np.array(ct_scale())
    pairs = [(0.0, 0.0)]
    for name in _ANCHORS:
        if name == "dense_bone":
            attenuation = WATER_PER_MM * (1.0 + DENSE_BONE_HU / 1000.0)
            pairs.append((attenuation, attenuation / scale[1]))
        else:
            coefficients = basis_coefficients(name)
            pairs.append((float(scale @ coefficients), float(coefficients[1])))
    attenuation, bone = np.array(pairs).T
    return attenuation, bone


def _tabulated(material: str, energies_kev: Float[np.ndarray, " energy"]) -> np.ndarray:
    """Attenuation from the table, 1/mm, float64, at tabulated energies."""
    tables = physics_tables()
    row = [str(name) for name in tables["materials"]].index(material)
    columns = (energies_kev - tables["energies_kev"][0]).astype(int)
    per_mass = tables["mass_attenuation"][row][columns].astype(np.float64)
    return per_mass * float(tables["densities"][row]) / 10.0
