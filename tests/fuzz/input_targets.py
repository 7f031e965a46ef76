"""Fuzz targets of settings, command lines, tables, predictions and weights: each returns the function of one case.

Imports are those of the target, so that the process of one does not load what another needs.
"""

import bz2
import gzip
import json
import lzma
import random
import shutil
import string
import struct
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mutations import VALUES, damaged
from mutations import damaged_json as mutated

Case = Callable[[random.Random], None]
WORDS = (
    *("", " ", "a", "A-1", "0", "1", "-1", "2.5", "1e400", "nan", "inf", "NA", "True", "=1+1", "@x", "[/]", "[red]"),
    *("{n}", "{", "%s", "\t", "\r", "\x00", "\x1b[31m", "\u202e", "\ufeff", "ü", "病", "😀", "x" * 300, "9" * 5000),
    *("../../x", "/dev/zero", "~", "~root", "TCGA-05-4249", "_", "1_000", "٣", '"', "'", ",", ";", "\n", "null", "yes"),
)


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """A changed document; as it is where the change put it into itself."""
    try:
        return mutated(rng, data)
    except (ValueError, OverflowError, RecursionError):
        return data


def changed_text(rng: random.Random, text: str) -> str:
    """Text with a few pieces replaced, doubled, removed or put in."""
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(text) + 1)
        length = rng.choice((0, 1, 1, 3, 10, 100))
        piece = rng.choice(
            (rng.choice(WORDS), rng.choice(string.punctuation), text[at : at + 30] * rng.choice((1, 2, 50)))
        )
        text = text[:at] + piece + text[at + length :]
    return text


def changed_cells(rng: random.Random, text: str) -> str:
    """A CSV with a few cells, rows or columns changed."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows)
        kind = rng.randrange(6)
        if kind < 3 and row:
            row[rng.randrange(len(row))] = rng.choice(WORDS)
        elif kind == 3:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        elif kind == 4 and len(rows) > 1:
            rows.remove(row)
        else:
            row[rng.randrange(len(row) + 1) :] = rng.choices(WORDS, k=rng.randrange(4))
    return "\n".join(map(",".join, rows)) + rng.choice(("\n", ""))


def changed_bytes(rng: random.Random, text: str) -> bytes:
    """A table as somebody may send it: changed before it is packed, or after."""
    kind = rng.randrange(4)
    text = text if kind == 0 else changed_text(rng, text) if kind == 1 else changed_cells(rng, text)
    data = text.encode("utf-8", "surrogatepass")
    data = rng.choice((lambda d: d, lambda d: d, gzip.compress, bz2.compress, lzma.compress, zipped, excel))(data)
    return damaged(rng, data) if kind == 0 or rng.random() < 0.2 else data


def zipped(data: bytes) -> bytes:
    """A zip archive of one table."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", data)
    return file.getvalue()


def excel(data: bytes, rng: random.Random | None = None) -> bytes:
    """An Excel file of the cells of a CSV, one of its parts damaged if there is a `rng`."""
    rows = [line.split(",") for line in data.decode("utf-8", "replace").splitlines()]
    kept = lambda cell: "".join(f"&#{ord(c)};" for c in cell if c.isprintable())
    cells = lambda row: "".join(f'<c t="str"><v>{kept(cell)}</v></c>' for cell in row)
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="r"'
    parts = {
        "xl/workbook.xml": f'<workbook {main}><sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": '<R><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></R>',
        "xl/sharedStrings.xml": f"<sst {main}><si><t>A</t></si></sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {main}>{''.join(f'<row>{cells(r)}</row>' for r in rows)}</worksheet>",
    }
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            content = text.encode()
            archive.writestr(name, damaged(rng, content) if rng and rng.random() < 0.3 else content)
    return file.getvalue()


TABLE = "case_id,slide_id,oncotree_code,survival_months,censorship,age,sex,stage\n" + "".join(
    f"P{i},S{i}.svs,{('LUAD', 'LUSC')[i % 2]},{i}.5,{i // 2 % 2},{40 + i},{('male', 'F')[i % 2]},I{'I' * (i % 3)}\n"
    for i in range(12)
)
SPLIT = ",train,val,test\n0,S0,S6,S9\n1,S1,S7,S10\n2,S2,S8,S11\n3,S3,,\n4,S4,,\n5,S5,,\n"


def table(folder: Path) -> Case:
    """Cohorts of subtypes and of survival, of one table or two."""
    from longvit.cohort.patients import read_cohort
    from longvit.config import CoxTask, NllTask, SubtypeTask

    def case(rng: random.Random) -> None:
        (folder / "t.csv").write_bytes(excel(TABLE.encode(), rng) if rng.random() < 0.2 else changed_bytes(rng, TABLE))
        (folder / "s.csv").write_bytes(changed_bytes(rng, "PATIENT,FILENAME\nP0,S0\nP1,S1\nP2,S2\nP3,S3\n"))
        task = rng.choice((SubtypeTask(), SubtypeTask(preset="tcga_lung"), CoxTask(), NllTask()))
        cohort = read_cohort(folder / "t.csv", task, rng.choice((None, None, folder / "s.csv")))
        cohort.without(list(cohort.patient_of)[:2])

    return case


def clinical(folder: Path) -> Case:
    """Clinical tables."""
    from longvit.cohort.clinical import read_clinical

    def case(rng: random.Random) -> None:
        (folder / "t.csv").write_bytes(
            changed_bytes(rng, TABLE.replace("case_id", rng.choice(("case_id", "patient_id"))))
        )
        read_clinical(folder / "t.csv")

    return case


def splits(folder: Path) -> Case:
    """Audits of folders of splits, as the console shows them."""
    from rich.console import Console

    from longvit.cohort.audit import print_findings
    from longvit.cohort.checks import audit_splits
    from longvit.config import AuditConfig

    (folder / "t.csv").write_text(TABLE)

    def case(rng: random.Random) -> None:
        shutil.rmtree(folder / "splits", ignore_errors=True)
        (folder / "splits").mkdir()
        for k in range(2):
            name = (
                f"splits_{k}.csv"
                if rng.random() < 0.9
                else rng.choice(("splits_00.csv", "splits_1_bool.csv", "splits_٣.csv"))
            )
            data = changed_bytes(rng, SPLIT)
            (folder / "splits" / name).write_bytes(data if rng.random() < 0.7 else SPLIT.encode())
        accept = rng.choice(((), ("leak",), ("missing-slides", "leak:P0"), (rng.choice(WORDS),)))
        moved = rng.choice((None, None, "train", "test"))
        config = AuditConfig(table=folder / "t.csv", splits=folder / "splits", accept=accept, move_leaks_to=moved)
        result = audit_splits(config)
        print_findings(result, Console(file=StringIO(), width=80))
        json.loads(result.file.model_dump_json())

    return case


def _only_parsed() -> Callable[[list[str]], object]:
    """A function that parses a command line as `longvit` does, and gives the config instead of running the verb."""
    import longvit.cli.app
    import longvit.cli.parsing
    from longvit.config import VERBS

    longvit.cli.parsing.require_inputs = lambda config: None
    real, seen = longvit.cli.app.app, []

    class Parser:
        def __setattr__(self, name: str, value: object) -> None:
            setattr(real, name, value)

        def parse_args(self, *words: object, **options: object) -> tuple:
            command, bound, rest = real.parse_args(*words, **options)
            verb = command.__name__ in VERBS
            return (lambda config=None: seen.append(config)) if verb else command, bound, rest

    longvit.cli.app.app, longvit.cli.app.launched = Parser(), lambda: True  # so that no `devices` starts processes

    def parsed(arguments: list[str]) -> object:
        seen.clear()
        longvit.cli.app.run_command(arguments)
        return (seen[0] or VERBS[arguments[0]]()) if seen else None  # without a flag or a value, `demo` has its default

    return parsed


def _samples() -> dict[str, dict]:
    """Settings of every verb, as nested values."""
    from longvit.config import VERBS
    from longvit.config.yaml_files import reference_yaml
    from longvit.config.yaml_reader import read_mapping

    found = {}
    for verb, kind in VERBS.items():
        path = Path(f"{verb}.yaml").resolve()
        path.write_text(reference_yaml(kind))
        found[verb] = read_mapping(path)
    found["finetune"]["task"]["label_map"] = {"a.b": "c", "d e": "f"}
    return found


def yaml(folder: Path) -> Case:
    """Settings files of every verb, alone and with a flag."""
    import os

    import yaml as library

    os.chdir(folder)
    from longvit.config import VERBS
    from longvit.config.yaml_files import load_yaml, to_yaml
    from preprocessing.errors import PipelineError

    samples, parsed = _samples(), _only_parsed()
    texts = {verb: (folder / f"{verb}.yaml").read_text() for verb in VERBS}

    def case(rng: random.Random) -> None:
        verb = rng.choice(list(VERBS))
        kind = rng.randrange(4)
        if kind == 0:
            data = damaged(rng, texts[verb].encode())
        elif kind == 1:
            data = changed_text(rng, texts[verb]).encode("utf-8", "surrogatepass")
        else:
            text = damaged_json(rng, json.dumps(samples[verb]).encode()).decode()
            if kind == 3 and "[[[[[[[[[[" not in text:  # not more than PyYAML writes
                text = library.safe_dump(json.loads(text), allow_unicode=True)
            data = text.encode("utf-8", "replace")
        (folder / "a.yaml").write_bytes(data)
        flags = rng.choice(([], [], ["--out", "o"], ["--task.kind", "cox"], ["--seed", "3"]))
        error = None
        try:
            load_yaml(folder / "a.yaml", VERBS[verb])
        except PipelineError as refused:
            error = refused
        config = parsed([verb, "--config", str(folder / "a.yaml"), *flags])
        (folder / "b.yaml").write_text(to_yaml(config))
        assert load_yaml(folder / "b.yaml", VERBS[verb]) == config
        if error is not None:
            raise error

    return case


def words(folder: Path) -> Case:
    """Command lines."""
    import os

    os.chdir(folder)
    from longvit.config import VERBS
    from longvit.config.messages import all_settings, as_flag

    samples, parsed = _samples(), _only_parsed()
    known = {verb: [as_flag(names) for names in all_settings(kind)] for verb, kind in VERBS.items()}
    values = [word.replace("\x00", "") for word in WORDS] + [
        "cox",
        "subtype",
        "0.5",
        '{"a": 1}',
        "[1, 2]",
        "[]",
        "{}",
        "null",
    ]

    def case(rng: random.Random) -> None:
        verb = rng.choice(list(VERBS))
        line = [verb]
        for name, value in samples[verb].items():
            if value == "REQUIRED" and rng.random() < 0.9:
                line += [as_flag((name,)), "x"]
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            flag = rng.choice(known[verb])
            flag = rng.choice((flag, flag, flag, flag + ".x", flag[:-1], flag.replace("--", "--no-"), flag.upper()))
            given = [rng.choice(values) for _ in range(rng.choice((0, 1, 1, 1, 3)))]
            line += [f"{flag}={given[0]}", *given[1:]] if given and rng.random() < 0.3 else [flag, *given]
        if rng.random() < 0.2:
            line.insert(
                rng.randrange(len(line)), rng.choice((*values, "--", "-", "---", "--=", "--config", "-h", "--help"))
            )
        parsed(line)

    return case


def predictions(folder: Path) -> Case:
    """Predictions of subtypes and of survival; some of those that can be read are evaluated."""
    from longvit.config import EvaluateConfig
    from longvit.evaluation.evaluate import run
    from longvit.evaluation.predictions import read_predictions

    keys = [f"P{i},S{i},{i % 3},test" for i in range(18)]
    subtype = "patient_id,slide_id,fold,split,label,p_a,p_b,shuffled\n" + "".join(
        f"{key},{'ab'[i % 2]},0.{i % 9 + 1},0.{9 - i % 9},\n" for i, key in enumerate(keys)
    )
    survival = "patient_id,slide_id,fold,split,time,event,risk\n" + "".join(
        f"{key},{i + 1}.5,{i % 2},{i * 7 % 5}.25\n" for i, key in enumerate(keys)
    )

    def case(rng: random.Random) -> None:
        text = rng.choice((subtype, survival))
        text = changed_cells(rng, text) if rng.random() < 0.7 else changed_text(rng, text)
        data = text.encode("utf-8", "surrogatepass")
        (folder / "p.csv").write_bytes(damaged(rng, data) if rng.random() < 0.2 else data)
        read_predictions(folder / "p.csv")
        if rng.random() < 0.1:
            run(EvaluateConfig(predictions=folder / "p.csv", out=folder / "out"))

    return case


def changed_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header or settings are changed, with the right length; or whose bytes are."""
    if rng.random() < 0.3:
        return damaged(rng, data, list(range(200)))
    (length,) = struct.unpack_from("<Q", data)
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.get("__metadata__", {})
    if metadata and rng.random() < 0.7:
        name = rng.choice(sorted(metadata))
        if rng.random() < 0.8 and metadata[name][:1] in "{[":
            metadata[name] = damaged_json(rng, metadata[name].encode()).decode()
        else:
            metadata[name] = rng.choice(
                ("", "null", "[1,2]", "{}", "1" * 5000, "[" * 2000, str(rng.choice(VALUES))[:500])
            )
        text = json.dumps(header).encode()
    else:
        text = damaged_json(rng, data[8 : 8 + length])
    return struct.pack("<Q", len(text)) + text + rest


def encoder(folder: Path) -> Case:
    """Files of encoders."""
    from longvit.config import EncoderConfig
    from longvit.model import LongViT, load_encoder, save_encoder

    small = {"width": 32, "depth": 1, "heads": 4, "segment_lengths": (16,), "dilation_ratios": (1,)}
    save_encoder(folder / "e.safetensors", LongViT(EncoderConfig(**small)))
    data = (folder / "e.safetensors").read_bytes()

    def case(rng: random.Random) -> None:
        (folder / "f.safetensors").write_bytes(changed_safetensors(rng, data))
        load_encoder(folder / "f.safetensors")

    return case


def model(folder: Path) -> Case:
    """Files of finetuned models."""
    from longvit.config import FinetuneConfig
    from longvit.finetuning.build import build_model
    from longvit.model.predictor import load_model, save_model

    small = {"width": 32, "depth": 1, "heads": 4, "segment_lengths": (16,), "dilation_ratios": (1,)}
    config = FinetuneConfig(stores="s", table="t", splits="p", out="o", encoder=small)
    save_model(folder / "m.safetensors", build_model(config, ("a", "b")))
    data = (folder / "m.safetensors").read_bytes()

    def case(rng: random.Random) -> None:
        (folder / "n.safetensors").write_bytes(changed_safetensors(rng, data))
        load_model(folder / "n.safetensors")

    return case
