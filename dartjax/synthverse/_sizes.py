"""Vertebra sizes of one person: published means and spreads, correlated over levels.

Means and spreads of T11 to L5 and of all pedicle widths are `dartjax.data.published`. Values
without a table (`_MEANS`) are typical adult anatomy, rounded: depths and canals after Panjabi 1991
and 1992 (Spine 16:888, 17:299), pedicle heights and angles and thoracic heights near Kaur 2016,
processes from an atlas, checked visually.
"""

import functools
from typing import Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Float

from dartjax.data import Published, Sex, published
from dartjax.synthverse._vertebra import VertebraForm

LEVELS: tuple[str, ...] = ("C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)))
PUBLISHED = (
    "body_height",
    "body_height_post",
    "body_width",
    "canal_width",
    "tp_span",
    "pedicle_width",
)
_PUBLISHED_NAME = {"body_width": "endplate_width", "pedicle_width": "pedicle_width_left"}

# Correlation of two levels k apart, and of two measures of one level: Spearman's (as Pearson's)
# of the per-case lengths of CTSpinoPelvic1K (Apache-2.0; 738 CT with sex and age, T11 to L5),
# standardised by sex with median and MAD, without values beyond 3 robust sd. Lags 1 to 6 average
# .68 .55 .45 .39 .37 .30 over the five measures; the curve below gives .71 .54 .44 .38 .35 .33.
_FAR, _DECAY = 0.3, 0.58
_BETWEEN = {
    ("body_height", "body_height_post"): 0.68,
    ("body_height", "body_width"): 0.16,
    ("body_height", "canal_width"): 0.13,
    ("body_height", "tp_span"): 0.24,
    ("body_height_post", "body_width"): 0.19,
    ("body_height_post", "canal_width"): 0.11,
    ("body_height_post", "tp_span"): 0.22,
    ("body_width", "canal_width"): 0.15,
    ("body_width", "tp_span"): 0.26,
    ("canal_width", "tp_span"): 0.25,
    ("body_width", "pedicle_width"): 0.3,  # this and the next are assumed
    ("body_width", "body_depth"): 0.6,
}
_WIDER_PER_DECADE = 0.11  # sd of the end-plate width per decade of age, same file, about age 60
_MAX_SD = 2.5
# Half of (male / female ratio - 1): widths 0.07 and heights 0.03 in CTSpinoPelvic1K.
_SEX_SHARE = {"body_width": 0.07, "body_depth": 0.06, "tp_span": 0.065, "canal_width": 0.03}
_SEX_SHARE_OTHERS = 0.03

#                C7    T1    T2    T3    T4    T5    T6    T7    T8    T9    T10   T11   T12
#                L1    L2    L3    L4    L5
_MEANS: dict[str, tuple[float, ...]] = {
    "body_width": (27, 29, 28.5, 27.5, 27.3, 27.8, 28.8, 30, 31.3, 32.8, 34.8, 37.6, 39.9,
                   40.7, 42.2, 44.6, 47.3, 51.0),
    "body_depth": (16, 17, 18.5, 20, 21.5, 23, 24.5, 26, 27, 27.8, 28.3, 29, 30,
                   31, 32.3, 33.3, 34, 34.5),
    "body_height": (14.5, 17, 18.2, 19, 19.6, 20.2, 20.8, 21.5, 22.3, 23.2, 24.4, 25.6, 27.2,
                    28.8, 30.4, 30.4, 30.4, 31.5),
    "body_height_post": (14.5, 17.4, 18.7, 19.6, 20.4, 21.2, 22, 22.7, 23.5, 24.4, 25.4, 26.4, 28.4,
                         30, 30.4, 30, 29.6, 29.0),
    "canal_width": (23, 21, 18.5, 17.3, 16.8, 16.6, 16.6, 16.8, 17, 17.3, 18, 20.3, 23.1,
                    23.9, 24.2, 25.2, 26.2, 30.0),
    "canal_depth": (14.5, 15.5, 15.5, 15.5, 15.5, 15.5, 15.5, 15.5, 15.5, 15.5, 15.7, 16.2, 17.5,
                    17.2, 16.4, 15.8, 16.2, 17.0),
    "pedicle_width": (7, 9.3, 7.5, 6.0, 4.8, 5.0, 5.5, 6.0, 6.3, 6.4, 6.8, 7.8, 8.3,
                      8.7, 8.9, 10.3, 12.9, 17.0),
    "pedicle_height": (7.5, 9.5, 11.5, 12, 12, 12, 12.2, 12.5, 13, 13.8, 15, 16.5, 16.5,
                       16, 15.5, 15.3, 15, 14),
    "pedicle_angle": (40, 32, 24, 17, 12, 10, 9, 8, 8, 7, 5, 1, -1,
                      7, 9, 12, 16, 26),
    "tp_span": (68, 73, 69, 64, 61.5, 61.5, 62.5, 63, 62, 60, 57, 53.8, 50.6,
                72.7, 80.9, 90, 87.4, 92),
    "tp_back": (9, 14.5, 17.5, 20.5, 22, 22.5, 23, 23.5, 23.5, 22.5, 21, 18, 16,
                15, 15, 15, 13, 10),
    "tp_up": (2, 4.5, 5.5, 6, 6, 6, 6, 5.5, 5, 4, 3, 2.5, 1.5,
              1, 1, 1, 1.5, 3),
    "tp_radius": (3.6, 4.6, 4.6, 4.6, 4.6, 4.7, 4.8, 4.8, 4.7, 4.5, 4.2, 3.6, 3.2,
                  2.4, 2.6, 2.8, 3.0, 4.0),
    "sap_x": (15, 12, 10, 9.5, 9.3, 9.2, 9.2, 9.3, 9.4, 9.6, 10, 10.6, 12,
              14.2, 15, 16.2, 18, 21),
    "sap_back": (7, 8, 7.5, 7.3, 7.2, 7, 7, 7, 7.2, 7.5, 8, 9, 11,
                 15, 16.5, 17, 17, 16),
    "sap_up": (4, 3.5, 4, 4.3, 4.6, 4.8, 5, 5, 5, 5, 4.8, 4.5, 3.5,
               2, 1.5, 1.2, 0.8, 0.5),
    "iap_x": (13, 9.5, 8.8, 8.5, 8.3, 8.3, 8.4, 8.5, 8.7, 9, 9.3, 9.5, 9,
              9.3, 9.8, 10.8, 13.3, 18.5),
    "iap_back": (14, 14, 14, 13.8, 13.6, 13.4, 13.4, 13.6, 14, 14.5, 15.2, 17, 20,
                 21.5, 22, 22.5, 22.5, 21),
    "iap_down": (5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.7, 5, 5.5, 6.5, 8,
                 8.5, 9, 9, 8.5, 7),
    "spinous_back": (36, 33, 30, 27, 26, 26, 26, 27, 28, 28, 28, 28, 29,
                     32, 34, 34, 31, 25),
    "spinous_down": (13, 19, 23, 27, 29, 32, 35, 36, 34, 29, 23, 19.5, 18,
                     17.5, 17.5, 17.5, 17.5, 17),
    "spinous_radius": (4.2, 4.4, 4.2, 4.0, 3.9, 3.9, 4.0, 4.1, 4.4, 5.0, 5.8, 7.0, 8.0,
                       9.5, 10.3, 10.3, 9.3, 7.0),
    "lamina_slope": (15, 18, 20, 22, 23, 24, 24, 24, 23, 21, 19, 16, 14,
                     13, 13, 14, 16, 20),
    "squareness": (2.4, 2.3, 2.2, 2.1, 2.0, 1.95, 1.95, 1.95, 2.0, 2.05, 2.1, 2.15, 2.2,
                   2.2, 2.2, 2.2, 2.25, 2.3),
    "heart": (0, 0, 0.05, 0.12, 0.18, 0.2, 0.2, 0.18, 0.15, 0.12, 0.1, 0.06, 0.03,
              0, 0, 0, 0, 0),
    "waist": (0.06, 0.06, 0.06, 0.06, 0.06, 0.065, 0.07, 0.075, 0.08, 0.085, 0.09, 0.09, 0.1,
              0.1, 0.1, 0.1, 0.1, 0.09),
    "hollow": (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.8, 2.0,
               2.2, 2.4, 2.5, 2.5, 2.4),
    "thoracic": (0.8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.95, 0.55,
                 0, 0, 0, 0, 0),
}  # fmt: skip
# Standard deviation without a published one: relative to the mean, or in the measure's unit.
_RELATIVE_SD = {
    "body_height": 0.055, "body_height_post": 0.055, "body_width": 0.075, "body_depth": 0.07,
    "canal_width": 0.075, "canal_depth": 0.08, "pedicle_width": 0.18, "pedicle_height": 0.08,
    "tp_span": 0.075, "tp_radius": 0.1, "sap_x": 0.07, "iap_x": 0.07, "spinous_back": 0.1,
    "spinous_radius": 0.1, "hollow": 0.25, "waist": 0.2,
}  # fmt: skip
_ABSOLUTE_SD = {
    "pedicle_angle": 2.5, "tp_back": 1.5, "tp_up": 1.5, "sap_back": 0.7, "sap_up": 0.8,
    "iap_back": 0.8, "iap_down": 0.9, "spinous_down": 2.5, "lamina_slope": 2.5,
    "squareness": 0.1, "heart": 0.04,
}  # fmt: skip


class Person(NamedTuple):
    """A random person: sex, age in years, and the vertebra forms of C7 to L5."""

    sex: Literal["male", "female"]
    age: float
    forms: dict[str, VertebraForm]


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a person with vertebra sizes correlated over levels and measures."""
    sex = cast(Literal["male", "female"], ("male", "female")[int(rng.integers(2))])
    age = float(np.round(rng.uniform(25.0, 88.0), 1))
    scores = _scores(rng)
    scores[list(_MEANS).index("body_width")] += _WIDER_PER_DECADE * (age - 60.0) / 10.0
    forms = {}
    for i, level in enumerate(LEVELS):
        values = {
            name: mean_of(level, name, sex) + spread_of(level, name, sex) * float(scores[j, i])
            for j, name in enumerate(_MEANS)
        }
        right, left = 1.0 + 0.015 * rng.standard_normal(2)
        forms[level] = VertebraForm(**values, right=float(right), left=float(left))
    return Person(sex, age, forms)


def mean_of(level: str, name: str, sex: Sex) -> float:
    """Return the mean of a measure: published if available, else from the table scaled by sex."""
    entry = _entry(level, name, sex)
    if entry is not None:
        return entry.mean
    mean = _MEANS[name][LEVELS.index(level)]
    share = _SEX_SHARE.get(name, _SEX_SHARE_OTHERS) if name in _RELATIVE_SD else 0.0
    return mean * (1.0 + {"male": share, "female": -share}.get(sex, 0.0))


def spread_of(level: str, name: str, sex: Sex) -> float:
    """Return the standard deviation of a measure within a sex."""
    entry = _entry(level, name, sex)
    if entry is not None and entry.sd is not None:
        return entry.sd
    if name in _RELATIVE_SD:
        return _RELATIVE_SD[name] * _MEANS[name][LEVELS.index(level)]
    return _ABSOLUTE_SD.get(name, 0.0)


@functools.cache
def _entry(level: str, name: str, sex: Sex) -> Published | None:
    """Return the published mean and spread of a measure, None unless both are published."""
    if name not in PUBLISHED:
        return None
    entry = published(level, sex).get(_PUBLISHED_NAME.get(name, name))
    return entry if entry is not None and entry.sd is not None else None


def _scores(rng: np.random.Generator) -> Float[np.ndarray, "measure level"]:
    """Draw standard normal scores with the correlations above, clipped at 2.5 sd."""
    names = list(_MEANS)
    between = np.eye(len(names))
    for (a, b), value in _BETWEEN.items():
        i, j = names.index(a), names.index(b)
        between[i, j] = between[j, i] = value
    lag = np.abs(np.subtract.outer(np.arange(len(LEVELS)), np.arange(len(LEVELS))))
    along = np.where(lag == 0, 1.0, _FAR + (1.0 - _FAR) * _DECAY**lag)
    roots = [np.linalg.cholesky(matrix) for matrix in (between, along)]
    white = rng.standard_normal((len(names), len(LEVELS)))
    return np.clip(roots[0] @ white @ roots[1].T, -_MAX_SD, _MAX_SD)
