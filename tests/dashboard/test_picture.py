# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A run's CSV files become a picture whatever they hold, and it does not flatter the run."""

from __future__ import annotations

import builtins
import csv
import math
import struct

import pytest

vl_convert = pytest.importorskip("vl_convert")

from lightning_losses.dashboard.charts import curves  # noqa: E402
from lightning_losses.dashboard.charts.picture import training_picture  # noqa: E402


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draw and return every word of the spec that was rendered; the PNG itself is checked here."""
    rendered = {}
    real = vl_convert.vegalite_to_png

    def keep(spec, **options):
        rendered["spec"] = spec
        return real(spec, **options)

    monkeypatch.setattr(vl_convert, "vegalite_to_png", keep)

    def run(metrics, reliability=None):
        out = tmp_path / "new" / "folder" / "run.png"
        assert training_picture(metrics, out, reliability) == out
        png = out.read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", png[16:24])
        # Three panels of 460 points in a row, two rows of 240, at scale 2.
        assert width > 6 * 460
        assert height > 4 * 240
        return rendered["spec"]

    return run


def texts(node) -> str:
    """Every string in a spec."""
    if isinstance(node, str):
        return node
    if isinstance(node, dict):
        return "\n".join(texts(value) for value in node.values())
    if isinstance(node, list):
        return "\n".join(texts(value) for value in node)
    return ""


def rows_of(node) -> list[dict]:
    """Every row of data in a spec."""
    if isinstance(node, dict):
        own = node.get("data", {}).get("values", []) if isinstance(node.get("data"), dict) else []
        return own + [row for value in node.values() for row in rows_of(value)]
    return [row for value in node for row in rows_of(value)] if isinstance(node, list) else []


def values(spec, series) -> list[float]:
    """The values of one series that are in the picture, in order of step."""
    points = {(row["step"], row["value"]) for row in rows_of(spec) if row.get("series") == series}
    return [value for _, value in sorted(points)]


def write(path, rows) -> None:
    """Rows as a CSV, blank where a row has no such column."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def metrics(tmp_path):
    """As CSVLogger writes it: validation in rows of its own, blank where nothing was logged."""
    rows = []
    for step in range(20):
        loss = 2.3 * math.exp(-step / 5)
        rows.append({"epoch": step // 10, "step": step, "train/loss": loss + 0.1})
        rows[-1] |= {"train/loss/ce": loss, "train/loss/opl": 0.2, "train/weight/opl": 0.5}
        rows[-1] |= {
            "entropy/mean": loss,
            "entropy/ratio": loss / 2.3,
            "step_radius/r": 2 / 2**step,
        }
        if step % 10 == 9:
            rows.append({"epoch": step // 10, "step": step, "val/loss": loss + 0.2})
    path = tmp_path / "metrics.csv"
    write(path, rows)
    return path


@pytest.fixture
def reliability(tmp_path):
    """Two epochs, two stages, ten bins; the lower five are empty, as in a trained model."""
    rows = []
    for stage in ("val", "test"):
        for epoch in (0, 1):
            for b in range(10):
                full = b >= 5
                rows.append(
                    {"stage": stage, "epoch": epoch, "lower": b / 10, "upper": (b + 1) / 10}
                )
                rows[-1] |= {"count": 10 * b if full else 0}
                rows[-1] |= {"confidence": b / 10 + 0.05 if full else ""}
                # Accuracy is 0.05 below confidence, in the last epoch of val only.
                off = 0.05 if (stage, epoch) == ("val", 1) else 0.2
                rows[-1] |= {"accuracy": b / 10 + 0.05 - off if full else ""}
    path = tmp_path / "reliability.csv"
    write(path, rows)
    return path


def test_everything_there(draw, metrics, reliability):
    spec = draw(metrics, reliability)
    words = texts(spec)
    assert "nothing to draw" not in words.replace("nothing to draw in calibration", "")  # no ece
    assert "not drawn" not in words
    assert len(values(spec, "train/loss")) == 20
    assert len(values(spec, "val/loss")) == 2
    assert values(spec, "ce")[0] == pytest.approx(2.3, rel=1e-5)
    assert set(values(spec, "opl")) == {0.2}  # the term and not its weight, 0.5
    assert len(values(spec, "entropy/mean")) == 20
    assert "Reliability diagram, val" in words
    assert "val, epoch 1: mean gap 0.050, 350 rows" in words
    assert "r = 1" in words
    # nothing is fetched: data is in the spec
    assert "url" not in str(spec)


def test_files_that_are_not_there(draw, tmp_path):
    words = texts(draw(tmp_path / "nowhere.csv"))
    assert words.count("nowhere.csv was not found") == 6
    assert str(tmp_path) not in words  # a picture goes to other people


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"epoch,train/loss\n0,1\n", "has no column step"),
        (b"epoch,step,train/loss\n", ""),
        (b"epoch,step\n0,0\n", ""),
        (b"epoch,step,train/loss\n0,0,\n", ""),
        (b"epoch,step,train/loss\n0,0,high\n", ""),
        (b"step,train/loss\n1,2,3,4,5\n", "1 lines of run.csv have too few or too many cells"),
        (b"\xff\xfe\x00\x81 not text", "is not text in UTF-8 throughout"),
    ],
)
def test_files_with_nothing_to_draw(draw, tmp_path, content, reason):
    path = tmp_path / "run.csv"
    path.write_bytes(content)
    words = texts(draw(path, path))
    assert words.count("nothing to draw in") == 6
    assert " ".join(reason.split()) in " ".join(words.split())


def test_a_folder_is_not_a_table(draw, tmp_path):
    assert "could not be read" in texts(draw(tmp_path, tmp_path))


def test_one_step_is_a_point(draw, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,entropy/mean,step_radius/r\n0,0,2.5,2.3,0.1\n")
    spec = draw(path)
    marks = {layer["mark"]["type"] for layer in spec["concat"][0]["layer"]}
    assert marks == {"line", "point"}
    assert values(spec, "train/loss") == [2.5]
    assert "nothing to draw in train/loss or" not in texts(spec)  # alone it is a picture


def test_nan_losses_are_counted_and_blanks_are_not(draw, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss\n0,1.0,\n1,nan,\n2,inf,\n3,0.5,\n3,,0.7\n4,-inf,\n")
    spec = draw(path)
    assert values(spec, "train/loss") == [1.0, 0.5]
    assert "3 NaN or infinite not drawn" in texts(spec)


def test_step_radius_of_zero_has_no_place_on_a_log_axis(draw, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,step_radius/r\n0,0.0\n1,0.5\n2,0.0\n")
    spec = draw(path)
    assert values(spec, "step_radius/r") == [0.5]
    assert "2 of 0 or below not drawn" in texts(spec)
    path.write_text("step,step_radius/r\n0,0.0\n")
    assert "1 of 0 or below not drawn" in texts(draw(path))


def test_a_long_run_keeps_its_spikes(draw, tmp_path):
    # Of 67 steps two points are drawn; one step in all of them is above 1, and it must show.
    path = tmp_path / "metrics.csv"
    rows = (f"{step},1.0,{7.0 if step == 12_345 else 0.1}\n" for step in range(20_000))
    path.write_text("step,train/loss,step_radius/r\n" + "".join(rows))
    spec = draw(path)
    radius = values(spec, "step_radius/r")
    assert len(radius) <= curves.POINTS
    assert max(radius) == 7.0
    assert "of every 67 values the lowest and the highest are drawn" in texts(spec)


def test_more_terms_than_colours(draw, tmp_path):
    path = tmp_path / "metrics.csv"
    names = [f"train/loss/term{i:02d}" for i in range(20)]
    write(path, [{"step": step} | dict.fromkeys(names, step) for step in (0, 1)])
    layer = draw(path)["concat"][1]["layer"][0]["encoding"]
    assert layer["color"]["scale"]["domain"] == [f"term{i:02d}" for i in range(20)]
    dashes = layer["strokeDash"]["scale"]["range"]
    # Seven colours come round again: with the dash every look is another.
    assert len({(at % 7, tuple(dash)) for at, dash in enumerate(dashes)}) == 20


@pytest.mark.parametrize(
    ("term", "scale"),
    [
        ([4.0, 3.0], None),  # linear: 0.5 and 4 can share an axis
        ([40.0, 50.0], "log"),  # a hundred times the other would flatten it
        ([40.0, -1.0], None),  # but a log axis has no place for a negative loss
    ],
)
def test_a_large_term_does_not_flatten_the_others(draw, tmp_path, term, scale):
    path = tmp_path / "metrics.csv"
    rows = zip((0, 1), (1.0, 0.5), term, strict=True)
    names = ("step", "train/loss/ce", "train/loss/big")
    write(path, [dict(zip(names, row, strict=True)) for row in rows])
    y = draw(path)["concat"][1]["layer"][0]["encoding"]["y"]
    assert y["scale"].get("type") == scale


def test_reliability_without_rows(draw, metrics, reliability):
    text = reliability.read_text()
    header, *lines = text.split()
    kept = [[*line.split(",")[:4], "0", "", ""] for line in lines]
    reliability.write_text("\n".join([header, *map(",".join, kept), ""]))
    assert "nothing to draw in reliability" in texts(draw(metrics, reliability))


def test_reliability_without_val_takes_what_there_is(draw, metrics, reliability):
    lines = [line for line in reliability.read_text().split() if not line.startswith("val")]
    reliability.write_text("\n".join([*lines, ""]))
    words = texts(draw(metrics, reliability))
    assert "Reliability diagram, test" in words
    assert "test, epoch 1: mean gap 0.200, 350 rows" in words


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.06, 2.5, [0.1, 0.2, 0.5, 1, 2]),
        (0.0007, 1.5, [0.001, 0.01, 0.1, 1]),
        (1e-11, 10.5, [1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1]),
    ],
)
def test_log_ticks_hold_one(low, high, expected):
    assert curves.log_ticks(low, high) == pytest.approx(expected)


def test_without_the_report_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "vl_convert":
            raise ModuleNotFoundError("No module named 'vl_convert'", name="vl_convert")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'vl-convert.*pip install "lightning-losses\[report\]"'):
        training_picture(tmp_path / "metrics.csv", tmp_path / "out.png")
