"""A vertebra from C7 to L5 as an implicit function of about 20 lengths and angles.

It uses no mesh or scan. The body is a superelliptic cylinder with a waist, concave end
plates and a rounded rim; pedicles, laminae, articular processes, transverse processes and the
spinous process are rods and plates joined smoothly around an open canal, so the solid has
genus 1. Frame: origin at the body's centre, +x right, +y anterior, +z superior, mm.
"""

import dataclasses

import numpy as np

from dartjax.synthverse._solids import Field, capsule, plate, rotated_axes, smooth_max, smooth_min

BACK_SHARE = 0.45  # share of the body's depth behind its centre
NOTCH = 1.3  # depth of the canal's notch in the posterior wall on the midline, mm


@dataclasses.dataclass(frozen=True)
class VertebraForm:
    """Parameters of a vertebra: lengths in mm, angles in degrees; `right` and `left` scale the
    lateral parts."""

    body_width: float
    body_depth: float
    body_height: float  # anterior
    body_height_post: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    pedicle_angle: float  # convergence, + with the front end nearer to the midline
    tp_span: float
    tp_back: float  # tip behind the posterior wall
    tp_up: float  # height of the tip
    tp_radius: float
    sap_x: float  # tip of the superior articular process
    sap_back: float
    sap_up: float  # above the upper end plate
    iap_x: float
    iap_back: float
    iap_down: float  # below the lower end plate
    spinous_back: float  # tip behind the canal
    spinous_down: float  # tip below the centre
    spinous_radius: float  # half height of the tip
    lamina_slope: float
    squareness: float  # of the front of the body: 2 ellipse
    heart: float  # narrowing of the body toward its front
    waist: float
    hollow: float  # concavity of each end plate
    thoracic: float  # 1 thoracic to 0 lumbar: facets, costal facets
    right: float = 1.0
    left: float = 1.0

    @property
    def wall(self) -> float:
        """y of the posterior wall of the body."""
        return -BACK_SHARE * self.body_depth

    @property
    def upper(self) -> float:
        """z of the upper end plate at the posterior wall."""
        return 0.5 * self.body_height_post


def vertebra(form: VertebraForm, x: Field, y: Field, z: Field) -> Field:
    """Evaluate the implicit function of the whole vertebra at points of its own frame."""
    side = np.where(x > 0, np.float32(form.right), np.float32(form.left))
    lateral = np.abs(x) / side
    arch = _pedicle(form, lateral, y, z)
    for part, fillet in (
        (_articular(form, lateral, y, z), 3.0),
        (_lamina(form, lateral, y, z), 2.5),
        (_spinous(form, lateral, y, z), 3.0),
        (_transverse(form, lateral, y, z), 3.5),
    ):
        arch = smooth_min(arch, part, fillet)
    whole = smooth_min(body(form, lateral, y, z), arch, 2.0)
    return smooth_max(whole, -_canal(form, x, y, z), 1.5)


def body(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    """Evaluate the vertebral body alone."""
    tilt = (form.body_height - form.body_height_post) / form.body_depth
    half = np.float32(0.25 * (form.body_height + form.body_height_post)) + np.float32(
        0.5 * tilt
    ) * (y - np.float32(0.05 * form.body_depth))
    height = z / half
    flare = 1.0 - form.waist * np.clip(1.0 - height * height, 0.0, 1.0) - 0.025 * height
    flare = flare.astype(np.float32)
    front = np.float32((1.0 - BACK_SHARE) * form.body_depth)
    back = np.float32(BACK_SHARE * form.body_depth)
    forward = np.where(y > 0, y / front, -y / back) / flare
    narrow = np.float32(1.0) - np.float32(form.heart) * np.clip(y / front, 0.0, 1.0) ** 2
    across = lateral / (np.float32(0.5 * form.body_width) * flare * narrow)
    power = np.where(y > 0, np.float32(form.squareness), np.float32(3.2))
    radius = (across**power + np.abs(forward) ** power) ** (1.0 / power)
    side = (radius - 1.0) * np.float32(0.45 * min(form.body_width, form.body_depth))
    dish = np.float32(form.hollow) * np.clip(1.0 - radius * radius * 1.15, 0.0, 1.0)
    return smooth_max(side, np.abs(z) - half + dish, 1.8)


def _canal(form: VertebraForm, x: Field, y: Field, z: Field) -> Field:
    """Slightly tilted elliptic tube behind the body; triangular at lumbar levels."""
    half_width, half_depth = 0.5 * form.canal_width, 0.5 * form.canal_depth
    center = form.wall - half_depth + NOTCH
    y_in, _ = rotated_axes(y, z, -4.0 * form.thoracic, (center, 0.0))
    lateral = np.abs(x) / np.float32(half_width)
    squeeze = np.float32(1.0) + np.float32(0.35 * (1.0 - form.thoracic)) * np.clip(
        -y_in / np.float32(half_depth), 0.0, 1.0
    )
    radius = np.sqrt((lateral * squeeze) ** 2 + (y_in / np.float32(half_depth)) ** 2)
    return (radius - 1.0) * np.float32(half_depth)


def pedicle_center(form: VertebraForm) -> tuple[float, float, float]:
    """Return the centre of the right isthmus, vertebra frame."""
    across = 0.5 * form.canal_width + 0.5 * form.pedicle_width
    high = form.upper - 0.5 * form.pedicle_height + 0.2 - 1.8 * (1.0 - form.thoracic)
    return across, form.wall - 4.0, high


def _pedicle(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    """Elliptic rod, narrowest at the isthmus."""
    cx, cy, cz = pedicle_center(form)
    angle = np.radians(form.pedicle_angle)
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    u, v = lateral - np.float32(cx), y - np.float32(cy)
    along, across = cos * -v + sin * u, cos * u + sin * v  # backward, outward
    wide = np.float32(0.5 * form.pedicle_width) + np.float32(0.018) * along * along
    tall = np.float32(0.5 * form.pedicle_height) + np.float32(0.012) * along * along
    radius = np.hypot(across / wide, (z - np.float32(cz) + 0.06 * along) / tall)
    tube = (radius - 1.0) * np.minimum(wide, tall)
    return smooth_max(tube, np.abs(along - 0.5) - np.float32(10.0), 2.0)


def _articular(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    """Superior and inferior processes and the isthmus between them."""
    point = (lateral, y, z)
    cx, _, cz = pedicle_center(form)
    thoracic = form.thoracic
    root = (cx + 1.0, form.wall - 11.0, cz - 0.15 * form.pedicle_height)
    tip = (form.sap_x, form.wall - form.sap_back, form.upper + form.sap_up)
    low = (form.iap_x, form.wall - form.iap_back, -0.5 * form.body_height_post - form.iap_down)
    # Coronal plates in the thorax, sagittal blades with a mammillary bulge in the lumbar spine.
    flat = (1.0 + 0.6 * thoracic, 1.0, 1.0)
    flat_up = (flat[0], 1.0 + 0.25 * (1.0 - thoracic), 1.0)
    thick = 5.4 - 2.3 * thoracic
    up = capsule(point, root, tip, (thick + 1.2, thick - 0.5), flat_up)
    if thoracic < 0.6:
        knob = (form.sap_x + 2.0, form.wall - form.sap_back - 4.0, form.upper + form.sap_up - 4.0)
        up = smooth_min(up, capsule(point, tip, knob, (3.8, 3.8)), 2.5)
    pars = (
        0.5 * (root[0] + low[0]),
        0.5 * (root[1] + low[1]) - 0.5,
        0.45 * root[2] + 0.55 * low[2] + 6.0,
    )
    middle = capsule(point, root, pars, (thick + 0.8, thick + 0.4), flat)
    down = capsule(point, pars, low, (thick + 0.4, thick - 0.4), flat)
    return smooth_min(smooth_min(up, middle, 4.0), down, 4.0)


def _lamina(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    """A plate from the articular pillar to the midline, sloping back and down."""
    back = form.wall - form.canal_depth + NOTCH
    center = -(0.16 + 0.04 * form.thoracic) * form.body_height_post - 1.5
    half_height = (0.42 + 0.10 * form.thoracic) * form.body_height_post
    behind, height = rotated_axes(y, z, -form.lamina_slope, (back, center))
    # Its outer edge leans inward below, where the inferior processes end.
    lean = np.float32(0.15 + 0.2 * form.thoracic) * height
    outer = (0.5 * form.canal_width + 1.5, 0.40 * form.canal_depth)
    thickness = (3.6, 3.8) if form.thoracic > 0.6 else (3.8, 4.2)
    return plate(
        (lateral - lean, behind), height, (outer, (0.0, -2.8)), thickness, half_height, 3.0
    )


def _spinous(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    back = form.wall - form.canal_depth + NOTCH
    root = (back - 2.5, -(0.14 + 0.06 * (1.0 - form.thoracic)) * form.body_height_post - 2.0)
    tip = (
        back - form.spinous_back + form.spinous_radius,
        -form.spinous_down + 0.5 * form.spinous_radius,
    )
    reach = np.clip((np.float32(root[0]) - y) / np.float32(root[0] - tip[0]), 0.0, 1.2)
    thickness = np.float32(2.7) + np.float32(0.9) * reach * reach + np.float32(0.3) * (1 - reach)
    root_radius = 0.8 * form.spinous_radius + 2.2
    return plate((y, z), lateral, (root, tip), (root_radius, form.spinous_radius), thickness, 2.5)


def _transverse(form: VertebraForm, lateral: Field, y: Field, z: Field) -> Field:
    cx, _, cz = pedicle_center(form)
    radius = form.tp_radius
    root = (cx + 0.5, form.wall - 10.5, cz - 0.12 * form.pedicle_height)
    tip = (max(0.5 * form.tp_span - radius, root[0] + 1.0), form.wall - form.tp_back, form.tp_up)
    thick = 4.6 if form.thoracic > 0.5 else 3.8
    tall = 1.15 if form.thoracic > 0.5 else 1.6
    rod = capsule((lateral, y, z), root, tip, (thick, radius), (1.0, 1.0, tall))
    if form.thoracic > 0.5:  # the bulb at the joint with the rib's tubercle
        bulb = capsule((lateral, y, z), tip, tip, (radius + 0.7, radius + 0.7), (1.0, 0.9, 1.15))
        rod = smooth_min(rod, bulb, 2.0)
    return rod
