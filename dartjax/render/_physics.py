"""Physical simulation of a C-arm radiograph: `_materials`, `_tools` and `_detector` in order.

body = xray_body(volume)                      # once per CT, on the host
settings = xray_settings("standard", kvp=80)  # once per technique, on the host
radiograph = simulate_radiograph(body, camera, settings, key=key)
"""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Image, Scalar
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.render import _detector
from dartjax.render._materials import XrayBody, basis_attenuation, basis_thickness
from dartjax.render._spectrum import Spectrum, linear_attenuation, reduced_spectrum, tube_spectrum
from dartjax.render._tools import Tool, tool_thickness


class XraySettings(eqx.Module):
    """Settings of a radiograph except body and camera, made by `xray_settings`.

    All leaves are arrays and may be randomised in a batch (stack settings made on the host).
    """

    spectrum: Spectrum
    photons_per_pixel: Scalar  # quanta that an open pixel detects
    scatter_to_primary: Scalar  # behind 200 mm of water in a wide field; 0 = none
    scatter_widths_mm: Float[Array, " gaussian"]  # standard deviations on the detector
    scatter_shares: Float[Array, " gaussian"]
    blur_mm: Scalar  # standard deviation on the detector
    electronic_noise: Scalar  # quanta rms
    gain: Scalar  # digital numbers per quantum
    full_scale: Scalar  # largest digital number
    shutters: Float[Array, "4"]  # left, upper, right, lower; fractions of the image
    iris_radius: Scalar  # fraction of half the diagonal
    edge_px: Scalar  # blur of the collimator's edges
    leakage: Scalar  # share of the beam that passes the collimator's lead
    noise: bool = eqx.field(static=True, default=True)
    num_samples: int = eqx.field(static=True, default=350)


@dataclasses.dataclass(frozen=True)
class _Preset:
    photons_per_pixel: float
    scatter_to_primary: float
    blur_mm: float
    electronic_noise: float
    num_bins: int
    noise: bool


PRESETS = {
    "standard": _Preset(1e6, 0.55, 0.25, 30.0, 3, True),
    "low_dose": _Preset(3e4, 0.55, 0.35, 10.0, 3, True),
    "ideal": _Preset(1e6, 0.0, 0.0, 0.0, 1, False),
}
OPEN_BEAM_SHARE = 0.7  # of the full scale


def xray_settings(
    preset: str = "standard",
    *,
    kvp: float = 80.0,
    filtration_mm_al: float = 3.0,
    filtration_mm_cu: float = 0.1,
    num_bins: int | None = None,
    photons_per_pixel: float | None = None,
    scatter_to_primary: float | None = None,
    scatter_widths_mm: tuple[float, ...] = (30.0, 175.0),
    scatter_shares: tuple[float, ...] = (0.5, 0.5),
    blur_mm: float | None = None,
    electronic_noise: float | None = None,
    bit_depth: int = 16,
    shutters: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    iris_radius: float = 1.0,
    edge_px: float = 2.0,
    leakage: float = 0.002,
    noise: bool | None = None,
    num_samples: int = 350,
) -> XraySettings:
    """Make the settings of a preset; given arguments replace the values of the preset.

    "standard" is a digital spot image, "low_dose" one frame of low-dose fluoroscopy, "ideal" a
    single energy without scatter, blur or noise. The default scatter is that behind an 8:1 grid
    (without a grid: ratio 4.8, widths 64 and 278 mm, shares 0.2 and 0.8). The gain puts the
    open beam at 0.7 of the full scale of `bit_depth` bits. Host function. ValueError for an
    unknown preset or a value out of range.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    chosen = {
        name: getattr(PRESETS[preset], name) if given is None else given
        for name, given in {
            "num_bins": num_bins,
            "photons_per_pixel": photons_per_pixel,
            "scatter_to_primary": scatter_to_primary,
            "blur_mm": blur_mm,
            "electronic_noise": electronic_noise,
            "noise": noise,
        }.items()
    }
    widths, shares = jnp.array(scatter_widths_mm), jnp.array(scatter_shares)
    _check(chosen, scatter_widths_mm, scatter_shares, shutters, iris_radius)
    _check_range("edge_px", edge_px, 0.0)
    _check_range("leakage", leakage, 0.0, 1.0)
    _check_range("bit_depth", bit_depth, 8, 24)
    _check_range("num_samples", num_samples, 1)
    whole = tube_spectrum(kvp, filtration_mm_al=filtration_mm_al, filtration_mm_cu=filtration_mm_cu)
    full_scale = 2.0**bit_depth - 1.0
    return XraySettings(
        spectrum=reduced_spectrum(whole, chosen["num_bins"]),
        photons_per_pixel=_scalar(chosen["photons_per_pixel"]),
        scatter_to_primary=_scalar(chosen["scatter_to_primary"]),
        scatter_widths_mm=widths,
        scatter_shares=shares,
        blur_mm=_scalar(chosen["blur_mm"]),
        electronic_noise=_scalar(chosen["electronic_noise"]),
        gain=_scalar(OPEN_BEAM_SHARE * full_scale / chosen["photons_per_pixel"]),
        full_scale=_scalar(full_scale),
        shutters=jnp.array(shutters),
        iris_radius=_scalar(iris_radius),
        edge_px=_scalar(edge_px),
        leakage=_scalar(leakage),
        noise=bool(chosen["noise"]),
        num_samples=num_samples,
    )


def simulate_radiograph(
    body: XrayBody,
    camera: Camera,
    settings: XraySettings,
    *,
    key: PRNGKeyArray,
    tools: Sequence[Tool] = (),
) -> Radiograph:
    """Simulate the radiograph of a body and tools: -log(I / I0), dimensionless, bone bright.

    Tools are added without removing the tissue they displace, which gives 3 % too much
    attenuation for steel. Without noise the image is differentiable in the camera and the
    settings; with noise the derivatives are only approximate: do not use them.
    """
    thickness = basis_thickness(body, camera, num_samples=settings.num_samples)
    metal = tool_attenuation(tools, camera, settings.spectrum)
    transmitted = transmission(thickness, metal, settings.spectrum)
    signal = detected_signal(transmitted, settings, camera)
    if not settings.noise:
        blurred = _detector.detector_blur(signal, settings.blur_mm, camera.pixel_spacing)
        return Radiograph(-jnp.log(jnp.maximum(blurred, 1e-7)), camera)
    quanta = _detector.equivalent_quanta(settings.spectrum, transmitted)
    for_quanta, for_electronics = jax.random.split(key)
    noisy = _detector.quantum_noise(signal, quanta, settings.photons_per_pixel, key=for_quanta)
    blurred = _detector.detector_blur(noisy, settings.blur_mm, camera.pixel_spacing)
    reading = _detector.read_out(
        blurred,
        settings.photons_per_pixel,
        settings.electronic_noise,
        settings.gain,
        settings.full_scale,
        key=for_electronics,
    )
    open_beam = settings.gain * settings.photons_per_pixel
    return Radiograph(_detector.log_transform(reading, open_beam), camera)


def transmission(
    thickness: Float[Array, "basis h w"], metal: Float[Array, "bin h w"], spectrum: Spectrum
) -> Float[Array, "bin h w"]:
    """Compute Beer-Lambert, exp(-(mu_water(E) T_water + mu_bone(E) T_bone + metal(E))), per energy.

    `thickness` is from `basis_thickness`, `metal` the -log transmission of tools. The result is
    at most 1, also where CT noise around a body integrates to negative attenuation.
    """
    per_mm = basis_attenuation(spectrum.energies_kev)
    depth = jnp.einsum("em,mhw->ehw", per_mm, thickness) + metal
    return jnp.exp(-jnp.maximum(depth, 0.0))


def tool_attenuation(
    tools: Sequence[Tool], camera: Camera, spectrum: Spectrum
) -> Float[Array, "bin h w"]:
    """Compute the -log transmission of tools at each energy, summed over the tools."""
    total = jnp.zeros((spectrum.energies_kev.shape[0], *camera.image_size))
    for tool in tools:
        per_mm = linear_attenuation(tool.material, spectrum.energies_kev)
        total = total + per_mm[:, None, None] * tool_thickness(tool, camera)[None]
    return total


def detected_signal(
    transmitted: Float[Array, "bin h w"], settings: XraySettings, camera: Camera
) -> Image:
    """Compute the mean signal in open-beam units: collimated primary signal plus scatter."""
    field = _detector.collimation(
        camera.image_size,
        settings.shutters,
        settings.iris_radius,
        settings.edge_px,
        settings.leakage,
    )
    primary = field * jnp.einsum("b,bhw->hw", settings.spectrum.weights, transmitted)
    scattered = _detector.scatter(
        primary,
        field,
        settings.scatter_to_primary,
        reference_depth(settings.spectrum),
        settings.scatter_widths_mm,
        settings.scatter_shares,
        camera.pixel_spacing,
    )
    return primary + scattered


def reference_depth(spectrum: Spectrum) -> Scalar:
    """Compute the -log transmission of 200 mm of water for a spectrum, about 4 at 80 kV."""
    water = basis_attenuation(spectrum.energies_kev)[:, 0]
    return -jnp.log(jnp.sum(spectrum.weights * jnp.exp(-water * _detector.REFERENCE_WATER_MM)))


def _scalar(value: float) -> Scalar:
    return jnp.asarray(value, jnp.float32)


def _check(chosen, widths, shares, shutters, iris_radius) -> None:
    _check_range("photons_per_pixel", chosen["photons_per_pixel"], 1.0)
    for name in ("scatter_to_primary", "blur_mm", "electronic_noise"):
        _check_range(name, chosen[name], 0.0)
    positive = all(width > 0.0 for width in widths) and all(share >= 0.0 for share in shares)
    if len(widths) != len(shares) or not widths or not positive:
        raise ValueError(
            f"scatter_widths_mm {widths} and scatter_shares {shares}: give equally many positive "
            "widths and non-negative shares"
        )
    if not sum(shares) > 0.0:
        raise ValueError("scatter_shares sum to 0: to switch scatter off set scatter_to_primary=0")
    left, upper, right, lower = shutters
    if not (left < right and upper < lower):
        raise ValueError(
            f"shutters {shutters} close the field: give left < right and upper < lower, as "
            "fractions of the image"
        )
    if not iris_radius > 0.0:
        raise ValueError(f"iris_radius is {iris_radius:g}: give a fraction above 0, 1 is open")


def _check_range(
    name: str, value: float | int, low: float | int, high: float | int = float("inf")
) -> None:
    if not low <= value <= high:
        limit = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{name} is {value:g}: give a number {limit}")
