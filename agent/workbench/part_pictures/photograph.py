"""Light and camera: a posed part on a conveyor belt becomes a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from agent.workbench.part_pictures.part import Map, PartMaps

BELT_COLOUR = np.array([0.046, 0.049, 0.050], np.float32)
COATING_COLOUR = np.array([0.10, 0.27, 0.72], np.float32)  # blue anodising
METAL_COLOUR = np.array([0.98, 0.99, 1.0], np.float32)
STAIN_COLOUR = np.array([0.62, 0.50, 0.34], np.float32)  # a dried fluid


@dataclass(frozen=True)
class Scene:
    """What changes from one photograph to the next."""

    rotation: float  # degrees
    shift: tuple[float, float]  # of the part, fractions of width and height
    zoom: float
    light_heading: float  # radians, where the light comes from
    light_elevation: float  # radians above the belt
    brightness: float
    warmth: float  # white balance: positive is warmer
    focus_blur: float  # pixels of a 640x480 picture
    noise: float  # standard deviation of the sensor noise at full brightness
    belt_offset: tuple[float, float]  # 0..1, which piece of the belt is below

    @staticmethod
    def drawn(rng: np.random.Generator) -> Scene:
        """One of the scenes that a fixed camera above a belt meets."""
        return Scene(
            rotation=rng.uniform(-4.0, 4.0),
            shift=(rng.uniform(-0.025, 0.025), rng.uniform(-0.025, 0.025)),
            zoom=rng.uniform(0.985, 1.015),
            light_heading=np.deg2rad(rng.uniform(-145, -115)),
            light_elevation=np.deg2rad(rng.uniform(42, 52)),
            brightness=rng.uniform(1.06, 1.22),
            warmth=rng.uniform(-0.02, 0.02),
            focus_blur=rng.uniform(0.5, 0.8),
            noise=rng.uniform(0.006, 0.009),
            belt_offset=(rng.uniform(), rng.uniform()),
        )


def photograph(
    part: PartMaps, scene: Scene, width: int, height: int, noise: np.random.Generator
) -> tuple[NDArray[np.uint8], Map]:
    """The picture, (height, width, 3) RGB, and the part's defect map, 0..1, as the camera sees it."""
    frame = _posed(part, scene, width, height)
    light = _Light.of(scene, width, height)
    shadow, occlusion = _shadows(frame.footprint, scene, part.scale)
    metal, gloss = _surface(frame, light)
    belt = _belt_piece(scene, width, height, part.scale) * (light.falloff * shadow * occlusion)
    coverage = frame.coverage
    stain = frame.stain[..., None]
    bare = frame.bare[..., None]
    colour = COATING_COLOUR + bare * (METAL_COLOUR - COATING_COLOUR)
    colour += stain * (STAIN_COLOUR - colour)
    scene_light = BELT_COLOUR * (belt * (1 - coverage))[..., None] + colour * (metal * coverage)[..., None]
    # The coating's outermost surface mirrors the lamp in the lamp's own colour.
    scene_light += (gloss * coverage * (1 - np.float32(0.7) * frame.stain))[..., None]
    return _exposed(scene_light, scene, part.scale, noise), frame.defect


@dataclass(frozen=True)
class _Frame:
    """The part's maps where the camera sees them, (height, width)."""

    coverage: Map
    footprint: Map
    relief: Map
    reflectance: Map
    turned: Map
    around_x: Map  # direction from the middle of the boss, a unit vector
    around_y: Map
    bare: Map
    stain: Map
    defect: Map


def _posed(part: PartMaps, scene: Scene, width: int, height: int) -> _Frame:
    turn = np.deg2rad(scene.rotation)
    cos, sin = np.cos(turn) / scene.zoom, np.sin(turn) / scene.zoom
    map_height, map_width = part.relief.shape
    middle_x, middle_y = width * (0.5 + scene.shift[0]), height * (0.5 + scene.shift[1])
    into_map = (
        cos,
        sin,
        map_width / 2 - cos * middle_x - sin * middle_y,
        -sin,
        cos,
        map_height / 2 + sin * middle_x - cos * middle_y,
    )

    def posed(values: Map) -> Map:
        if not values.any():
            return np.zeros((height, width), np.float32)
        flat = Image.fromarray(values)
        seen = flat.transform((width, height), Image.Transform.AFFINE, into_map, Image.Resampling.BILINEAR)
        return np.asarray(seen, np.float32)

    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(middle_x)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(middle_y)
    distance = np.sqrt(x * x + y * y) + np.float32(1e-3)
    coverage = posed(part.coverage)
    return _Frame(
        coverage=coverage,
        footprint=coverage if part.footprint is part.coverage else posed(part.footprint),
        relief=posed(part.relief),
        reflectance=posed(part.reflectance),
        turned=posed(part.turned),
        around_x=x / distance,
        around_y=y / distance,
        bare=posed(part.bare),
        stain=posed(part.stain),
        defect=posed(part.defect),
    )


@dataclass(frozen=True)
class _Light:
    """A soft lamp above the belt, near enough that its direction and strength change over the picture."""

    x: Map  # (1, width) direction to the lamp
    y: Map  # (height, 1)
    z: np.float32
    falloff: Map  # (height, width)
    heading: float

    @staticmethod
    def of(scene: Scene, width: int, height: int) -> _Light:
        flat = np.cos(scene.light_elevation)
        across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
        down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(height / width)
        to_x, to_y = np.float32(np.cos(scene.light_heading)), np.float32(np.sin(scene.light_heading))
        return _Light(
            x=to_x * np.float32(flat) - np.float32(0.55) * across,
            y=to_y * np.float32(flat) - np.float32(0.55) * down,
            z=np.float32(np.sin(scene.light_elevation)),
            falloff=np.float32(scene.brightness) * (1 + np.float32(0.5) * (across * to_x + down * to_y)),
            heading=scene.light_heading,
        )


def _surface(frame: _Frame, light: _Light) -> tuple[Map, Map]:
    """Light that the surface sends to the camera, tinted by the coating's colour, and the untinted gloss."""
    slope_y, slope_x = np.gradient(frame.relief)
    # Where relief falls to the belt the slope is a cliff, and the camera sees a wall edge-on.
    slope_x, slope_y = np.clip(slope_x, -2.2, 2.2), np.clip(slope_y, -2.2, 2.2)
    upright = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    scattered = np.maximum((light.z - light.x * slope_x - light.y * slope_y) * upright, 0)
    # Half-way vector between lamp and camera; the lobe is wide because the surface is brushed.
    norm = np.sqrt(2 + 2 * light.z)
    mirrored = np.maximum(((1 + light.z) - light.x * slope_x - light.y * slope_y) * upright / norm, 0)
    mirrored **= 2
    mirrored **= 2
    mirrored **= 2
    mirrored *= mirrored
    mirrored *= mirrored
    # Each groove of the lathe mirrors the lamp across itself: together they draw the fan.
    cos, sin = np.float32(np.cos(light.heading)), np.float32(np.sin(light.heading))
    fan = frame.turned * (frame.around_x * cos + frame.around_y * sin) ** 2
    fan *= fan
    room = np.float32(0.06) + np.float32(0.16) * upright
    mirrored = frame.reflectance * (np.float32(1.5) * mirrored + np.float32(0.6) * fan) * light.falloff
    scattered = frame.reflectance * (np.float32(0.5) * scattered + room) * light.falloff
    return scattered + np.float32(0.85) * mirrored, np.float32(0.16) * mirrored


def _shadows(footprint: Map, scene: Scene, scale: float) -> tuple[Map, Map]:
    """What reaches the belt, 0..1, of the lamp's light (the part throws a soft shadow) and of the room's."""
    height, width = footprint.shape
    small = Image.fromarray((footprint * 255).astype(np.uint8)).resize((width // 2, height // 2), Image.Resampling.BOX)
    throw = 22.0 * scale / np.tan(scene.light_elevation) / 2
    dx, dy = np.cos(scene.light_heading) * throw, np.sin(scene.light_heading) * throw
    thrown = small.transform(small.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BILINEAR)
    thrown = thrown.filter(ImageFilter.GaussianBlur(2.2 * scale))
    near = small.filter(ImageFilter.GaussianBlur(7 * scale))
    shadow = np.asarray(thrown.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    occlusion = np.asarray(near.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return 1 - np.float32(0.85 / 255) * shadow, 1 - np.float32(0.6 / 255) * occlusion


@lru_cache(maxsize=2)
def _belt(width: int, height: int, scale: float) -> Map:
    """A stretch of belt, twice as long and wide as the picture: woven, worn along its way, dusty. Mean 1."""
    rng = np.random.default_rng(3)
    rows, columns = 2 * height, 2 * width
    x = np.arange(columns, dtype=np.float32)[None, :] / np.float32(scale)
    y = np.arange(rows, dtype=np.float32)[:, None] / np.float32(scale)
    weave = np.sin(2 * np.pi * (x + y) / 7.0) * np.sin(2 * np.pi * (x - y) / 7.0)
    coarse = Image.fromarray(rng.standard_normal((max(2, rows // 40), max(2, columns // 40))).astype(np.float32))
    clouds = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC), np.float32)
    wear = np.asarray(
        Image.fromarray(rng.standard_normal((rows // 3, 4)).astype(np.float32)).resize(
            (columns, rows), Image.Resampling.BICUBIC
        ),
        np.float32,
    )
    grain = rng.standard_normal((rows, columns)).astype(np.float32)
    belt: Map = 1 + 0.05 * weave + 0.04 * clouds + 0.025 * wear + 0.04 * grain
    return belt.astype(np.float32)


def _belt_piece(scene: Scene, width: int, height: int, scale: float) -> Map:
    belt = _belt(width, height, scale)
    left, top = int(scene.belt_offset[0] * width), int(scene.belt_offset[1] * height)
    return belt[top : top + height, left : left + width]


def _exposed(
    scene_light: NDArray[np.float32], scene: Scene, scale: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Lens (vignetting, blur), sensor (noise) and development (tone curve) of the camera."""
    height, width, _ = scene_light.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    vignette = 1 - np.float32(0.10) * (across * across + down * down)
    balance = np.array([1 + scene.warmth, 1.0, 1 - scene.warmth], np.float32)
    scene_light *= vignette[..., None] * balance
    # Photon noise grows with the root of the light; half of it is shared by the channels, as after demosaicing.
    grain = rng.standard_normal((height, width, 1), np.float32) + np.float32(0.6) * rng.standard_normal(
        (height, width, 3), np.float32
    )
    grain *= np.sqrt(scene_light + np.float32(0.004))
    scene_light += np.float32(scene.noise) * grain
    developed = _tone_curve()[np.clip(scene_light * 4095, 0, 4095).astype(np.uint16)]
    sharp = Image.fromarray(developed)
    return np.asarray(sharp.filter(ImageFilter.GaussianBlur(scene.focus_blur * scale)))


@lru_cache(maxsize=1)
def _tone_curve() -> NDArray[np.uint8]:
    """Linear light, 0..4095, to 8 bits: the display's gamma with a soft shoulder, so that highlights do not clip."""
    light = np.arange(4096) / 4095 * 1.25
    shouldered = light / (1 + 0.25 * light)
    return np.clip(255 * shouldered ** (1 / 2.2) + 0.5, 0, 255).astype(np.uint8)
