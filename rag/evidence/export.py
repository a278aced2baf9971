"""Reports as JSON data, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rag.evidence.formats import safe_cell
from rag.evidence.measures import SHOWN
from rag.evidence.report import COMPARED, MEASURE, Curve, Report, measure, wanting
from rag.evidence.runfile import Run
from rag.evidence.verdict import Word
from rag.evidence.versus import RunComparison

_MARKDOWN = re.compile(r"([\\`*_<|~$&]|\](?=[(\[:]))")

_CHANGE: dict[Word, str] = {
    "helps": "better",
    "hurts": "worse",
    "no difference seen": "no difference seen",
    "too few questions to say": "too few questions to say",
}


def report_data(report: Report) -> dict[str, Any]:
    """A report as JSON data."""
    return asdict(report)


def report_markdown(report: Report) -> str:
    """A report for people: the verdict first, then the tables that it rests on."""
    parts = [
        f"# {_plain(report.header.question_set)}",
        _summary(report),
        *(f"> {_plain(note)}" for note in report.notes),
        *(_plain(sentence) for one in report.conclusions for sentence in one.sentences),
        "## Orders",
        _orders(report),
        "## Differences, question by question",
        "Mean difference with its 95 % bootstrap interval; in brackets questions won, tied, lost.",
    ]
    for rival in report.rivals:
        parts += [f"### Against {_plain(rival)}", _differences(report, rival)]
    for curve in report.curves:
        parts += [f"## Depth: {_plain(curve.name)}", _depths(curve), _plain(curve.why)]
    parts += ["## Time on this machine", _stages(report)]
    for advice in report.thresholds:
        parts += [f"## Answering at all: {_plain(advice.variant)}", _plain(advice.why)]
    return "\n\n".join(parts) + "\n"


def report_csv(report: Report) -> str:
    """One row for each order: means with their intervals, headroom, differences."""
    head = ["order", "kind", "depth", "questions"]
    head += [f"{measure_}{end}" for measure_ in SHOWN for end in ("", " low", " high")]
    head.append("headroom won")
    pairs = [(rival, measure_) for rival in report.rivals for measure_ in COMPARED]
    for rival, measure_ in pairs:
        head += [f"{measure_} against {rival}{end}" for end in ("", " low", " high", " p")]
    rows: list[list[object]] = []
    for row in report.rows:
        cells: list[object] = [row.variant.name, row.variant.kind, row.variant.depth, report.questions]
        for measure_ in SHOWN:
            mean = row.means[measure_]
            cells += [mean.mean, mean.low, mean.high]
        cells.append("" if row.headroom is None else row.headroom)
        for rival, measure_ in pairs:
            gain = row.gains[rival][measure_] if rival in row.gains else None
            cells += [gain.mean, gain.low, gain.high, gain.p] if gain else [""] * 4
        rows.append(cells)
    return _csv([head, *rows])


def questions_csv(run: Run) -> str:
    """One row for each question and order: the ranks of its relevant passages, and the measures."""
    results = wanting(run)
    values = measure(results, run.header.variants)
    rows: list[list[object]] = [["id", "question", "order", "ranks of the relevant passages", *SHOWN]]
    for number, result in enumerate(results):
        for variant in run.header.variants:
            ranks = result.outcomes[variant.name].ranks
            rows.append(
                [
                    result.question.id,
                    result.question.text,
                    variant.name,
                    " ".join("none" if rank is None else str(rank) for rank in ranks),
                    *(float(values[variant.name][measure_][number]) for measure_ in SHOWN),
                ]
            )
    return _csv(rows)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([[safe_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])
    return out.getvalue()


def _summary(report: Report) -> str:
    header = report.header
    corpus = header.corpus
    asked = f"{report.questions:,} questions"
    if report.unanswerable:
        asked += f" (and {report.unanswerable:,} that the documents do not answer)"
    if not report.finished:
        asked += f", stopped early: the set has {header.questions:,}"
    named = [f"{model.name} ({model.device}{_revision(model.revision)})" for model in header.models]
    models = "; ".join(dict.fromkeys(named))
    ceiling = report.ceilings[report.ceiling]
    return _plain(
        f"{asked}; {corpus.documents:,} documents, {corpus.chunks:,} chunks, "
        f"fingerprint {corpus.fingerprint[:12]}. Bi-encoder {header.embedder} ({header.device}); "
        f"reranker {models}. "
        f"Ceiling recall@{report.ceiling} {ceiling:.3f}. Begun {report.begun}."
    )


def _revision(revision: str) -> str:
    return f", {revision[:12]}" if revision else ""


def _orders(report: Report) -> str:
    rows = [["order", *SHOWN, "headroom won"]]
    for row in report.rows:
        won = "" if row.headroom is None else f"{row.headroom:.0%}"
        rows.append([_plain(row.variant.name), *(f"{row.means[one].mean:.3f}" for one in SHOWN), won])
    return table(rows)


def _differences(report: Report, rival: str) -> str:
    """All orders against the bi-encoder, the reranked ones against a cheap rival, other rerankers' against one."""
    (against,) = [row.variant for row in report.rows if row.variant.name == rival]
    rows = [["order", *COMPARED]]
    for row in report.rows:
        told = against.kind == "bi-encoder" or row.variant.kind == "reranked"
        if rival in row.gains and told and not (against.curve and row.variant.curve == against.curve):
            gains = [row.gains[rival][measure_] for measure_ in COMPARED]
            cells = [f"{gain} ({gain.won}, {gain.tied}, {gain.lost})" for gain in gains]
            rows.append([_plain(row.variant.name), *cells])
    return table(rows)


def _depths(curve: Curve) -> str:
    rows = [["depth", MEASURE, "against the bi-encoder", "ceiling", "p50 ms", "p95 ms", ""]]
    for point in curve.points:
        mark = "worth it" if point.depth == curve.worth else ""
        rows.append(
            [
                str(point.depth),
                str(point.quality),
                str(point.gain),
                f"{point.ceiling:.3f}",
                f"{point.p50:.0f}",
                f"{point.p95:.0f}",
                mark,
            ]
        )
    return table(rows)


def _stages(report: Report) -> str:
    rows = [["stage", "p50 ms", "p95 ms"]]
    rows += [[_plain(stage.name), f"{stage.p50:.1f}", f"{stage.p95:.1f}"] for stage in report.stages]
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the head, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _plain(text: str) -> str:
    """Text on one line that Markdown leaves as it is, whatever a file or a question set is called."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def comparison_markdown(comparison: RunComparison, first: str, second: str) -> str:
    """Two runs side by side, for people."""
    left_out = f" {comparison.left_out:,} others are in one of them alone." if comparison.left_out else ""
    changed = comparison.changed or ("Nothing that the runs record is different.",)
    rows = [["order", *COMPARED, "won, tied, lost", "verdict"]]
    for name, gains in comparison.gains.items():
        verdict = comparison.verdicts[name]
        seen = verdict.difference
        more = f" (about {verdict.needed:,} would do)" if verdict.needed else ""
        rows.append(
            [
                _plain(name),
                *(str(gains[measure_]) for measure_ in COMPARED),
                f"{seen.won}, {seen.tied}, {seen.lost}",
                f"{_CHANGE[verdict.word]}{more}",
            ]
        )
    parts = [
        f"# {_plain(second)} against {_plain(first)}",
        f"{comparison.questions:,} questions are in both.{left_out}",
        "\n".join(f"- {_plain(one)}" for one in changed),
        "Mean difference, second minus first, with its 95 % bootstrap interval.",
        table(rows),
    ]
    return "\n\n".join(parts) + "\n"
