import math

import pytest

from preprocessing.slides.ome import ome_mpp, ome_objective_power

OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'


def image(attributes, size=(640, 480)):
    return f'<Image><Pixels SizeX="{size[0]}" SizeY="{size[1]}" {attributes}/></Image>'


def sides(value, unit=None):
    stated = "" if unit is None else f' PhysicalSize{{0}}Unit="{unit}"'
    return " ".join((f'PhysicalSize{{0}}="{value}"' + stated).format(side) for side in "XY")


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("0.25", None),
        ("0.25", "µm"),
        ("0.25", "μm"),
        ("0.25", "um"),
        ("250", "nm"),
        ("2500", "Å"),
        ("0.00025", "mm"),
        ("2.5e-5", "cm"),
        ("2.5e-7", "m"),
        (str(0.25 / 25_400), "in"),
        (str(0.25 / 25_400), "inch"),
        (str(0.25 / 25.4), "thou"),
    ],
)
def test_physical_size_is_read_in_every_unit_of_length(value, unit):
    assert ome_mpp(OME.format(image(sides(value, unit))), (640, 480)) == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(("value", "unit"), [("abc", None), ("0.25", "furlong"), ("0.25", "MM")])
def test_what_is_no_length_is_not_a_number_rather_than_nothing(value, unit):
    assert all(math.isnan(side) for side in ome_mpp(OME.format(image(sides(value, unit))), (640, 480)))


@pytest.mark.parametrize("attributes", ["", 'PhysicalSizeX="0.5"', sides("1", "pixel"), sides("1", "reference frame")])
def test_a_size_that_is_not_stated_is_none(attributes):
    assert ome_mpp(OME.format(image(attributes)), (640, 480)) is None


def test_the_size_is_that_of_the_slide_not_of_its_label():
    xml = OME.format(image(sides("9"), (64, 48)) + image(sides("0.5")))
    assert ome_mpp(xml, (640, 480)) == (0.5, 0.5)
    assert ome_mpp(xml, (100, 100)) is None


def test_the_objective_counts_if_there_is_one_only():
    def objective(power):
        return f'<Objective NominalMagnification="{power}"/>'

    def power(inside):
        return ome_objective_power(OME.format(f"<Instrument>{inside}</Instrument>"))

    assert power(objective(40)) == 40
    assert power(objective(40) + objective(40)) == 40
    assert power(objective(20) + objective(40)) is None
    assert power("<Objective/>") is None
    assert math.isnan(power(objective("high")))
