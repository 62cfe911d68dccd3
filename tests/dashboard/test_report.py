# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The report shows what a run logged, says what it did not, and needs nothing but itself."""

from __future__ import annotations

import ast
import csv
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("vl_convert")

from lightning_losses.__main__ import main
from lightning_losses.dashboard.panels import catalogue as panels
from lightning_losses.dashboard.panels.catalogue import PANELS, SECTIONS, matches, unclaimed
from lightning_losses.dashboard.report.page import POLICY, render
from lightning_losses.dashboard.report.verdict import not_measured, verdict
from lightning_losses.dashboard.report.write import one_run, write_report
from lightning_losses.dashboard.runs.find import find_runs

MEASURES = """ece ece_equal_mass ece_debiased ece_classwise mce rmsce over under gap brier
    brier_reliability brier_resolution brier_uncertainty nll ks smece smece_fixed aurc augrc
    auroc_correctness accuracy psi"""
# Every name that objective, monitors and controllers log, by its first part.
LOGGED = {
    "train": "loss loss/ce loss/opl weight/opl",
    "train/generator": "loss loss/ce weight/opl",
    "val": "loss loss/ce",
    "val/generator": "loss",
    "entropy": """mean p10 p50 p90 effective_classes marginal marginal_classes nll_gap val_nll_gap
        ratio alert rows token_covariance ceiling law_a law_b law_r2""",
    "entropy_target": "coefficient entropy",
    "calibration/val": MEASURES,
    "calibration/test": MEASURES,
    "post_hoc": "val/ece_before val/ece_after val/nll_before val/nll_after temperature",
    "step_radius": "r r_p99 update_norm rho_a rho_dom rho_var descent noise_floor rows",
    "step_radius_controller": "r applied_r scale interventions undone",
    "logit_health": """logsumexp_mean logsumexp_max max_logit softmax_collapse zero_terms
        onset_step""",
    "gradient_rms": "smallest share_near_epsilon",
    "ood": "energy_auroc energy_fpr95 mahalanobis_auroc mahalanobis_fpr95",
    "perp_grad": "removed_share",
    "attention_entropy": "mean min max_logit onset_step lower_bound",
    "neural_collapse": "nc1 nc2_norms nc2_angles nc2_etf nc3 nc4",
    "representation_entropy": "dse dsmi",
    "information_plane": "layer1/itx layer1/ity",
    "term_balance": "norm/ce share/ce cosine/ce:opl",
    "forecast": "loss low high residual",
    "drift": "psi psi_standard_error psi_chance",
    "train/diagnostics": "supcon/active",
    "loss_by/val": """worst_loss gap gap_to_best loss/a loss/b accuracy/a accuracy/b
        worst_accuracy worst_calibration js_distance""",
    "sample_value": "forgotten never_learned el2n aum",
}
KEYS = [f"{first}/{name}" for first, names in LOGGED.items() for name in names.split()]


def write(path: Path, rows: list[dict]) -> None:
    """As CSVLogger writes: one column a name, blank where nothing was logged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def full(tmp_path):
    """A run that logged everything, in the layout of examples/train.py."""
    run = tmp_path / "full"
    rows = [
        {"step": 10 * at, "epoch": at // 5} | dict.fromkeys(KEYS, 2.0 / (at + 1))
        for at in range(12)
    ]
    write(run / "csv" / "metrics.csv", rows)
    bins = [
        {"stage": stage, "epoch": epoch, "lower": b / 10, "upper": (b + 1) / 10, "count": b}
        | {"confidence": b / 10 + 0.05 if b else "", "accuracy": b / 10 if b else ""}
        for stage in ("val", "test")
        for epoch in range(3)
        for b in range(10)
    ]
    write(run / "csv" / "reliability.csv", bins)
    heads = [
        {"step": step, "layer": layer, "head": head, "entropy": 1, "lower_bound": 0.1}
        | {"entropy_fraction": head / 4, "max_logit": 3}
        for step in (0, 50)
        for layer in range(3)
        for head in range(4)
    ]
    write(run / "csv" / "attention_entropy.csv", heads)
    plane = [
        {"epoch": epoch, "layer": layer, "itx": 3 - epoch / 3, "ity": epoch}
        for epoch in range(3)
        for layer in ("conv1", "head")
    ]
    write(run / "csv" / "information_plane.csv", plane)
    return run


def body(place) -> str:
    """Everything that can be read on a report's page."""
    (run,) = find_runs([str(place)])
    return rendered(run)


def rendered(run) -> str:
    """The page of a run as HTML."""
    page, pictures = one_run(run)
    return render(page, [chart.data for _, chart, _ in pictures if chart.data], [run])


def small(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(text, encoding="utf-8")
    return folder


# ---------------------------------------------------------------- panels


def test_panels_show_every_logged_name():
    assert unclaimed(KEYS) == []
    for panel in PANELS:
        assert panel.table or matches(panel, KEYS), panel.name


def test_panels_are_whole_and_named_once():
    assert len({panel.name for panel in PANELS}) == len(PANELS)
    assert {panel.section for panel in PANELS} == set(SECTIONS)
    for panel in PANELS:
        assert bool(panel.keys) != bool(panel.table), panel.name
        assert panel.about.endswith("."), panel.name
        assert panel.healthy
        assert not panel.healthy.endswith("."), panel.name


def test_panels_need_only_the_standard_library():
    for path in Path(panels.__file__).parent.glob("panel*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                ours = name.startswith("lightning_losses.dashboard.panels.panel")
                assert ours or name.split(".")[0] in sys.stdlib_module_names


# ---------------------------------------------------------------- what a page says


def test_a_full_run_misses_nothing(full):
    (run,) = find_runs([str(full)])
    text, pictures = rendered(run), one_run(run)[1]
    assert "Not logged" not in text
    assert "Not measured" not in text
    assert not_measured(run) == []
    # Two reliability diagrams (val and test), every other panel once.
    assert len(pictures) == len(PANELS) + 1
    assert text.count('class="chart"') == len(pictures)


def test_an_empty_run_says_what_is_missing(tmp_path):
    text = body(small(tmp_path / "run", "step,epoch\n0,0\n"))
    assert "No number was logged." in text
    for panel in PANELS:
        assert panel.detail or f"{panel.title} ({panel.source})".replace("'", "&#39;") in text
    assert 'class="chart"' not in text


def test_one_step(tmp_path):
    text = body(small(tmp_path / "run", "epoch,step,train/loss,step_radius/r\n0,0,2.5,0.1\n"))
    assert "train/loss was logged once: 2.5 at step 0." in text
    assert text.count('class="chart"') == 2


def test_nan_is_counted_and_blanks_are_not(tmp_path):
    rows = "step,train/loss,val/loss\n0,1.0,\n1,nan,\n2,inf,\n3,0.5,\n3,,0.7\n4,-inf,\n"
    text = body(small(tmp_path / "run", rows))
    assert "NaN or infinite from step 1 on: train/loss (3 times)." in text
    assert "3 NaN or infinite not drawn" in text
    text = body(small(tmp_path / "all", "step,train/loss\n0,nan\n"))
    assert "train/loss (1 times)" in text
    assert 'class="chart"' not in text


def test_a_crashed_run_gives_what_came_before(tmp_path):
    rows = "step,train/loss,val/loss\n0,4.0,\n1,3.0,\n2,2.0,\n3,12345"
    run = small(tmp_path / "run", rows)
    text = body(run)
    assert "metrics.csv ends in the middle of a line" in text
    assert "train/loss fell from 4 to 2 (step 2)." in text
    assert "1234" not in text
    # Cut in the last cell's number: as many cells as there should be, and still not to be trusted.
    assert "fell from 4 to 3" in body(small(run, "step,train/loss\n0,4.0\n1,3.0\n2,2.9"))


def test_names_in_any_script_and_with_markup(tmp_path):
    run = tmp_path / "実験 <b> & ü"
    evil = "train/loss/</script><script>alert(1)</script>"
    write(run / "metrics.csv", [{"step": s, "train/loss/größe": 1 + s, evil: 2} for s in (0, 1)])
    html = write_report([run], pictures=False).read_text(encoding="utf-8")
    assert "<title>実験 &lt;b&gt; &amp; ü</title>" in html
    assert "<script>alert" not in html
    assert "größe" in html


# ---------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("columns", "tone", "text"),
    [
        (
            {"step_radius/r": [0.5, 2.5, 1.5, 0.9]},
            "bad",
            "r exceeded 1 in 2 of 4 measured steps (largest 2.5 at step 10)",
        ),
        ({"step_radius/r": [0.5, 1.0]}, "good", "r stayed at or below 1 in all 2 measured steps"),
        (
            {"entropy/mean": [2.0, 0.8, 1.0], "entropy/ratio": [1.0, 0.4, 0.5]},
            "note",
            "Entropy fell to 0.4 of baseline at step 10 and ended at 0.5 of it (1 nats)",
        ),
        ({"entropy/mean": [2.0, 0.8]}, "note", "from 2 to 0.8 nats; no baseline was measured"),
        ({"entropy/alert": [0, 1, 2]}, "bad", "first at step 10; the worst was critical"),
        (
            {"calibration/val/ece": [0.08, 0.03], "calibration/val/gap": [0.0, -0.02]},
            "good",
            "ECE (val) 0.08 -> 0.03, first to last measurement; the model is underconfident by",
        ),
        (
            {
                "post_hoc/val/ece_before": [0.08],
                "post_hoc/val/ece_after": [0.03],
                "post_hoc/temperature": [1.7],
            },
            "good",
            "ECE (val) 0.08 -> 0.03 after temperature 1.7.",
        ),
        ({"val/loss": [2.0, 1.0, 1.9]}, "bad", "lowest, 1, at step 10 and ended at 1.9: it rose"),
        ({"val/loss": [2.0, 1.0, 1.01]}, "good", "lowest, 1, at step 10 and ended at 1.01."),
        ({"train/loss": [1.0, 2.0]}, "bad", "train/loss rose from 1 to 2 (step 10)."),
        ({"logit_health/softmax_collapse": [0, 0.25]}, "note", "from step 10 on, in up to 25%"),
        ({"logit_health/softmax_collapse": [0, 0.95]}, "bad", "from step 10 on, in up to 95%"),
        ({"term_balance/cosine/a:b": [-1, -1, 1]}, "note", "a and b were opposed in 2 of 3"),
        ({"forecast/loss": [3, 2.5], "forecast/low": [1, 2], "forecast/high": [4, 3]}, "note",
         "Predicted final loss 2.5 (2 to 3), said at step 10."),
    ],
)  # fmt: skip
def test_sentences(tmp_path, columns, tone, text):
    length = len(next(iter(columns.values())))
    rows = [{"step": 10 * at} | {n: v[at] for n, v in columns.items()} for at in range(length)]
    write(tmp_path / "run" / "metrics.csv", rows)
    (run,) = find_runs([str(tmp_path / "run")])
    (said,) = [one for one in verdict(run) if text in one.text]
    assert said.tone == tone


def test_nothing_is_said_of_what_was_not_measured(tmp_path):
    (run,) = find_runs([str(small(tmp_path / "run", "step,train/loss\n0,2.0\n1,1.0\n"))])
    ended, *said = verdict(run)
    assert [one.text for one in said] == [
        "train/loss fell from 2 to 1 (step 1).",
        "Too few values to tell spikes in the loss from its fall.",
    ]
    assert ended.tone == said[1].tone == "unknown"
    assert "How the training ended is not known: the last step of the log is 1" in ended.text
    assert "step radius r (StepRadiusMonitor)" in not_measured(run)


# ---------------------------------------------------------------- places and comparison


def test_layouts(tmp_path):
    for place in ("metrics", "csv/metrics", "lightning_logs/version_3/metrics"):
        run = tmp_path / place.replace("/", "-")
        write(run / f"{place}.csv", [{"step": 0, "train/loss": 1.5}])
        (found,) = find_runs([str(run)])
        assert found.series["train/loss"].values == [1.5]


@pytest.fixture
def sweep(tmp_path):
    """Eleven jobs, so that 10 must come after 9; job 4 crashed before it logged a test."""
    for job in range(11):
        run = tmp_path / "sweep" / str(job)
        rows = [{"step": s, "train/loss": job + 1 / (s + 1)} for s in range(4)]
        if job != 4:
            rows.append({"step": 4, "calibration/test/accuracy": 0.5 + job / 100})
        write(run / "csv" / "metrics.csv", rows)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(f"- loss=[l{job}]\n- trainer.max_epochs=4\n")
    (tmp_path / "sweep" / "multirun.yaml").write_text("{}\n")
    return tmp_path / "sweep"


def test_a_sweep_is_compared_by_its_overrides(sweep):
    runs = find_runs([str(sweep)])
    assert [run.name for run in runs] == [f"loss=[l{job}]" for job in range(11)]
    html = write_report([sweep], pictures=True).read_text(encoding="utf-8").replace("<wbr>", "")
    assert (sweep / "report" / "train_loss.png").stat().st_size > 1000
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td(.*?)>(.*?)</td>", html)
    assert [row[3] for row in rows[:2]] == ["0.5", "0.51"]
    assert rows[4][3] == "not logged"
    assert [row[0] for row in rows if "best" in row[2]] == ["loss=[l10]"]
    assert [row[1] for row in rows] == ["3"] * 11  # the last step of each
    assert "11 runs compared" in html


def test_several_places_are_compared_by_their_folders(tmp_path):
    places = [small(tmp_path / name, "step,train/loss\n0,1\n1,2\n") for name in ("a", "b")]
    html = write_report(places, tmp_path / "out", pictures=False).read_text(encoding="utf-8")
    assert "2 runs compared" in html
    assert '"name":"b"' in html


def test_command_line(tmp_path, capsys, monkeypatch):
    run = small(tmp_path / "run", "step,train/loss\n0,1\n1,2\n")
    assert main(["report", str(run), "--out", str(tmp_path / "out"), "--pictures"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not there; pass a run's folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "out")]) == 2
    assert "holds no run: looked for metrics.csv" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main(["report", "entity/project/run"]) == 2
    assert "Run `wandb login`" in capsys.readouterr().err


def test_a_live_run(monkeypatch):
    """By a stand-in for the server: what `wandb.Api` returns, as far as it is used."""
    wandb = pytest.importorskip("wandb")
    table = '{"columns": ["epoch", "layer", "itx", "ity"], "data": [[0, "a", 1.5, 0.5]]}'

    class File:
        def download(self, root, replace):
            path = Path(root) / "media/table/t.json"
            path.parent.mkdir(parents=True)
            path.write_text(table)

    class Live:
        name, id, state = "crimson-sea-1", "abc", "crashed"

        def scan_history(self):
            info = {"_type": "table-file", "path": "media/table/t.json"}
            yield {"_step": 0, "trainer/global_step": 5, "train/loss": 2.0, "epoch": 0}
            yield {"_step": 1, "trainer/global_step": 9, "train/loss": "NaN", "x_table": info}

        def file(self, name):
            assert name == "media/table/t.json"
            return File()

    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"run": lambda _, path: Live()})())
    (run,) = find_runs(["entity/project/abc"])
    assert run.name == "crimson-sea-1"
    assert [one.tolist() for one in run.series["train/loss"]] == [[5], [2.0], [9]]
    assert run.tables["x"] == [{"epoch": 0.0, "layer": "a", "itx": 1.5, "ity": 0.5}]
    assert run.notes == ["the run's state is crashed"]


def test_the_page_names_no_place_to_fetch_from(full):
    html = write_report([full], pictures=False).read_text(encoding="utf-8")
    assert f'content="{POLICY}"' in html
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:)', outside)
    assert '<div class="chart" data-chart="0"></div>' in html
    assert html.count("<section") == len(SECTIONS)
    assert "form-action 'none'; base-uri 'none'" in POLICY
