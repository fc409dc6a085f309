"""The README's block, the page and the picture are made from results, and nothing else."""

import doctest
import re
from xml.etree import ElementTree

import pytest

from bench import chart, report, results, rows, tables
from tests.unit.bench import made


@pytest.mark.parametrize("module", [results, tables], ids=lambda module: module.__name__)
def test_the_examples_of_the_module_hold(module) -> None:
    assert doctest.testmod(module).failed == 0


def checkout(tmp_path, text: str = "before\n<!-- bench -->\n<!-- /bench -->\nafter\n"):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def save(monkeypatch, root, document) -> None:
    monkeypatch.setattr(results, "FOLDER", root / "bench" / "results")
    (root / "bench").mkdir(exist_ok=True)
    results.save(document["group"], document["runs"], document["checks"], document["minutes"])


def test_results_come_back_as_they_were_written(tmp_path, monkeypatch) -> None:
    document = made.group("near", 2)
    save(monkeypatch, tmp_path, document)
    found = results.load(tmp_path / "bench" / "results")["near"]
    assert [run.keys() for run in found["runs"]] == [run.keys() for run in document["runs"]]
    assert found["runs"][1]["near-int"][rows.US]["wall"] == pytest.approx([1.5e-6, 1e-6, 3e-6])
    assert found["checks"] == document["checks"]


def test_without_results_there_is_nothing(tmp_path) -> None:
    root = checkout(tmp_path)
    report.write(root)
    assert (root / "README.md").read_text() == "before\n<!-- bench -->\n<!-- /bench -->\nafter\n"
    assert not list((root / "docs").iterdir())
    assert report.check(root) == []


def test_the_check_fails_when_a_generated_file_was_changed(tmp_path, monkeypatch) -> None:
    root = checkout(tmp_path)
    save(monkeypatch, root, made.group("near"))
    monkeypatch.setattr(report, "ROOT", root)
    assert [line.partition(":")[0] for line in report.check(root)] == [
        "README.md",
        "docs/benchmarks.md",
        "docs/benchmarks.svg",
    ]
    report.write(root)
    assert report.check(root) == []
    readme = root / "README.md"
    assert readme.read_text().startswith("before\n<!-- bench -->\n## How fast\n")
    assert readme.read_text().endswith("<!-- /bench -->\nafter\n")
    readme.write_text(readme.read_text().replace("1.00 µs", "0.10 µs"))
    assert [line.partition(":")[0] for line in report.check(root)] == ["README.md"]


def test_a_readme_without_markers_is_found(tmp_path) -> None:
    assert [line.partition(":")[0] for line in report.check(checkout(tmp_path, "no markers"))] == ["README.md"]


def test_missed_targets_and_contenders_that_could_not_be_had_are_loud() -> None:
    document = made.group("near", ours=1e-5)
    document["runs"][0]["near-int"]["theine"] = {"error": "no wheel | for this machine"}
    page = report.page({"near": document})
    assert "**missed**" in page
    assert "| theine | – | – | **not measured**: no wheel ¦ for this machine |" in page


def test_every_row_prints_the_versions_it_ran() -> None:
    page = report.page({name: made.group(name) for name in rows.GROUPS})
    tables_of_rows = re.findall(r"^\| nearcache \|.*\|$", page, re.MULTILINE)
    assert len(tables_of_rows) == len(rows.ROWS)
    assert all("3.11.7" in line for line in tables_of_rows)
    assert all(row.title in page for row in rows.ROWS)


def test_the_readme_has_one_line_for_each_target_of_the_main_rows() -> None:
    found = {name: made.group(name) for name in rows.GROUPS}
    lines = [line for line in report.block(found).splitlines() if line.startswith("| ")]
    assert len(lines) - 1 == sum(len(row.targets) for row in rows.ROWS if row.main)
    assert rows.find("remote-get-tcp").title not in "\n".join(lines)


def test_who_hands_out_the_stored_dict_is_marked() -> None:
    row, contender = rows.find("near-dict"), rows.MOKA
    told = tables.remarks(row, contender, {"versions": {"moka-py": "0.5.0"}, "copies": "shared"})
    assert told == "moka-py 0.5.0; hands out the stored dict itself"


def test_the_spread_of_several_runs_is_shown() -> None:
    row = rows.find("near-get")
    runs = [made.run(row, ours=ours) for ours in (1e-6, 1.2e-6, 1.1e-6)]
    assert tables.target_line(row, runs, row.targets[1])[4:] == ["0.55 × (0.50–0.60)", "≤ 1 ×", "met"]


def test_the_picture_is_valid_and_has_a_bar_for_each_target() -> None:
    bars = chart.bars({name: made.group(name) for name in rows.GROUPS})
    picture = ElementTree.fromstring(chart.svg(bars))
    assert len(picture.findall("{*}rect")) == len(bars) == sum(len(row.targets) for row in rows.ROWS if row.main)
    assert chart.svg(bars) == chart.svg(bars)


def test_a_throughput_is_drawn_as_a_time() -> None:
    (bar,) = chart.bars({"threads": made.group("threads", ours=1e-6, theirs=4e-6)})
    assert (bar.value, bar.limit) == pytest.approx((0.25, 1 / 1.5))


def test_the_scale_holds_every_value_and_target() -> None:
    bars = [chart.Bar("a", "b", 0.03, 0.5), chart.Bar("a", "b", 31.0, 3.0)]
    lowest, highest = chart.span(bars)
    assert lowest <= 0.03
    assert highest >= 31.0
