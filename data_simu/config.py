"""Configuration of the simulator: ranges that every scene, source, lens and sensor is drawn from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from deflare_core.events import SensorSize, check_sensor_size
from deflare_core.system.limits import HOUR_US, MOST_PAIRS
from deflare_core.system.settings import StrictModel


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be [lowest, highest], received {list(bounds)}")
    return bounds


def _log_ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds != (0, 0) and bounds[0] <= 0:
        raise ValueError(
            f"must be [lowest, highest] above 0, since its logarithm is drawn, or [0, 0]; received {list(bounds)}"
        )
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Bounds between which a number is drawn."""
NumRange = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], AfterValidator(_ordered)]
"""The least and the greatest number of things."""
PositiveRange = Annotated[tuple[Annotated[float, Field(gt=0)], float], AfterValidator(_ordered)]
"""Bounds of a number above 0."""
SpreadRange = Annotated[tuple[Annotated[float, Field(ge=0)], float], AfterValidator(_ordered)]
"""Bounds of a standard deviation."""
ShareRange = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]], AfterValidator(_ordered)
]
"""Bounds of a share."""
LogRange = Annotated[Range, AfterValidator(_log_ordered)]
"""Positive bounds of a number that is drawn evenly over its logarithm; [0, 0] is 0."""


def _some_share(shares: dict[FlickerKind, NonNegative]) -> dict[FlickerKind, NonNegative]:
    if not sum(shares.values()):
        raise ValueError("must hold at least one share above 0, such as {constant: 1}")
    return shares


def _drawable_blades(blades: int) -> int:
    if blades != 0 and blades < 3:
        raise ValueError("must be 0, a circle, or at least 3 blades")
    return blades


FlickerKind = Literal["constant", "mains", "rectified", "pwm"]
NonNegative = Annotated[float, Field(ge=0)]
Frequencies = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
"""Frequencies to draw from."""


class SceneConfig(StrictModel):
    """What the camera sees and how it moves."""

    families: tuple[Literal["street", "tunnel", "room", "wall", "lights", "dark"], ...] = Field(
        ("street", "street", "tunnel", "room", "wall", "lights"), min_length=1
    )
    """Kinds of scene to draw from; one named twice is drawn twice as often."""
    backdrops: str | None = None
    """Folder of pictures, or a file, that the wall shows instead of drawn textures; every scene is then a wall, and
    families is not looked at. None: drawn textures. What is read: data_simu/README.md."""
    log10_ambient: Range = (-0.6, 0.7)
    """Decimal logarithm of the ambient light, in units of a surface of albedo 1 under average light."""
    speed_m_s: Range = (0.5, 12.0)
    """Forward speed of the camera, metres per second."""
    turn_deg_s: Range = (-25.0, 25.0)
    """Yaw, pitch and roll rates, degrees per second."""
    roll_deg: Range = (0.0, 0.0)
    """How far the camera is rolled at time 0, degrees."""
    still_share: float = Field(0.2, ge=0, le=1)
    """Share of the scenes whose camera stands still."""
    num_objects: NumRange = (2, 7)
    """Objects that move on their own, such as cars, people and poles."""


class SourceConfig(StrictModel):
    """The light sources and their flicker."""

    num_sources: NumRange = (1, 3)
    """Groups of light sources in a scene, such as a lamp, a row of street lamps or a pair of headlights."""
    log10_radiance: Range = (2.8, 4.8)
    """Decimal logarithm of a source's radiance, in units of the ambient light."""
    radius_mrad: PositiveRange = (2.0, 9.0)
    """Radius of a bulb as it first appears, milliradians; 1 mrad is 0.6 pixels on a sensor 640 wide."""
    broad_share: float = Field(0.0, ge=0, le=1)
    """Share of the groups that are broad lamps: globes, tubes, panels, shop windows, letters and more, at any angle."""
    broad_mrad: LogRange = (8.0, 100.0)
    """Radius of a broad disc, milliradians, drawn evenly over its logarithm; others get up to 3 times as large."""
    size_power: Range = (0.8, 2.0)
    """A broad lamp of radius r has a radiance of (6 mrad / r) to this power of that of a small one."""
    outside_share: float = Field(0.0, ge=0, le=1)
    """Share of single broad lamps that are just outside the picture."""
    sparkle_share: float = Field(0.0, ge=0, le=1)
    """Share of the groups that are sparks, glitter, blinking indicators or screens, which make no flare."""
    log10_light: Range = (-2.6, -0.9)
    """Decimal logarithm of the light that a group throws on surfaces as far from it as the camera is, in units of the
    ambient light; nearer ones get more, with the inverse square of the distance."""
    flicker_shares: Annotated[dict[FlickerKind, NonNegative], AfterValidator(_some_share)] = Field(
        {"constant": 0.30, "mains": 0.35, "rectified": 0.15, "pwm": 0.20}
    )
    """Share of the sources with each kind of flicker; lights of cars, which no mains feeds, are constant or pwm."""
    mains_hz: Frequencies = (100.0, 120.0)
    """Flicker frequencies of lamps on mains power, hertz."""
    pwm_hz: Frequencies = (90.0, 120.0, 200.0, 244.0, 300.0, 400.0, 500.0)
    """Frequencies of pulse-width modulated lamps, hertz."""


class OpticsConfig(StrictModel):
    """The lens that makes the flare."""

    flare_images: str | None = None
    """Folder of flare images laid out as in Flare7K, which give streaks and starbursts their shape. None: the shape is
    that of light behind a drawn aperture. The layout: data_simu/README.md."""
    log10_scatter: Range = (-2.5, -1.3)
    """Decimal logarithm of the share of a source's light in streaks and starbursts."""
    log10_veil: Range = (-3.0, -1.8)
    """Decimal logarithm of the share of a source's light in the veiling glare."""
    blades: tuple[Annotated[int, AfterValidator(_drawable_blades)], ...] = Field((0, 5, 6, 7, 8, 9), min_length=1)
    """Numbers of aperture blades to draw from; 0 is a circle."""
    num_ghosts: NumRange = (3, 10)
    """Reflections between lens surfaces that are kept, the brightest first."""
    log10_coating: Range = (-1.0, -0.1)
    """Decimal logarithm of the share of reflections that the coating of the lens surfaces lets through."""
    perfect_share: float = Field(0.0, ge=0, le=1)
    """Share of the lenses that are perfect: input and target are then the same."""
    partial_share: float = Field(0.0, ge=0, le=1)
    """Share of the other lenses that lack one or two of their three flaws: streaks, veil and ghosts. Where all lenses
    have all three, a network learns that a lamp without a halo makes no flare at all."""
    scatter_strength: float = Field(1.0, ge=0)
    """Factor on streaks, starbursts and veiling glare; 0 leaves the ghosts."""
    ghost_strength: float = Field(1.0, ge=0)
    """Factor on the ghosts; 0 leaves what is scattered."""


class SensorConfig(StrictModel):
    """The pixels of the event camera."""

    threshold: PositiveRange = (0.18, 0.35)
    """Contrast threshold of positive events, natural logarithm of intensity."""
    off_ratio: PositiveRange = (0.7, 1.15)
    """Threshold of negative events as a multiple of that of positive ones."""
    mismatch: SpreadRange = (0.02, 0.06)
    """Standard deviation of the thresholds between pixels, relative."""
    jitter: float = Field(0.02, ge=0)
    """Standard deviation of a threshold from event to event, relative."""
    corner_hz: PositiveRange = (80.0, 600.0)
    """Corner frequency of a pixel at intensity 1, hertz; it grows with intensity."""
    ceiling_hz: PositiveRange = (2_000.0, 8_000.0)
    """Corner frequency that no intensity exceeds, hertz."""
    refractory_us: LogRange = (50.0, 3_000.0)
    """Dead time of a pixel after an event, microseconds; drawn evenly over its logarithm."""
    leak_hz: float = Field(0.1, ge=0)
    """Rate of positive leak events per pixel in the dark, hertz."""
    noise_hz: LogRange = (0.05, 3.0)
    """Rate of noise events per pixel in the dark, hertz, drawn evenly over its logarithm; it falls with intensity."""
    noise_spread: float = Field(0.6, ge=0)
    """Standard deviation of the logarithm of the noise rate between pixels."""
    hot_share: float = Field(1e-4, ge=0, le=1)
    """Share of hot pixels, which fire at a rate of their own on top."""
    hot_hz: LogRange = (50.0, 2_000.0)
    """Rate of a hot pixel in the dark, hertz."""
    brownian_share: float = Field(0.0, ge=0, le=1)
    """Share of the recordings whose pixels have no lag and are noisy in their voltage, a Brownian motion, instead of
    having a corner frequency and noise events (data_simu/sensor/brownian.py)."""
    brownian_floor: ShareRange = (0.1, 0.5)
    """Share of that noise in the dark that heat keeps up under any light; the rest falls with the root of the light."""
    brownian_leak_hz: SpreadRange = (0.0, 0.5)
    """Rate of positive leak events of such a pixel at intensity 1, hertz, beside leak_hz; it grows with the light."""


class SimulationConfig(StrictModel):
    """A data set of simulated pairs."""

    sensor_size: Annotated[SensorSize, AfterValidator(check_sensor_size)] = (480, 640)
    """(height, width) of the sensor."""
    duration_us: int = Field(100_000, gt=0, le=HOUR_US)
    """Length of a recording, microseconds."""
    warmup_us: int = Field(20_000, ge=0, le=HOUR_US)
    """Time simulated before a recording and dropped, microseconds."""
    num_train: int = Field(500, ge=0, le=MOST_PAIRS)
    """Training pairs."""
    num_test: int = Field(50, ge=0, le=MOST_PAIRS)
    """Test pairs."""
    seed: int = Field(0, ge=0, lt=1 << 63)
    """Seed of the data set; every recording's own seed follows from it."""
    target: Literal["snapped", "physical", "subset"] = "snapped"
    """What the target holds: the ideal lens's events (physical), these moved to the times of the same events in the
    input where there are such within 5 ms (snapped), or the input's events that flare did not cause (subset)."""
    min_flare_share: float = Field(0.002, ge=0)
    """Flare below this share of a pixel's light leaves its events untouched in both recordings."""
    backgrounds: str | None = None
    """Folder of recordings without flare, or one, of any format that is read, whose events are the background in place
    of those of the drawn scene; none: drawn scenes. How: data_simu/README.md."""
    background_share: float = Field(1.0, ge=0, le=1)
    """Share of the pairs that have such a background, where there are recordings."""
    scene: SceneConfig = SceneConfig()
    """The scene."""
    sources: SourceConfig = SourceConfig()
    """The light sources."""
    optics: OpticsConfig = OpticsConfig()
    """The lens."""
    sensor: SensorConfig = SensorConfig()
    """The pixels."""
