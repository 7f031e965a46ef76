"""The rules of a store's values, checked at the first read of an array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.frames import l0_from_rc, nearest_rc
from preprocessing.store.schema import MASK_CLASSES, MAX_PIECES, StoreAttributes

Rc = npt.NDArray[np.int32]


def broken_value(name: str, array: npt.NDArray[Any], attributes: StoreAttributes, rc: Callable[[], Rc]) -> str | None:
    """Return the first rule that the values of an array break, or None if they break none.

    Args:
        name: Name of the array in the store.
        array: Values of the array.
        attributes: Attributes of the store.
        rc: Function that returns the store's checked `rc`.
    """
    if name.startswith("embeddings/"):
        finite = array.size == 0 or (np.isfinite(array.min()) and np.isfinite(array.max()))
        return None if finite else f"{name} is not finite"
    return next((rule for rule, holds in _VALUES.get(name, ()) if not holds(array, attributes, rc)), None)


def _in_grid(rc: Rc, attributes: StoreAttributes, _: object) -> bool:
    return bool(((rc >= 0) & (rc < attributes.grid_shape)).all())


def _unique(rc: Rc, attributes: StoreAttributes, _: object) -> bool:
    if not attributes.lattice:
        return True
    place = rc[:, 0].astype(np.int64) * attributes.grid_shape[1] + rc[:, 1]
    return bool((np.diff(place) > 0).all()) or len(np.unique(place)) == len(place)  # the first test is faster


def _on_slide(xy_l0: npt.NDArray[np.int64], attributes: StoreAttributes, _: object) -> bool:
    """Return True if each tile overlaps the slide.

    Tiles of other tools may start before the slide's first pixel.
    """
    return bool(((xy_l0 > -np.array(attributes.side_l0)) & (xy_l0 < attributes.size_l0)).all())


def _on_lattice(xy_l0: npt.NDArray[np.int64], attributes: StoreAttributes, rc: Callable[[], Rc]) -> bool:
    return not attributes.lattice or np.array_equal(xy_l0, l0_from_rc(rc(), attributes.side_l0))


def _in_nearest_cell(xy_l0: npt.NDArray[np.int64], attributes: StoreAttributes, rc: Callable[[], Rc]) -> bool:
    if attributes.lattice:
        return True
    return np.array_equal(rc(), nearest_rc(xy_l0, attributes.side_l0, attributes.grid_shape))


_VALUES: dict[str, tuple[tuple[str, Callable[[npt.NDArray[Any], StoreAttributes, Callable[[], Rc]], bool]], ...]] = {
    "rc": (("rc is outside the grid", _in_grid), ("rc contains a tile twice", _unique)),
    "xy_l0": (
        ("xy_l0 is outside the slide", _on_slide),
        ("xy_l0 is not rc times side_l0", _on_lattice),
        ("rc is not the cell nearest to xy_l0", _in_nearest_cell),
    ),
    "piece": (
        (f"piece is not -1 to {MAX_PIECES}", lambda piece, *_: bool(((piece >= -1) & (piece < MAX_PIECES)).all())),
    ),
    "tissue": (("tissue is not within 0 to 1", lambda tissue, *_: bool(((tissue >= 0) & (tissue <= 1)).all())),),
    "overview_mask": (
        ("overview_mask has values above 3", lambda mask, *_: int(mask.max()) <= max(MASK_CLASSES.values())),
    ),
}
