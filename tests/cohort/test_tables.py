"""Tables in every form that people keep them in, and every way in which a file can fail to be one."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile

import pandas as pd
import pytest

from longvit.cohort.tables import bad_name, read_strings, read_table, slide_name
from longvit.config.required import CLINICAL
from preprocessing.errors import CohortError

TEXT = 'case_id,slide_id,n\nA,"1, a",007\nB,2,\n'
ROWS = {"case_id": ["A", "B"], "slide_id": ["1, a", "2"], "n": ["007", None]}
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def read(path):
    return read_strings(path).astype(object).where(lambda table: table.notna(), None).to_dict("list")


@pytest.mark.parametrize("ending", PACK)
def test_a_compressed_table_is_read_as_it_is(tmp_path, ending):
    path = tmp_path / f"t.csv{ending}"
    path.write_bytes(PACK[ending](TEXT[:30].encode()) + PACK[ending](TEXT[30:].encode()))  # as bgzip does, in pieces
    assert read(path) == ROWS


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("\n", "\n\n,,\n").encode(),
        gzip.compress(TEXT.encode()),
        zipped(("folder/", b""), ("folder/t.csv", TEXT.encode()), ("__MACOSX/._t.csv", b"\0")),
        zipped(("t.csv", TEXT.encode())).replace(b"t.csv", b"\0.csv"),
    ],
    ids=["plain", "BOM", "Windows", "old Mac", "empty rows", "gzip", "zip of macOS", "zip without a name"],
)
def test_a_table_is_recognised_by_what_it_holds_not_by_its_name(tmp_path, content):
    (tmp_path / "t.txt").write_bytes(content)
    assert read(tmp_path / "t.txt") == ROWS


def test_rows_are_known_by_their_line(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n"x\ny",1\n\nz,2\n')
    assert list(read_strings(tmp_path / "t.csv").index) == [2, 5]


def test_an_excel_sheet_is_read_as_the_csv_is(tmp_path, write_xlsx):
    cells = [
        '<c r="A{r}" t="s"><v>0</v></c><c r="B{r}" t="inlineStr"><is><r><t>sli</t></r><r><t>de_id</t></r></is></c>'
        '<c r="C{r}" t="str"><v>n</v></c><c r="D{r}" t="str"><v>ok</v></c>',
        '<c r="A{r}" t="s"><v>1</v></c><c t="str"><v>1, a</v></c><c><v>7</v></c><c t="b"><v>1</v></c>',
        '<c r="B{r}"><v>2.5</v></c><c r="C{r}"><v>1E-3</v></c><c r="D{r}" t="e"><v>#N/A</v></c>',
    ]
    strings = "<si><t>case_id</t></si><si><r><t>A </t></r><r><t>b</t></r><rPh><t>no</t></rPh></si>"
    table = read_strings(write_xlsx(tmp_path / "t.xlsx", cells, strings))
    assert list(table.columns) == ["case_id", "slide_id", "n", "ok"]
    assert table.iloc[0].tolist() == ["A b", "1, a", "7", "True"]
    assert table.iloc[1].tolist()[1:3] == ["2.5", "0.001"]
    assert table.iloc[1].isna().tolist() == [True, False, False, True]
    assert list(table.index) == [2, 3]


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ('<c t="s"><v>7</v></c>', "value '7'"),
        ('<c t="s"><v>x</v></c>', "value 'x'"),
        ("<c><v>one</v></c>", "value 'one'"),
        ('<c r="1A"><v>1</v></c>', "cell '1A'"),
        ("<c><v>1</c>", "mismatched tag"),
        ("<a>" * 70, "larger than"),
        (f'<c t="str"><v>{"x" * 140_000}</v></c>', "larger than"),
        (f'<c x="{"x" * 2_000_000}"/>', "larger than"),
        ('</row><row r="2"><c><v>1</v></c></row><row r="2">', "row 2 after row 2"),
    ],
)
def test_a_damaged_excel_file_is_refused_in_a_sentence(tmp_path, write_xlsx, cell, sentence):
    path = write_xlsx(tmp_path / "t.xlsx", ['<c t="str"><v>a</v></c>', cell])
    with pytest.raises(CohortError, match=sentence):
        read_strings(path)


def flagged(content: bytes, offset: int, value: int) -> bytes:
    """A zip archive whose first entry has another flag or method, in both of its headers."""
    central = content.index(b"PK\x01\x02")
    data = bytearray(content)
    for place in (offset, central + offset + 2):
        struct.pack_into("<H", data, place, value)
    return bytes(data)


def tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("t.csv")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


ONE = zipped(("t.csv", TEXT.encode()))
LONG = zipped(("t.csv", os.urandom(1000).hex().encode()))
REFUSED = {
    "empty": (b"", "the table is empty", "t.csv"),
    "blank": (b"\n\n,,\n", "the table is empty", "t.csv"),
    "header alone": (b"a,b\n", "the table has no rows", "t.csv"),
    "cut gz": (gzip.compress(TEXT.encode())[:-9], "damaged or truncated", "t.csv"),
    "broken gz": (gzip.compress(TEXT.encode())[:10] + b"\xff" * 20, "damaged or truncated", "t.csv"),
    "gz of wrong length": (gzip.compress(TEXT.encode())[:-1] + b"\x07", "damaged or truncated", "t.csv"),
    "gz and more": (gzip.compress(TEXT.encode()) + b"more", "damaged or truncated", "t.csv"),
    "cut bz2": (bz2.compress(TEXT.encode())[:-9], "damaged or truncated", "t.csv"),
    "cut xz": (lzma.compress(TEXT.encode())[:-9], "damaged or truncated", "t.csv"),
    "broken xz": (lzma.compress(TEXT.encode())[:20] + b"\xff" * 20, "damaged or truncated", "t.csv"),
    "cut zip": (ONE[:-9], "the zip archive cannot be read", "t.csv"),
    "broken zip": (LONG[:50] + b"\xff" * 40 + LONG[90:], "cannot be read", "t.csv"),
    "zip with a password": (flagged(ONE, 6, 1), "is encrypted, password required", "t.csv"),
    "zip of another method": (flagged(ONE, 8, 99), "compression method is not supported", "t.csv"),
    "zip of nothing": (zipped(), "the zip archive contains 0 files", "t.csv"),
    "zip of two": (zipped(("a", b""), ("b", b"")), "the zip archive contains 2 files, not one table", "t.csv"),
    "zip of a zip": (zipped(("a.zip", ONE)), "is not text", "line 1"),
    "Excel without a workbook": (zipped(("xl/workbook.xml", b"<a/>")), "has no xl/_rels", "t.csv"),
    "Excel of no XML": (zipped(("xl/workbook.xml", b"a")), "damaged or truncated: syntax error", "t.csv"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "old or password-protected Excel", "t.csv"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), "Zstandard, which is not supported", "t.csv"),
    "tar": (tar(TEXT.encode()), "is an archive (tar)", "t.csv"),
    "tar.gz": (gzip.compress(tar(TEXT.encode())), "is an archive (tar)", "t.csv"),
    "NUL": (b"a,b\n1,2\n1,\0\n", "contains NUL", "line 3"),
    "bytes of no text": (b"a,b\n1,2\nM\xfcller,\x02\n", "not text", "line 3"),
    "bytes of no code page": (b"a,b\n1,2\nM\xfcller,\x81\n", "not text", "line 3"),
    "cut UTF-16": (TEXT.encode("utf-16")[:-1], "not text", ""),
    "quote not closed": (b'a,b\n1,2\n"1,2\n3,4\n', "not CSV: unexpected end of data", "line 3"),
    "text after a quote": (b'a,b\n1,2\n"1"x,2\n', "not CSV", "line 3"),
    "huge cell": (b"a,b\n1,2\n1," + b"x" * 140_000, "not CSV: field larger than field limit", "line 3"),
    "long line": (b"a" * (2**24 + 1), "larger than", "t.csv"),
    "row too long": (b"a,b\n1,2\n\n1,2,3\n", "a row of the table has 3 cells, more than the 2 of the header", "line 4"),
    "column twice": (b"a,b,a\n1,2,3\n", "two columns have the same name: a", "line 1"),
    "many columns": (b",".join(b"%d" % i for i in range(70_000)) + b"\n1\n", "65,536 columns", "line 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_a_table_is_refused_with_its_place(tmp_path, case):
    content, sentence, where = REFUSED[case]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(CohortError) as error:
        read_strings(tmp_path / "t.csv")
    assert sentence in error.value.what
    assert str(error.value.where).startswith(str(tmp_path / "t.csv"))
    assert str(error.value.where).endswith(where)
    assert error.value.fix


def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    for path, sentence in (
        ("none.csv", "the clinical table does not exist"),
        ("fifo/x", "the clinical table does not exist"),
        (".", "the clinical table is a folder, not a file"),
        ("fifo", "the clinical table is a device or a pipe, not a file"),
        ("/dev/zero", "the clinical table is a device or a pipe, not a file"),
        ("n" * 5000, "the clinical table cannot be read: File name too long"),
    ):
        with pytest.raises(CohortError, match=sentence) as error:
            read_strings(tmp_path.__class__(path), CLINICAL)
        assert error.value.where == tmp_path / path


BOMBS = """
import bz2, gzip, lzma, pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
zeros = b"a,b\\n" + bytes([48]) * (150 << 20)
(folder / "line.gz").write_bytes(gzip.compress(zeros, 1))
(folder / "line.bz2").write_bytes(bz2.compress(zeros))
(folder / "line.xz").write_bytes(lzma.compress(zeros, preset=0))
with zipfile.ZipFile(folder / "line.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.csv", zeros)
with zipfile.ZipFile(folder / "parts.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("xl/workbook.xml", "<a/>")
    archive.writestr("xl/sharedStrings.xml", zeros)
(folder / "wide.csv").write_bytes(b",".join(b"c%d" % i for i in range(60_000)) + b"\\n" + b"1\\n" * 2_000_000)
"""
REFUSE = """
import pathlib, sys, time
from longvit.cohort.tables import read_strings
from preprocessing.errors import CohortError
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        read_strings(path)
    except CohortError as error:
        print(path.name, error.what)
peak = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]  # ru_maxrss counts its parent's too
print(int(peak) >> 10, time.process_time())
"""


def test_bombs_are_refused_within_bounds(tmp_path, write_xlsx):
    """Each is below 10 MB, and a single one took 2 GB or 20 s; here all of them together are below both."""
    subprocess.run([sys.executable, "-c", BOMBS, str(tmp_path)], check=True)
    far = ['<c t="str"><v>a</v></c>', '</row><row r="1048576"><c r="XFD1048576"><v>1</v></c>']
    write_xlsx(tmp_path / "far.xlsx", far)
    write_xlsx(tmp_path / "wide.xlsx", ['<c r="XFD{r}"><v>1</v></c>'] * 50_000)
    entities = "".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10 if i else "x" * 1000}">' for i in range(9))
    write_xlsx(tmp_path / "entities.xlsx", ["<c><v>&b8;</v></c>"], before=f"<!DOCTYPE a [{entities}]>")
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 10 << 20
    told = subprocess.run([sys.executable, "-c", REFUSE, str(tmp_path)], capture_output=True, text=True, check=True)
    *lines, last = told.stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.name for path in tmp_path.iterdir())
    assert all("larger than" in line or "entities" in line or "more than the 1 of" in line for line in lines)
    megabytes, seconds = map(float, last.split())
    assert megabytes < 2000
    assert seconds < 20


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "a\tx", "a\rx", "a\x1b[31m", "a\u202eb", "x" * 201])
def test_names_that_spreadsheets_or_terminals_obey_are_refused_with_their_line(tmp_path, name):
    pd.DataFrame({"case_id": ["A", name], "slide_id": ["1", "2"]}).to_csv(tmp_path / "t.csv", index=False, quoting=1)
    with pytest.raises(CohortError, match=r"formula|do not print|longer than 200") as error:
        read_table(tmp_path / "t.csv")
    assert str(error.value.where).endswith("line 3, column case_id")
    assert all(line.isprintable() for line in str(error.value).split("\n"))


def test_names_that_people_use_are_allowed():
    for name in ("TCGA-3C-AALI-01Z-00-DX1", "007", "Müller_1", "p 1 (left)", "a=b", "x-1", "1+", "病例", "a.b@c"):
        assert bad_name(name) is None


def test_a_value_that_is_missing_is_named_by_its_line(tmp_path):
    (tmp_path / "t.csv").write_text('case_id,slide_id\n"A\nB",1\n\nB,\n')
    with pytest.raises(CohortError, match="1 of 2 rows have no slide_id") as error:
        read_table(tmp_path / "t.csv", {"slide_id"})
    assert str(error.value.where).endswith("line 5")


def test_a_slide_name_loses_its_file_ending_and_nothing_else():
    names = ("a.svs", "a.NDPI", "a.h5", "a.b", "a.svs.1", "svs")
    assert [slide_name(name) for name in names] == ["a", "a", "a", "a.b", "a.svs.1", "svs"]


def pieces_table(table, **columns):
    return table(lambda rows: rows.assign(**columns))


def test_rows_of_pieces_have_the_names_of_pieces(table):
    path = pieces_table(table, slide_id=["T.svs", "T", "T.svs", "C-1"], piece=["0", "12.0", "3", ""])
    assert read_table(path)["slide_id"].tolist() == ["T~0", "T~12", "T~3", "C-1"]


@pytest.mark.parametrize("piece", ["x", "-1", "1.5", "123456789"])
def test_what_is_no_piece_is_refused_by_line(table, piece):
    path = pieces_table(table, piece=["", "1", piece, ""])
    with pytest.raises(CohortError, match=f"'{piece}' is not the number of a piece") as error:
        read_table(path)
    assert str(error.value.where).endswith("line 4")


def test_a_slide_is_whole_or_in_pieces(table):
    path = pieces_table(table, slide_id=["T", "T", "U", "V"], piece=["", "1", "2", ""])
    with pytest.raises(CohortError, match=r"as a whole and in pieces: T\n") as error:
        read_table(path)
    assert error.value.fix


def test_a_table_of_slides_has_patients_by_barcode_or_by_its_kind(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("filename\nTCGA-05-4249-01Z-00-DX1.A.svs\nTCGA-05-4250-01Z-00-DX1.B.svs\n")
    assert read_table(path)["case_id"].tolist() == ["TCGA-05-4249", "TCGA-05-4250"]
    path.write_text("image_id,data_provider,isup_grade\na,karolinska,0\nb,radboud,1\n")
    assert read_table(path)["case_id"].tolist() == ["a", "b"]
    path.write_text("filename\nTCGA-05-4249-01Z-00-DX1.A.svs\nother.svs\n")
    with pytest.raises(CohortError, match="no column case_id"):
        read_table(path)


def test_gdc_missing_values_classes_named_none_and_endings_of_slides(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("case_id,slide_id,label\nA,s1.bif,None\nB,s2.vms,'--\nC,s3.ome.tif,NA\n")
    table = read_table(path)
    assert table["slide_id"].tolist() == ["s1", "s2", "s3"]
    assert table["label"].isna().tolist() == [False, True, False]
    assert (table["label"].iloc[0], table["label"].iloc[2]) == ("None", "NA")
