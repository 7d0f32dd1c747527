"""Soft tissue of a trunk in Hounsfield units: fat, muscle, lungs, heart, vessels, bowel, organs.

The patient's left is -x: the heart and the aorta are on the left, the liver on the right.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from dartjax.synthverse._grid import Grid, is_empty
from dartjax.synthverse._shape import VertebraShape, frame_coordinates
from dartjax.synthverse._shoulder import Arms, paint_arms
from dartjax.synthverse._solids import Field, capsule, ellipsoid, shifted
from dartjax.synthverse._trunk import Trunk, radial_distance
from dartjax.synthverse._warp import noise_block

AIR, FAT, MUSCLE, SKIN, DISC, CORD = -1000.0, -103.0, 55.0, 20.0, 85.0, 30.0


@dataclasses.dataclass(frozen=True)
class Patient:
    """Parameters of the soft tissue in addition to the trunk's outlines."""

    contrast_hu: float  # of the aorta; 40 without contrast agent
    vein_hu: float  # of the upper vena cava: above that of the aorta while contrast agent flows in
    breath_mm: float  # + lowers the diaphragm
    gas: float  # share of the bowel filled with gas
    muscle_fat: float  # 0 to 1, fatty streaks in the back muscles
    calcified: float  # HU of the rib cartilage
    patches: float  # share of it that is densely calcified
    aortic_calcium: int  # number of calcified plaques
    heart: float  # size relative to the mean
    lung_hu: float
    breast_mm: float  # height of a breast, 0 for none
    arms: Arms
    table: bool


def draw_patient(rng: np.random.Generator, age: float, sex: str) -> Patient:
    """Draw the parameters of a patient of some age (years): contrast agent (in half of the
    patients), depth of breath, bowel gas, fat in the muscles, calcification, size of the heart,
    breasts, arms (raised in three of four), table."""
    old = float(np.clip((age - 45.0) / 40.0, 0.0, 1.0))
    contrast = rng.uniform(150.0, 400.0) if rng.random() < 0.5 else rng.uniform(35.0, 48.0)
    early = contrast > 100.0 and rng.random() < 0.4
    breast = float(np.clip(rng.gamma(3.0, 7.0), 6.0, 48.0)) if sex == "female" else 0.0
    return Patient(
        contrast_hu=float(contrast),
        vein_hu=float(rng.uniform(500.0, 1500.0) if early else contrast),
        breath_mm=float(rng.normal(0.0, 11.0)),
        gas=float(rng.beta(1.6, 2.0)),
        muscle_fat=float(np.clip((age - 30.0) / 60.0 + rng.normal(0.0, 0.15), 0.0, 1.0)),
        calcified=float(np.clip(100.0 + 2.0 * (age - 40.0) + rng.normal(0, 25.0), 70.0, 260.0)),
        patches=float(rng.beta(1.0, 3.0) * old),
        aortic_calcium=int(rng.poisson(30.0 * old * rng.random())),
        heart=float(np.clip(rng.normal(1.0 + 0.1 * old, 0.13), 0.75, 1.45)),
        lung_hu=float(np.clip(rng.normal(-850.0, 35.0), -920.0, -740.0)),
        breast_mm=breast,
        arms="up" if rng.random() < 0.75 else "down",
        table=bool(rng.random() < 0.7),
    )


class SoftTissue:
    """Painter of a trunk in HU, from the outside to the inside."""

    def __init__(self, grid: Grid, trunk: Trunk, patient: Patient, rng: np.random.Generator):
        self.grid, self.trunk, self.patient, self.rng = grid, trunk, patient, rng
        self.hu = np.full(grid.shape, AIR, np.float32)
        self.lung = np.zeros(grid.shape, bool)
        self.waves = noise_block(rng, 6.0)
        self.ripple = noise_block(rng, 2.0)

    def paint(
        self,
        shapes: Mapping[str, VertebraShape],
        frames: Mapping[str, Float[np.ndarray, "4 4"]],
        ribs: list[Float[np.ndarray, "_ 3"]],
    ) -> Float[np.ndarray, "i j k"]:
        """Paint all soft tissue and return the HU."""
        for k, z in enumerate(self.grid.axis(2)):
            self._paint_slice(k, float(z))
        tissues = {"air": AIR, "skin": SKIN, "fat": FAT, "muscle": MUSCLE}
        paint_arms(self.hu, self.grid, self.trunk, self.patient.arms, tissues)
        self._chest()
        self._abdomen()
        self._vessels(frames)
        self._spine(shapes, frames)
        self._cartilage(ribs)
        if self.patient.table:
            self._table()
        return self.hu

    def _paint_slice(self, k: int, z: float) -> None:
        """Paint skin, fat, muscular wall and the cavity of one slice."""
        t, g = self.trunk, self.grid
        sx, sy = t.value("spine_x", z), t.value("spine_y", z)
        reach = np.array([t.value("outer_half_width", z) + 14.0, 400.0, 0.6 * g.spacing])
        box = g.around(np.array([0.4 * sx, sy, z]), tuple(reach))[:2]  # beside it is only air
        x, y = g.axis(0)[box[0]][:, None], g.axis(1)[None, box[1]]
        wave = self._texture(self.waves, k, box)
        front, back = t.value("outer_front", z), t.value("outer_back", z)
        middle = sy + 0.5 * (t.value("front", z) - t.value("back", z))
        half = (t.value("outer_half_width", z), sy + front - middle, middle - sy + back)
        groove = 9.0 * np.exp(-(((x - sx) / 13.0) ** 2)) * (y < sy)
        skin = radial_distance(x, y, (0.4 * sx, middle), half, 2.5) + groove + 1.5 * wave
        gland = self._breast(x, y, z, sy + front)
        skin = np.minimum(skin, gland)
        inner_half = (
            t.value("half_width", z),
            sy + t.value("front", z) - middle,
            middle - sy + t.value("back", z),
        )
        inner = radial_distance(x, y, (0.5 * sx, middle), inner_half)
        fat_depth = t.fat_mm * (0.75 + 0.25 * np.clip((y - middle) / 60.0, -1.0, 1.0)) + 2.0
        hu = np.full(skin.shape, AIR, np.float32)
        self._paint_over(hu, skin, SKIN)
        self._paint_over(hu, skin + 2.0, FAT + 6.0 * wave)
        self._paint_over(hu, gland + 0.35 * self.patient.breast_mm + 4.0 * wave, 25.0)
        muscle = MUSCLE + 7.0 * self._texture(self.ripple, k, box)
        fatty = self._texture(self.waves, k + 31, box) + 0.6 * self._texture(
            self.ripple, k + 11, box
        )
        streaks = np.clip(3.0 * (fatty - 1.9 + 1.1 * self.patient.muscle_fat), 0.0, 1.0)
        muscle = muscle - 120.0 * streaks
        # Layers of the wall: two sheets of muscle over the ribs with fat in between.
        self._paint_over(hu, np.maximum(skin + fat_depth, inner - 22.0 + 2.0 * wave), muscle)
        gap = np.abs(inner - 12.0 + 2.5 * wave) - 1.3
        self._paint_over(hu, np.maximum(gap, skin + fat_depth + 4.0) + 40.0 * (y < sy - 8.0), FAT)
        self._paint_over(hu, self._back_muscles(x, y, z, sx, sy, wave, skin + fat_depth), muscle)
        self._paint_cavity(hu, inner, x, y, z, sx, sy, wave, (*box, k))
        self.hu[(*box, k)] = hu

    def _breast(self, x, y, z, front: float) -> Field:
        """Distance to two flattened half ellipsoids on the front of the chest."""
        height = self.patient.breast_mm
        if height == 0.0:
            return np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), 1e3, np.float32)
        wide, up = 56.0 + 0.5 * height, (z - self.trunk.level_z["T7"]) / (60.0 + 0.4 * height)
        aside = (np.abs(x) - 82.0) / wide
        forward = (y - (front - 34.0)) / (24.0 + height)
        return height * (np.sqrt(aside**2 + forward**2 + up**2).astype(np.float32) - 1.0)

    def _back_muscles(self, x, y, z, sx, sy, wave, depth) -> Field:
        """Erectors on both sides of the spinous processes; psoas lateral to the lumbar bodies."""
        lateral = np.abs(x - sx)
        lumbar = np.clip((self.trunk.level_z["T12"] - z) / 60.0, 0.0, 1.0)
        erector = np.hypot((lateral - 32.0) / (30.0 + 6 * lumbar), (y - sy + 47.0) / 23.0) - 1.0
        end = 0.6 * max(self.trunk.level_z["S1"] - 20.0 - z, 0.0)  # they end at the sacrum
        value = np.maximum(22.0 * erector + 1.5 * wave + end, depth + 1.0)
        if lumbar > 0.1:
            radius = 6.0 + 15.0 * min(1.0, (self.trunk.level_z["L1"] - z) / 90.0 + 0.2)
            psoas = np.hypot(lateral - (24.0 + radius), 0.9 * (y - sy + 8.0)) - radius
            quadratus = np.hypot((lateral - 66.0) / 20.0, (y - sy + 30.0) / 10.0) - 1.0
            value = np.minimum(value, np.minimum(psoas + wave, 10.0 * quadratus))
        return value

    def _paint_cavity(self, hu, inner, x, y, z, sx, sy, wave, place) -> None:
        """Paint lungs above the diaphragm, fat below it, and the mediastinum."""
        dome = self.diaphragm(x, y)
        below = z - dome - 1.5 * wave  # negative under the diaphragm
        cavity = inner + 0.8
        under = np.maximum(cavity, below)
        self._paint_over(hu, under, FAT + 10.0 + 9.0 * wave)
        self._paint_over(hu, np.maximum(under, -below - 3.5), MUSCLE)
        if z < float(dome.min()) - 5.0:
            return
        apex = z - (self.trunk.level_z["T1"] + 8.0)
        above = np.maximum(cavity, -below)
        front_room = self.trunk.value("front", z)
        middle = 14.0 + 8.0 * np.exp(-(((z - self.trunk.level_z["T5"]) / 45.0) ** 2))
        strip = np.abs(x - 0.4 * sx + 4.0) - middle - 2.5 * wave
        strip = strip + 9.0 * np.clip((y - sy - 0.78 * front_room) / 20.0, 0.0, 1.0)
        body = np.hypot((x - sx) / 22.5, (y - sy - 1.0) / 21.0) * 21.0 - 21.0
        processes = np.hypot((x - sx) / 32.0, (y - sy + 39.0) / 19.0) * 19.0 - 19.0
        neck = np.hypot(x - 0.4 * sx, y - sy - 22.0) - 42.0
        solid = np.minimum(np.minimum(strip, body), processes)
        # Fat behind the lower end of the sternum, in the angles of heart and diaphragm.
        across, deep = (x - 0.4 * sx + 6.0) / 66.0, (y - sy - 1.02 * front_room) / 58.0
        high = (z - self.trunk.level_z["T10"]) / 52.0
        pad = 40.0 * (np.sqrt(across**2 + deep**2 + high**2) - 1.0) + 3.0 * wave
        solid = np.minimum(solid, pad)
        if apex > -45.0:
            solid = np.minimum(solid, neck + np.float32(1.2) * np.minimum(-apex, 40.0))
        lung = np.maximum(np.maximum(above, -solid), apex)
        self._paint_over(hu, np.maximum(above, -lung), -30.0 + 60.0 * (np.abs(wave) < 1.2))
        depth = np.clip((y - sy) / 120.0, -0.4, 1.0)  # lying, the back of the lung is denser
        value = (
            self.patient.lung_hu
            - 20.0
            - 45.0 * depth
            + 12.0 * wave
            + 14.0 * self._texture(self.ripple, place[2] + 47, place[:2])
        )
        self._paint_over(hu, lung, value)
        self.lung[place] = lung < -0.5

    def diaphragm(self, x: Field, y: Field) -> Field:
        """Compute the height of the diaphragm's upper face: two domes, the right one higher."""
        t = self.trunk
        top = t.level_z["T9"] - 4.0 - self.patient.breath_mm
        middle = t.value("spine_y", top) + 0.42 * t.value("front", top)
        reach = 0.55 * t.value("half_width", top)
        domes = []
        for side, height in ((1.0, 0.0), (-1.0, -16.0)):
            far = ((x - side * reach) / 78.0) ** 2 + ((y - middle) / 92.0) ** 2
            domes.append(top + height - 62.0 * far**1.15)
        return np.maximum(domes[0], domes[1]).astype(np.float32)

    def _chest(self) -> None:
        """Paint heart, great vessels, airways, and the lung vessels from the hilum outward."""
        t, blood = self.trunk, self.patient.contrast_hu
        z8, z5 = t.level_z["T8"], t.level_z["T5"]
        y0, deep = t.value("spine_y", z8), t.value("front", z8)
        low = z8 - 4.0 - 0.5 * self.patient.breath_mm
        heart, size = np.array([-24.0, y0 + 0.60 * deep, low]), self.patient.heart
        inside = 42.0 + 0.6 * (blood - 42.0)
        for a, b, radii, hu, above in (
            ((26, -16, 26), (-36, 20, -20), (37.0, 33.0), 42.0, True),
            ((22, -18, 22), (-26, 14, -16), (20.0, 21.0), inside, False),
            ((30, 4, 8), (30, 0, 34), (18.0, 12.0), inside, False),
        ):
            start, end = (shifted(heart, size * np.array(place)) for place in (a, b))
            self._fill_rod(start, end, (size * radii[0], size * radii[1]), hu, above=above)
        z4 = t.level_z["T4"]
        y4 = t.value("spine_y", z4)
        arch = np.array(
            [[4, 0.60 * deep, -45], [10, 0.62 * deep, -18], [2, 50, 4], [-12, 34, 8], [-22, 15, -2],
             [-23, 10, -25]], float,
        )  # fmt: skip
        self._tube(shifted(arch, [0, y4, z4]), 14.0, blood)
        self._branches(y4, z4)
        pulmonary = np.array([[-52, 4, 0], [-18, 22, 8], [18, 12, -2], [50, 2, -6]], float)
        y5 = t.value("spine_y", z5)
        self._tube(shifted(pulmonary, [0, y5 + 22, z5 - 12]), 10.5, inside)
        self._airways(y4, z4, y5, z5)
        for side in (1.0, -1.0):
            self._lung_tree(np.array([side * 34.0, y5 + 24.0, z5 - 14.0]), side, inside)

    def _branches(self, y4: float, z4: float) -> None:
        """Paint the arteries from the aortic arch to neck and arms, and the upper vena cava."""
        blood = self.patient.contrast_hu
        for across, ahead, radius, out in (
            *((8.0, 42.0, 6.0, 30.0), (-8.0, 28.0, 4.0, -26.0)),
            *((-18.0, 16.0, 5.0, -95.0), (12.0, 40.0, 4.5, 95.0)),
        ):
            path = [[across, ahead, 10], [0.5 * (across + out), 24, 40], [out, 16, 78]]
            self._tube(shifted(np.array(path, float), [0, y4, z4]), radius, blood)
        vein = np.array([[20.0, 48, 45], [22, 50, -30]])
        self._tube(shifted(vein, [0, y4, z4]), 8.5, self.patient.vein_hu)
        arm = np.array([[20.0, 48, 45], [48, 44, 58], [110, 26, 66]])
        self._tube(shifted(arm, [0, y4, z4]), 5.0, self.patient.vein_hu)

    def _airways(self, y4: float, z4: float, y5: float, z5: float) -> None:
        carina = np.array([2.0, y5 + 30.0, z5 + 2.0])
        z = np.arange(carina[2], z4 + 95.0, 14.0)
        windpipe = np.stack([0.4 * self.trunk.at("spine_x", z), self.trunk.at("spine_y", z), z], 1)
        windpipe[:, 1] += np.linspace(30.0, 24.0, len(z))
        main = ((shifted(carina, [28, -2, -22]), 7.0), (shifted(carina, [-36, -2, -24]), 6.0))
        tubes = [(windpipe, 9.0)] + [(np.array([carina, end]), radius) for end, radius in main]
        for ends, radius in tubes:
            self._tube(ends, radius + 1.8, 40.0)
            self._tube(ends, radius, -990.0)

    def _lung_tree(self, root: Float[np.ndarray, "3"], side: float, blood: float) -> None:
        """Paint branching vessels, thinner toward the pleura."""
        stack = []
        for direction in ((0.2, 0.1, 1.0), (0.7, 0.6, 0.35), (0.8, -0.4, 0.1), (0.5, 0.3, -0.8),
                          (0.6, -0.5, -0.7), (0.3, -0.6, -1.0), (0.9, 0.2, -0.3)):  # fmt: skip
            d = np.array(direction) * [side, 1, 1] + 0.15 * self.rng.standard_normal(3)
            stack.append((root, d / np.linalg.norm(d), 5.4))
        while stack:
            point, direction, radius = stack.pop()
            if radius < 4.0 and not self._is_lung(point):
                continue
            end = point + direction * radius * self.rng.uniform(4.0, 7.0)
            self._lung_vessel(point, end, radius, min(blood, 45.0 + 0.8 * (blood - 45.0)))
            if radius < 0.75:
                continue
            for share in (0.83, 0.68, 0.45)[: 3 if radius > 1.5 else 2]:
                bend = direction + 0.55 * self.rng.standard_normal(3)
                stack.append((end, bend / np.linalg.norm(bend), radius * share))

    def _is_lung(self, point: Float[np.ndarray, "3"]) -> bool:
        index = np.rint((point - self.grid.origin) / self.grid.spacing).astype(int)
        return bool(
            (index >= 0).all() and (index < self.grid.shape).all() and self.lung[tuple(index)]
        )

    def _lung_vessel(self, a, b, radius: float, hu: float) -> None:
        box = self.grid.box(np.minimum(a, b) - radius - 2.0, np.maximum(a, b) + radius + 2.0)
        if is_empty(box):
            return
        value = capsule(self.grid.coordinates(box), a, b, (radius, 0.85 * radius))
        share = np.clip(0.5 - value / self.grid.spacing, 0.0, 1.0) * self.lung[box]
        here = self.hu[box]
        here += share * (hu - here)

    def _abdomen(self) -> None:
        """Paint liver, spleen, kidneys, stomach, pancreas and bowel with gas."""
        t, blood = self.trunk, self.patient.contrast_hu
        lift = 0.35 * max(blood - 45.0, 0.0)
        self._liver(58.0 + lift)
        z12, z1, z2 = (t.level_z[v] for v in ("T12", "L1", "L2"))
        y1 = t.value("spine_y", z1)
        w = t.value("half_width", z12)
        self._fill_oval((-0.70 * w, y1 - 4.0, z12 + 6.0), (26.0, 40.0, 48.0), 50.0 + lift)
        for side, drop in ((1.0, 12.0), (-1.0, 0.0)):
            center = (side * 62.0, y1 - 16.0, z2 + 16.0 - drop)
            self._fill_oval(center, (27.0, 26.0, 55.0), 34.0 + 0.6 * max(blood - 45.0, 0.0))
            self._fill_oval((side * 50.0, y1 - 10.0, z2 + 16.0 - drop), (13.0, 12.0, 26.0), -70.0)
        stomach = (-46.0, y1 + 62.0, z12 + 8.0)
        self._fill_oval(stomach, (42.0, 34.0, 44.0), 30.0)
        gas = (20.0 + 14.0 * self.patient.gas, 15.0, 17.0 + 14.0 * self.patient.gas)
        self._fill_oval((-50.0, y1 + 78.0, z12 + 24.0), gas, -960.0)
        self._fill_oval(
            (6.0, y1 + 40.0, z1 - 2.0), (58.0, 12.0, 15.0), 38.0 + 0.3 * lift
        )  # pancreas
        self._bowel()

    def _liver(self, hu: float) -> None:
        t, g = self.trunk, self.grid
        top, bottom = t.level_z["T8"], t.level_z["L2"] - 18.0
        box = g.box(np.array([-90.0, -400.0, bottom]), np.array([200.0, 400.0, top]))
        if is_empty(box):
            return
        x, y = g.axis(0)[box[0]][:, None], g.axis(1)[box[1]][None, :]
        dome = self.diaphragm(x, y) - 4.5
        w = t.value("half_width", t.level_z["T12"])
        for k, z in enumerate(g.axis(2)[box[2]].tolist()):
            sy, sx = t.value("spine_y", z), t.value("spine_x", z)
            deep, back = t.value("front", z), t.value("back", z)
            middle = sy + 0.5 * (deep - back)
            half = (t.value("half_width", z), sy + deep - middle, middle - sy + back)
            inner = radial_distance(x, y, (0.5 * sx, middle), half) + 5.0
            share = (z - bottom) / (top - bottom)
            front_lobe = np.clip((y - sy - 0.45 * deep) / (0.5 * deep), -1.0, 1.0)
            left_edge = 62.0 - 150.0 * share - 42.0 * front_lobe - x
            left_edge = 0.8 * left_edge + 5.0 * self._texture(self.waves, k + 7, box)
            spine = 44.0 - np.hypot(x - sx, y - sy)
            under = bottom + 0.55 * np.maximum(w - 25.0 - x, 0.0) + 0.12 * (y - sy) - z
            value = np.maximum(np.maximum(inner, z - dome), np.maximum(left_edge, spine))
            value = np.maximum(value, 0.8 * under)
            texture = 4.0 * self._texture(self.ripple, k, box)
            self._paint_over(self.hu[box][:, :, k], value, hu + texture)

    def _bowel(self) -> None:
        """Paint loops of small bowel in fat, and the colon around them, partly with gas."""
        t, rng = self.trunk, self.rng
        z1, s1 = t.level_z["L1"], t.level_z["S1"]
        w = t.value("half_width", t.level_z["L3"])
        for _ in range(64):
            z = rng.uniform(s1 - 35.0, z1 - 12.0)
            sy, deep = t.value("spine_y", z), t.value("front", z)
            angle, far = rng.uniform(-1.0, 1.0), np.sqrt(rng.uniform(0.0, 1.0))
            center = np.array([0.62 * w * angle, sy + 34.0 + (deep - 56.0) * far, z])
            step = rng.normal(0.0, 20.0, (4, 3)) * [1, 0.6, 0.8]
            self._tube(
                center + np.cumsum(step, 0) * 0.8,
                rng.uniform(8.0, 12.5),
                rng.uniform(22.0, 55.0),
                True,
            )
        sy = t.value("spine_y", t.level_z["L3"])
        deep = t.value("front", t.level_z["L3"])
        y = sy + 0.30 * deep
        colon = np.array(
            [[0.72 * w, y, s1 + 5], [0.76 * w, y, t.level_z["L3"]],
             [0.70 * w, y + 20, z1 - 14], [0.2 * w, sy + 0.80 * deep, t.level_z["L2"] - 6],
             [-0.4 * w, sy + 0.80 * deep, t.level_z["L2"]],
             [-0.74 * w, y + 10, t.level_z["T12"] - 12], [-0.80 * w, y - 10, t.level_z["L3"]],
             [-0.70 * w, y, s1 + 5]], float,
        )  # fmt: skip
        along = np.linspace(0.0, 7.0, 60)
        path = np.stack([np.interp(along, np.arange(8), colon[:, i]) for i in range(3)], 1)
        path += 2.5 * rng.standard_normal(path.shape)
        radii = 15.0 + 3.5 * np.sin(2.2 * np.arange(60)) + rng.normal(0.0, 1.0, 60)
        gassy = rng.random(12).repeat(5) < 0.25 + 0.6 * self.patient.gas
        for i in range(59):
            self._fill_rod(path[i], path[i + 1], (radii[i], radii[i + 1]), 35.0, cavity=True)
        for i in range(59):
            shrink = 2.2 if gassy[i] else 4.0
            hu = rng.uniform(-990.0, -930.0) if gassy[i] else rng.uniform(-60.0, 40.0)
            self._fill_rod(
                path[i], path[i + 1], (radii[i] - shrink, radii[i + 1] - shrink), hu, cavity=True
            )

    def _vessels(self, frames: Mapping[str, Float[np.ndarray, "4 4"]]) -> None:
        """Paint the descending aorta, left of the bodies and further down in front of them, and the
        vena cava on the right."""
        levels = [v for v in frames if v[0] in "TL" and v not in ("T1", "T2", "T3", "T4")]
        venous = 40.0 + 0.4 * (self.patient.contrast_hu - 40.0)
        for side, radius, hu in ((-1.0, 11.0, self.patient.contrast_hu), (1.0, 10.5, venous)):
            path = []
            for level in levels:
                down = levels.index(level) / (len(levels) - 1)
                if side > 0 and level[0] == "T" and level not in ("T10", "T11", "T12"):
                    continue
                across = (24.0 - 16.0 * down) if side < 0 else 18.0
                ahead = 10.0 + 21.0 * down if side < 0 else 14.0 + 16.0 * down
                path.append(frames[level][:3, 3] + [side * across, ahead, 0.0])
            self._tube(np.array(path), radius, hu)
            if side < 0:
                self._plaques(np.array(path), radius)

    def _plaques(self, path: Float[np.ndarray, "n 3"], radius: float) -> None:
        """Paint calcified plaques on the wall of the descending aorta, more further down."""
        for _ in range(self.patient.aortic_calcium):
            along = len(path) - 1 - abs(self.rng.normal(0.0, 0.4 * len(path)))
            i = int(np.clip(along, 0, len(path) - 2))
            angle, size = self.rng.uniform(0.0, 2.0 * np.pi), self.rng.uniform(1.0, 3.5)
            center = path[i] + self.rng.random() * (path[i + 1] - path[i])
            center = center + radius * np.array([np.cos(angle), np.sin(angle), 0.0])
            self._fill_oval(center, (size, size, 1.6 * size), self.rng.uniform(300.0, 1100.0))

    def _spine(
        self,
        shapes: Mapping[str, VertebraShape],
        frames: Mapping[str, Float[np.ndarray, "4 4"]],
    ) -> None:
        """Paint discs and the dural sac."""
        order = [*shapes, "S1"]
        for above, below in itertools.pairwise(order):
            b = shapes[above].bounds
            pose = frames[above].copy()
            if below in shapes:
                low = frames[below][:3, 3] + frames[below][:3, 2] * shapes[below].bounds.upper
            else:
                low = frames[below][:3, 3]
            high = frames[above][:3, 3] + frames[above][:3, 2] * b.lower
            pose[:3, 3] = 0.5 * (low + high)
            box = self.grid.around(pose[:3, 3], (b.half_width + 8.0, 34.0, 22.0))
            if is_empty(box):
                continue
            local = frame_coordinates(pose, *self.grid.coordinates(box))
            middle, half = 0.5 * (b.front + b.wall), 0.5 * (b.front - b.wall)
            value = ellipsoid(local, (0.0, middle, 0.0), (b.half_width + 1.0, half + 1.5, 26.0))
            value = np.maximum(value, np.abs(local[2]) - 11.0)
            self._paint_over(self.hu[box], value, DISC)
        sac = []
        for level, shape in shapes.items():
            b, pose = shape.bounds, frames[level]
            sac.append(pose[:3, 3] + pose[:3, :3] @ np.array([0.0, b.wall - 8.0, 0.0]))
        sac.append(frames["S1"][:3, 3] + frames["S1"][:3, :3] @ np.array([0.0, -26.0, -10.0]))
        self._tube(np.array(sac), 9.5, -40.0)  # epidural fat
        self._tube(np.array(sac), 7.0, CORD)

    def _cartilage(self, ribs: list[Float[np.ndarray, "_ 3"]]) -> None:
        """Paint costal cartilage from the front ends of the upper ten ribs to the sternum."""
        t = self.trunk
        for i, path in enumerate(ribs[:20]):
            side = 1.0 if path[-1, 0] > 0 else -1.0
            level = ("T4", "T5", "T6", "T7", "T8", "T8", "T9", "T9", "T9", "T9")[i // 2]
            target = t.inner_point(np.array([np.pi]), np.array([t.level_z[level] + 2.0]), 4.0)[0]
            target = shifted(target, [side * 13.0, 0.0, 0.0])
            steps = np.linspace(0.0, 1.0, 8)[:, None]
            line = path[-1] + (target - path[-1]) * steps
            line[:, 1] += 8.0 * np.sin(np.pi * steps[:, 0])
            line[:, 2] -= 14.0 * np.sin(np.pi * steps[:, 0]) * (i // 2 > 3)
            for a, b in itertools.pairwise(line):
                dense = self.rng.random() < self.patient.patches
                hu = self.rng.uniform(250.0, 650.0) if dense else self.patient.calcified
                self._tube(np.stack([a, b]), 5.5, hu)

    def _table(self) -> None:
        """Paint the curved top of the scanner's table behind the back."""
        g = self.grid
        x, y = g.axis(0)[:, None], g.axis(1)[None, :]
        back = float((self.trunk.spine_y - self.trunk.outer_back).min())
        shell = np.abs(y - (back - 6.0 + (x / 330.0) ** 2 * 120.0)) - 1.2
        flat = np.broadcast_to(shell[:, :, None] < 0.0, g.shape)
        self.hu[flat & (self.hu < -900.0)] = -250.0

    def _texture(self, block: Field, k: int, box=None) -> Field:
        nx, ny, _ = self.grid.shape
        rows, columns = np.arange(nx), np.arange(ny)
        if box is not None:
            rows, columns = rows[box[0]], columns[box[1]]
        n = len(block)
        return block[(rows % n)[:, None], (columns % n)[None], k % n]

    def _paint_over(self, hu: Field, distance: Field, value: Field | float) -> None:
        """Paint a tissue over the present one, with partial volume at its edge."""
        share = np.clip(0.5 - distance / np.float32(self.grid.spacing), 0.0, 1.0)
        hu += share.astype(np.float32) * (value - hu)

    def _fill_oval(self, center, radii, hu: float) -> None:
        box = self.grid.around(np.array(center), tuple(r + 4.0 for r in radii))
        if is_empty(box):
            return
        value = ellipsoid(self.grid.coordinates(box), center, radii)
        self._paint_over(self.hu[box], self._clip_to_cavity(box, value), hu)

    def _fill_rod(self, a, b, radii, hu: float, above: bool = False, cavity: bool = False) -> None:
        a, b = np.asarray(a, float), np.asarray(b, float)
        reach = max(radii) + 3.0
        box = self.grid.box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        if is_empty(box):
            return
        x, y, z = self.grid.coordinates(box)
        value = capsule((x, y, z), a, b, radii)
        if above:
            value = np.maximum(value, self.diaphragm(x, y) + 1.0 - z)
        self._paint_over(self.hu[box], self._clip_to_cavity(box, value) if cavity else value, hu)

    def _tube(self, path: Float[np.ndarray, "n 3"], radius: float, hu: float, cavity: bool = False):
        for a, b in itertools.pairwise(path):
            self._fill_rod(a, b, (radius, radius), hu, cavity=cavity)

    def _clip_to_cavity(self, box, value: Field) -> Field:
        """Clip an organ to the abdominal cavity."""
        t, g = self.trunk, self.grid
        x, y, z = g.coordinates(box)
        sy = t.at("spine_y", z)
        deep, back = t.at("front", z), t.at("back", z)
        middle = sy + 0.5 * (deep - back)
        u = np.abs(x - 0.5 * t.at("spine_x", z)) / (t.at("half_width", z) - 3.0)
        dy = y - middle
        v = np.where(dy > 0, dy / (sy + deep - middle - 3.0), -dy / (middle - sy + back - 3.0))
        outside = (u**2.35 + v**2.35) ** np.float32(1 / 2.35) - 1.0
        return np.maximum(value, 60.0 * outside)
