import numpy as np
import pytest
import simplejpeg

from preprocessing.jpeg.huffman import ADVANCE_SHIFT, BITS_MASK, LAST_BLOCK, MAX_ADVANCE, PEEK, read_scan
from preprocessing.jpeg.markers import SCAN, segments


def header(subsampling="420", **options):
    """The header of a JPEG with the tables of ITU-T T.81, annex K."""
    jpeg = simplejpeg.encode_jpeg(np.zeros((32, 32, 3), np.uint8), colorsubsampling=subsampling, **options)
    return jpeg[: next(end for kind, _, end in segments(jpeg) if kind == SCAN)]


@pytest.fixture
def scan():
    return read_scan(header())


@pytest.mark.parametrize(
    ("subsampling", "mcu", "blocks"),
    [
        ("444", (8, 8), [1, 1, 1]),
        ("422", (16, 8), [2, 1, 1]),
        ("420", (16, 16), [4, 1, 1]),
        ("440", (8, 16), [2, 1, 1]),
    ],
)
def test_units_are_as_large_as_the_subsampling_says(subsampling, mcu, blocks):
    scan = read_scan(header(subsampling))
    assert scan.mcu == mcu
    assert scan.blocks.tolist() == blocks


def bits(text):
    """The lowest number of 16 bits that begins so."""
    return int(text.ljust(16, "0"), 2)


def test_dc_codes_are_those_of_annex_k(scan):
    """Table K.3: 0 is 00, 5 is 110, 11 is 111111110; K.4: 11 is 11111111110."""
    assert [divmod(int(scan.dc[0, bits(code)]), 256) for code in ("00", "110", "111111110")] == [
        (2, 0),
        (3, 5),
        (9, 11),
    ]
    assert divmod(int(scan.dc[1, bits("11111111110")]), 256) == (11, 11)
    assert scan.dc[0, 0xFFFF] == 0
    assert [divmod(int(scan.dc_codes[0, size]), 256) for size in (0, 5, 11)] == [(0, 2), (0b110, 3), (0b111111110, 9)]
    assert not scan.dc_codes[:, 12:].any()


def test_ac_codes_are_those_of_annex_k(scan):
    """Table K.5: end of block 1010, (0, 1) 00, (0, 10) 1111111110000011, sixteen zeros 11111111001."""

    def step(code):
        entry = int(scan.ac[0, bits(code)])
        return entry & BITS_MASK, entry >> ADVANCE_SHIFT & MAX_ADVANCE, bool(entry & LAST_BLOCK)

    assert step("1010") == (4, 0, True)
    assert step("00") == (3, 1, False)
    assert step("1111111110000011") == (26, 1, False)
    assert step("11111111001") == (11, 16, False)
    assert scan.ac[0, 0xFFFF] == 0


@pytest.mark.parametrize("component", [0, 1])
def test_many_steps_at_once_are_what_they_are_one_by_one(scan, component):
    for seen in range(1 << PEEK):
        used = advance = 0
        last = False
        while not last:
            step = int(scan.ac[component, seen << used << 16 - PEEK & 0xFFFF])
            if step == 0 or used + (step & BITS_MASK) > PEEK:
                break
            used, advance = used + (step & BITS_MASK), advance + (step >> ADVANCE_SHIFT & MAX_ADVANCE)
            last = bool(step & LAST_BLOCK)
        assert scan.many[component, seen] == used | advance << ADVANCE_SHIFT | last * LAST_BLOCK


def edited(old, new):
    """A header with some bytes changed, which are there."""
    whole = header()
    assert whole.count(old) >= 1
    return whole.replace(old, new, 1)


FRAME = b"\xff\xc0\x00\x11\x08\x00\x20\x00\x20\x03"
DC_TABLE = b"\xff\xc4\x00\x1f\x00"


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (b"", "not a baseline"),
        (header()[:100], "not a baseline"),
        (edited(FRAME, b"\xff\xc2" + FRAME[2:]), "not a baseline"),
        (edited(FRAME, FRAME[:4] + b"\x0c" + FRAME[5:]), "not a baseline"),
        (edited(b"\x3f\x00", b"\x05\x00"), "not one scan of all"),
        (edited(FRAME, FRAME + b"\x01\x22\x00\x02\x11\x01\x03\x11\x01" + FRAME), "not a baseline"),
        (edited(FRAME + b"\x01\x22", FRAME + b"\x01\x20"), "sampling factor of zero"),
        (edited(FRAME, b"\xff\xdd\x00\x04\x00\x04" + FRAME), "restart"),
        (edited(DC_TABLE, b"\xff\xc4\x00\x1f\x03"), "table 0 is missing"),
        (edited(DC_TABLE + b"\x00\x01", DC_TABLE + b"\x00\xf1"), "cut short"),
        (edited(DC_TABLE + b"\x00\x01\x05", DC_TABLE + b"\x06\x00\x00"), "more codes"),
    ],
    ids=[
        "empty",
        "half",
        "progressive",
        "12 bits",
        "part",
        "two frames",
        "no samples",
        "restarts",
        "no table",
        "short table",
        "too many codes",
    ],
)
def test_a_scan_that_cannot_be_told_apart_is_refused(broken, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_scan(broken)


def test_a_restart_interval_of_nothing_is_none():
    assert read_scan(edited(FRAME, b"\xff\xdd\x00\x04\x00\x00" + FRAME)).mcu == (16, 16)
