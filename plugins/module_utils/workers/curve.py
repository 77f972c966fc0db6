"""What tune.yml measured, to look at: a curve as PNG and SVG, an HTML page that needs nothing else, a table as text.

Drawn with matplotlib, on the controller; nothing but the drawing needs it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from .choice import ENOUGH, paired

try:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator
except ImportError:
    CAN_DRAW = False
else:
    CAN_DRAW = True

BLUE, ORANGE, GREEN, RED, GREY = "#0b5394", "#b45309", "#166534", "#b91c1c", "#57606a"
#: From here on, numbers are shown whole; so many times more workers than the fewest, and they are shown on a log scale.
WHOLE, WIDE = 100, 16
#: The figures of a round, with their headings.
COLUMNS = {
    "throughput": "requests/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "cpu_ms": "CPU/request, ms",
    "pss_mib": "memory, MiB",
}


def by_number(rounds: Sequence[Mapping[str, Any]], figure: str) -> dict[int, list[float]]:
    """Return one figure of all rounds by number of workers, in the order of the rounds."""
    values: dict[int, list[float]] = {}
    for entry in sorted(rounds, key=lambda entry: (entry["workers"], entry["round"])):
        values.setdefault(entry["workers"], []).append(float(entry[figure]))
    return values


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each number: medians over its rounds, throughput in terms of the best, and what it is."""
    figures = {name: by_number(result["rounds"], name) for name in COLUMNS}
    figures["throughput"] = paired(figures["throughput"])
    best = median(figures["throughput"][result["choice"]["best"]])
    table = []
    for number in figures["throughput"]:
        marks = {
            "chosen": result["choice"]["workers"], "live": result["live"], "rule of thumb": result["rule"],
            "best": result["choice"]["best"],
        }  # fmt: skip
        names = [name for name, value in marks.items() if value == number]
        names += ["over memory"] if number > result["most"] else []
        medians = {name: median(values[number]) for name, values in figures.items()}
        table.append({"workers": number, **medians, "ratio": medians["throughput"] / best, "what": ", ".join(names)})
    return table


def short(value: float) -> str:
    """Return a number with three significant digits, larger ones whole."""
    return f"{value:.0f}" if value >= WHOLE else f"{value:.3g}"


def as_text(result: Mapping[str, Any]) -> str:
    """Return the table and the sentence for a terminal."""
    heads = ["WORKERS", *(text.upper() for text in COLUMNS.values()), "OF BEST", ""]
    table = [heads]
    for row in rows(result):
        table.append([str(row["workers"]), *(short(row[name]) for name in COLUMNS), f"{row['ratio']:.2f}", row["what"]])
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]]).rstrip()
        for line in table
    ]
    return "\n".join([*lines, "", result["sentence"], *result["notes"]])


def figure(result: Mapping[str, Any], titled: bool) -> Any:
    """Draw throughput and latency over workers, with the memory line, the rule of thumb and the choice marked."""
    speed, p50, p99 = (by_number(result["rounds"], name) for name in ("throughput", "p50_ms", "p99_ms"))
    speed = paired(speed)
    numbers = sorted(speed)
    chosen, rule, most = result["choice"]["workers"], result["rule"], result["most"]
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    if titled:
        drawing.suptitle(f"{result['app']} on {result['host']}: {result['headline']}", fontsize=13)

    middle = [median(speed[number]) for number in numbers]
    best = median(speed[result["choice"]["best"]])
    above.axhspan(ENOUGH * best, best, color=GREEN, alpha=0.18, lw=0, label="within 3 % of the best")
    for number in numbers:
        above.plot([number] * len(speed[number]), speed[number], "o", ms=5, color=BLUE, alpha=0.35, mew=0)
    above.plot(numbers, middle, "-o", color=BLUE, lw=2, ms=6, label="throughput, median (dots: rounds)")
    above.set_ylabel("requests per second")
    above.set_ylim(bottom=0, top=1.18 * max(map(max, speed.values())))
    below.plot(numbers, [median(p99[n]) for n in numbers], "-s", color=ORANGE, lw=2, ms=5, label="p99")
    below.plot(numbers, [median(p50[n]) for n in numbers], ":s", color=ORANGE, lw=1.5, ms=4, alpha=0.8, label="p50")
    below.set_ylabel("latency, ms")
    below.set_ylim(bottom=0)
    below.set_xlabel("workers")
    memory_shown = most <= 1.5 * numbers[-1]
    right = max(numbers[-1], rule, most if memory_shown else 0)
    for axes in (above, below):
        axes.axvline(rule, color=GREY, ls="--", lw=1.5, label=f"rule of thumb: {rule}")
        if memory_shown:
            axes.axvline(most, color=RED, ls="-.", lw=1.8, label=f"memory holds {most}")
            axes.axvspan(most, right + 1, color=RED, alpha=0.07, lw=0)
        axes.axvline(chosen, color=GREEN, lw=2.5, label=f"chosen: {chosen}")
        axes.grid(axis="y", color="#d0d7de", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    above.plot([chosen], [median(speed[chosen])], "*", color=GREEN, ms=18, mec="white", zorder=5)
    if right > WIDE * numbers[0]:
        above.set_xscale("log", base=2)
    below.xaxis.set_major_locator(FixedLocator(sorted({*numbers, rule, *([most] if memory_shown else [])})))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_major_formatter("{x:g}")
    above.set_xlim(numbers[0] * 0.6, right * 1.04 + 0.3)
    handles, labels = above.get_legend_handles_labels()
    if not memory_shown:
        handles.append(above.plot([], [], " ")[0])
        labels.append(f"memory holds {most}, to the right of this")
    above.legend(handles, labels, loc="lower right", ncols=2, fontsize=9, framealpha=0.92)
    below.legend(*[part[:2] for part in below.get_legend_handles_labels()], loc="best", fontsize=9, framealpha=0.92)
    return drawing


def draw(result: Mapping[str, Any], kind: str) -> bytes:
    """Return the curve as `png`, or as `svg` for a page that has the title itself; equal for equal figures."""
    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tune", "font.family": "sans-serif"}):
        figure(result, titled=kind != "svg").savefig(stream, format=kind, dpi=110, metadata=metadata)
    return stream.getvalue()


def page(result: Mapping[str, Any]) -> str:
    """Return the HTML page: the sentence, the curve, the table of its numbers, how they were measured."""
    svg = draw(result, "svg").decode()
    svg = svg[svg.index("<svg") :]
    label = escape(f"Throughput and latency over workers. {result['sentence']}", quote=True)
    svg = re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', svg, count=1)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    heads = "".join(
        f'<th scope="col">{escape(text)}</th>' for text in ["workers", *COLUMNS.values(), "of best", "what"]
    )
    body = []
    for row in rows(result):
        cells = [short(row[name]) for name in COLUMNS] + [f"{row['ratio']:.2f}", escape(row["what"])]
        chosen = ' class="chosen"' if row["workers"] == result["choice"]["workers"] else ""
        text = "".join(f"<td>{cell}</td>" for cell in cells)
        body.append(f'<tr{chosen}><th scope="row">{row["workers"]}</th>{text}</tr>')
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in result["facts"].items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in result["notes"])
    title = escape(f"{result['app']} on {result['host']}: {result['headline']}")
    return PAGE.format(
        title=title, sentence=escape(result["sentence"]), svg=svg, heads=heads, rows="\n".join(body), facts=facts,
        notes=f"<ul>{notes}</ul>" if notes else "",
    )  # fmt: skip


def write(result: Mapping[str, Any], folder: Path) -> list[str]:
    """Write HOST.png, HOST.html and HOST.json to a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", str(result["host"]))
    contents = {
        "png": draw(result, "png"),
        "html": page(result).encode(),
        "json": json.dumps(result, indent=1).encode() + b"\n",
    }
    paths = [folder / f"{name}.{kind}" for kind in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #f6f8fa; margin: 0; }}
main {{ max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }}
figure, .table {{ background: #fff; border: 1px solid #d0d7de; border-radius: .5rem; margin: 1.25rem 0; }}
figure {{ padding: .5rem; }}
figure svg {{ display: block; width: 100%; height: auto; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eaeef2; }}
td:last-child, thead th:last-child {{ text-align: left; }}
tr.chosen {{ background: #dcfce7; }}
tr.chosen th {{ color: #166534; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }}
dt {{ color: #57606a; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{ dl {{ display: block; }} dd {{ margin-bottom: .5rem; }} }}
</style>
<main>
<h1>{title}</h1>
<p>{sentence}</p>
{notes}
<figure>{svg}</figure>
<div class="table" role="region" aria-label="figures" tabindex="0"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<h2>How it was measured</h2>
<dl>{facts}</dl>
</main>
</html>
"""
