"""Stylised H&E slides whose tumours differ in morphology only: nuclei in rings or streams, small or large.

A slide is drawn as two maps of stain density (haematoxylin, eosin), which Beer-Lambert's law converts to colours. Both
growth patterns and both grades fill the tumour with the same share of nuclei and of pale gaps. Mean and standard
deviation of each colour in tissue depend on the batch of stain and the lamp only. So neither brightness nor colour
reveals the planted values. Lengths are in level-0 pixels of 0.5 um.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Growth = Literal["acinar", "spindle"]

MPP = 0.5
"""Micrometres per level-0 pixel."""
LAYOUT_PX = 8
"""Side of a pixel of the layout, level-0 pixels."""
GLASS, STROMA, LOW_GRADE, HIGH_GRADE = range(4)
"""Values of the layout."""
SCALE = {LOW_GRADE: 1.0, HIGH_GRADE: 1.6}
"""Relative size of nuclei and of their spacing by grade; both scale together, so shares of area do not change."""

_NUCLEUS_L0 = 12.0  # diameter of a low-grade nucleus
_VERTICES = 16  # vertices of an outline
_ANGLES = 8  # directions of fascicles
_STAINS = ((0.62, 0.72, 0.31), (0.10, 0.86, 0.38))  # optical density per unit of haematoxylin, eosin, in R, G, B
_DENSITY = np.array([1.0, 0.68], np.float32)  # density of haematoxylin in a nucleus, of eosin in a fibre
_TYPICAL_MEAN, _TYPICAL_CONTRAST = (0.42, 0.42), 0.33  # stain densities of tissue; contrast of haematoxylin (nuclei)


@dataclass(frozen=True)
class Blobs:
    """Outlines to be filled: nuclei, or the pale gaps between them."""

    xy_l0: np.ndarray
    """Centres, (n, 2), level-0 pixels."""
    radii_l0: np.ndarray
    """Half axes (along, across), (n, 2), level-0 pixels."""
    angle: np.ndarray
    """Direction of the first axis, (n,), radians."""


@dataclass(frozen=True)
class DrawnSlide:
    """Drawn slide with its layout, the planted truth."""

    image: np.ndarray
    """Level 0, (side, side, 3) uint8 RGB."""
    layout: np.ndarray
    """`GLASS`, `STROMA`, `LOW_GRADE` or `HIGH_GRADE`, (side / 8, side / 8) uint8."""


def draw_slide(rng: np.random.Generator, side_l0: int, growth: Growth, high_grade: float) -> DrawnSlide:
    """Draw one slide.

    Args:
        rng: Source of all random numbers; equal states give equal slides.
        side_l0: Side of the slide, level-0 pixels, a multiple of `LAYOUT_PX`.
        growth: Arrangement of tumour cells: rings around lumens, or streams of spindles.
        high_grade: Share of the tumour with large and uneven nuclei, 0 to 1.
    """
    place, cells, stain, sensor = rng.spawn(4)
    layout = _layout(place, side_l0 // LAYOUT_PX, high_grade)
    nuclei, gaps = _tumour(cells, layout, growth)
    haematoxylin = _fill(cells, [*nuclei, _stroma_nuclei(cells, layout)], side_l0)
    pale = _fill(cells, gaps, side_l0)
    density, tissue = _stain_density(stain, layout, haematoxylin, pale)
    return DrawnSlide(_photograph(sensor, density, tissue), layout)


def _smooth(rng: np.random.Generator, side: int, cells: float) -> np.ndarray:
    """Draw Gaussian noise that is smooth at the scale of `side / cells`, (side, side)."""
    n = max(2, round(cells))
    return cv2.resize(rng.standard_normal((n, n), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _layout(rng: np.random.Generator, side: int, high_grade: float) -> np.ndarray:
    """Draw the layout, (side, side) uint8: ragged tissue on glass, tumour nests in it, and their high-grade parts.

    Its values are `GLASS`, `STROMA`, `LOW_GRADE` and `HIGH_GRADE`.
    """
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    ragged = 0.03 * _smooth(rng, side, 5) + 0.012 * _smooth(rng, side, 24)
    tissue = ((x * rng.uniform(0.97, 1.1)) ** 4 + (y * rng.uniform(0.97, 1.1)) ** 4) ** 0.25 + ragged < 0.42
    nest = _smooth(rng, side, side / 24) + 0.15 * _smooth(rng, side, side / 8)
    grade = _smooth(rng, side, side / 32)
    tumour = tissue & (nest > np.quantile(nest[tissue], 1 - rng.uniform(0.73, 0.79)))
    high = tumour & (grade > np.quantile(grade[tumour], 1 - high_grade))
    return (tissue * STROMA + tumour * (LOW_GRADE - STROMA) + high * (HIGH_GRADE - LOW_GRADE)).astype(np.uint8)


def _at(layout: np.ndarray, xy_l0: np.ndarray) -> np.ndarray:
    """Return the value of a map of layout pixels at each point, (n,); 0 outside of the map."""
    x, y = np.floor(xy_l0 / LAYOUT_PX).astype(np.int64).T
    side = len(layout)
    inside = (x >= 0) & (y >= 0) & (x < side) & (y < side)
    return np.where(inside, layout[y.clip(0, side - 1), x.clip(0, side - 1)], 0)


def _lattice(rng: np.random.Generator, side_l0: int, step_l0: tuple[float, float], jitter: float) -> np.ndarray:
    """Draw points (u, v) of a jittered brick lattice, (n, 2), which covers the slide when rotated about its centre."""
    u, v = (np.arange(-0.72 * side_l0, 0.72 * side_l0, step) for step in step_l0)
    uv = np.stack(np.meshgrid(u, v), -1)
    uv[1::2, :, 0] += step_l0[0] / 2
    return (uv + rng.normal(0, jitter, uv.shape) * step_l0).reshape(-1, 2).astype(np.float32)


def _turned(uv: np.ndarray, angle: float, side_l0: int) -> np.ndarray:
    """Rotate lattice coordinates and shift them to slide coordinates, (n, 2)."""
    return _rotated(uv, np.array(angle)) + side_l0 / 2


def _rotated(uv: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate each vector, (..., 2), by its angle, (...), radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([uv[..., 0] * c - uv[..., 1] * s, uv[..., 0] * s + uv[..., 1] * c], -1)


def _tumour(rng: np.random.Generator, layout: np.ndarray, growth: Growth) -> tuple[list[Blobs], list[Blobs]]:
    """Draw nuclei and pale gaps of the tumour, one `Blobs` of each per grade."""
    grow = _acini if growth == "acinar" else _fascicles
    parts = [grow(rng, layout, grade) for grade in SCALE]
    return [nuclei for nuclei, _ in parts], [gaps for _, gaps in parts]


def _acini(rng: np.random.Generator, layout: np.ndarray, grade: int) -> tuple[Blobs, Blobs]:
    """Draw round nuclei in rings, and the lumen in each ring."""
    scale, side_l0, per_ring = SCALE[grade], len(layout) * LAYOUT_PX, 9
    step = 60.0 * scale
    centre = _turned(_lattice(rng, side_l0, (step, step * 0.87), 0.04), rng.uniform(0, np.pi), side_l0)
    centre = centre[_at(layout, centre) == grade]
    n = len(centre)
    turn = rng.uniform(0, 2 * np.pi, (n, 1)) + np.arange(per_ring) * 2 * np.pi / per_ring
    turn += rng.normal(0, 0.06, turn.shape)
    stretch, tilt = np.exp(rng.uniform(0, 0.1, (n, 1))), rng.uniform(0, np.pi, (n, 1))
    ring = rng.normal(19.2, 0.8, turn.shape) * scale
    uv = np.stack([ring * np.cos(turn) * stretch, ring * np.sin(turn) / stretch], -1)
    xy = centre[:, None] + _rotated(uv, tilt)
    nuclei = _nuclei(rng, xy.reshape(-1, 2), (turn + tilt).ravel(), grade, elongation=1.2)
    lumen = rng.normal(9.6, 0.7, (n, 1)) * scale * np.concatenate([stretch, 1 / stretch], 1)
    return nuclei, Blobs(centre, lumen, tilt[:, 0])


def _fascicles(rng: np.random.Generator, layout: np.ndarray, grade: int) -> tuple[Blobs, Blobs]:
    """Draw spindle nuclei in wavy streams, bundled into fascicles of different directions, and the clefts in them."""
    scale, side_l0 = SCALE[grade], len(layout) * LAYOUT_PX
    seeds = rng.uniform(0, len(layout), (max(_ANGLES, (side_l0 // 220) ** 2), 2))
    y, x = np.mgrid[0 : len(layout), 0 : len(layout)]
    bundle = ((x[..., None] - seeds[:, 0]) ** 2 + (y[..., None] - seeds[:, 1]) ** 2).argmin(-1) % _ANGLES
    found = []
    for k in range(_ANGLES):
        uv = _lattice(rng, side_l0, (24.0 * scale, 13.3 * scale), 0.07)
        phase = uv[:, 0] / (26 * scale) + rng.uniform(0, 2 * np.pi)
        uv[:, 1] += 7 * scale * np.sin(phase)
        direction = k * np.pi / _ANGLES
        xy = _turned(uv, direction, side_l0)
        here = (_at(layout, xy) == grade) & (_at(bundle, xy) == k)
        found.append((xy[here], (direction + np.arctan(7 / 26 * np.cos(phase)))[here]))
    xy, angle = (np.concatenate(part) for part in zip(*found, strict=True))
    cleft = rng.random(len(xy)) < 0.108
    nuclei = _nuclei(rng, xy[~cleft], angle[~cleft], grade, elongation=3.6)
    clefts = Blobs(xy[cleft], rng.normal(1, 0.06, (cleft.sum(), 2)) * (16.0 * scale, 5.5 * scale), angle[cleft])
    return nuclei, clefts


def _nuclei(rng: np.random.Generator, xy_l0: np.ndarray, angle: np.ndarray, grade: int, elongation: float) -> Blobs:
    """Draw nuclei of one grade, whose area does not depend on their elongation; high-grade nuclei are uneven in size.

    Uneven nuclei of the same mean radius have a larger area, but lose the same amount where they overlap.
    """
    spread = 0.08 if grade == LOW_GRADE else 0.18
    size = np.exp(rng.normal(-(spread**2) / 2, spread, len(xy_l0))) * _NUCLEUS_L0 / 2 * SCALE[grade]
    stretch = np.sqrt(elongation * np.exp(rng.normal(0, 0.08, len(xy_l0))))
    return Blobs(xy_l0, np.stack([size * stretch, size / stretch], -1), angle)


def _stroma_nuclei(rng: np.random.Generator, layout: np.ndarray) -> Blobs:
    """Draw thin nuclei of fibroblasts and round nuclei of lymphocytes, distributed alike in every slide."""
    side_l0 = len(layout) * LAYOUT_PX
    xy = _turned(_lattice(rng, side_l0, (34.0, 22.0), 0.2), rng.uniform(0, np.pi), side_l0)
    xy = xy[_at(layout, xy) == STROMA]
    shape = np.where(rng.random((len(xy), 1)) < 0.3, (4.0, 4.0), (8.0, 2.6))
    return Blobs(xy, rng.normal(1, 0.1, shape.shape) * shape, rng.normal(0, 0.5, len(xy)))


def _fill(rng: np.random.Generator, groups: list[Blobs], side_l0: int) -> np.ndarray:
    """Fill slightly irregular outlines with slightly different greys of mean 0.8; return (side, side) in [0, 1]."""
    canvas = np.zeros((side_l0, side_l0), np.uint8)
    turn = np.arange(_VERTICES) * 2 * np.pi / _VERTICES
    for blobs in groups:
        n = len(blobs.xy_l0)
        wobble = 1 + rng.normal(0, 0.05, (n, 1)) * np.cos(2 * turn + rng.uniform(0, 6.3, (n, 1)))
        wobble += rng.normal(0, 0.04, (n, 1)) * np.cos(3 * turn + rng.uniform(0, 6.3, (n, 1)))
        radii = blobs.radii_l0 - 0.5  # a filled outline also covers the pixels on it
        u, v = (wobble * wave * radii[:, [axis]] for axis, wave in enumerate((np.cos(turn), np.sin(turn))))
        outline = _rotated(np.stack([u, v], -1), blobs.angle[:, None]) + blobs.xy_l0[:, None]
        grey = rng.normal(204, 16, n).clip(140, 255)
        for points, value in zip(np.rint(outline * 8).astype(np.int32), grey.tolist(), strict=True):
            cv2.fillConvexPoly(canvas, points, value, cv2.LINE_AA, shift=3)
    return canvas.astype(np.float32) / 255


def _stain_density(
    rng: np.random.Generator, layout: np.ndarray, nuclei: np.ndarray, pale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return density of haematoxylin and eosin, (side, side, 2), 0 on glass, and tissue, (side, side) in [0, 1]."""
    side_l0 = len(nuclei)
    tissue, tumour = (_enlarged(layout >= kind, side_l0) for kind in (STROMA, LOW_GRADE))
    grain = cv2.GaussianBlur(rng.standard_normal((side_l0, side_l0), dtype=np.float32), (0, 0), 1.0) / 0.28
    fibre = _fibres(rng, grain)
    pale = pale * (1 - nuclei)
    rim = nuclei - cv2.GaussianBlur(nuclei, (0, 0), 2.5)
    haematoxylin = 0.14 + 0.1 * tumour + nuclei * (0.85 + 0.12 * grain + rim)
    eosin = 1 + fibre * (0.28 - 0.18 * tumour) - 0.3 * tumour - 0.5 * nuclei
    density = np.stack([haematoxylin * (1 - 0.6 * pale), eosin * (1 - 0.75 * pale)], -1)
    density *= _DENSITY * tissue[..., None]
    return density, tissue


def _enlarged(mask: np.ndarray, side_l0: int) -> np.ndarray:
    """Enlarge a map of layout pixels to level 0, with soft edges, (side, side) in [0, 1]."""
    soft = cv2.resize(mask.astype(np.float32), (side_l0, side_l0), interpolation=cv2.INTER_LINEAR)
    return (3 * soft - 1).clip(0, 1)


def _fibres(rng: np.random.Generator, grain: np.ndarray) -> np.ndarray:
    """Draw wavy fibres, noise stretched along lines and bent, (side, side) of mean 0 and standard deviation 1."""
    side_l0 = len(grain)
    along = np.arange(side_l0, dtype=np.float32)
    x, y = (axis + 24 * _smooth(rng, side_l0, side_l0 / 128) for axis in (along, along[:, None]))
    drawn = cv2.GaussianBlur(grain, (0, 0), sigmaX=9, sigmaY=0.8)
    bent = cv2.remap(drawn, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return bent / drawn.std()


def _photograph(rng: np.random.Generator, density: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Convert stain density to colours, (side, side, 3) uint8.

    Beer-Lambert's law is applied with a random batch of stain and lamp, then optics and sensor noise. Before the noise,
    mean and standard deviation of each colour in tissue are set to the values of a typical tissue with this batch.
    This removes their last dependence on morphology: a blurred small nucleus is paler than a large nucleus.
    """
    stains = np.array(_STAINS) * rng.normal(1, 0.06, (2, 3)) * rng.lognormal(0, 0.12, (2, 1))
    lamp = rng.uniform(232, 248) * rng.normal(1, 0.008, 3)
    light = cv2.GaussianBlur(cv2.exp(cv2.transform(density, -stains.T)), (0, 0), 0.6)
    mean, spread = (moment.ravel() for moment in cv2.meanStdDev(light, mask=(tissue > 0.5).astype(np.uint8)))
    typical = np.exp(-np.array(_TYPICAL_MEAN) @ stains)
    gain = typical * stains[0] * _TYPICAL_CONTRAST / spread
    evened = light * gain.astype(np.float32) + (typical - gain * mean).astype(np.float32)
    light = (light + (evened - light) * tissue[..., None]) * lamp.astype(np.float32)
    light += rng.standard_normal(light.shape, dtype=np.float32) * 2
    return np.rint(light).clip(0, 255).astype(np.uint8)
