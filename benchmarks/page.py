"""The page of results, docs/performance.md, and its figures: from what benchmarks keep in benchmarks/results.

    python benchmarks/page.py

Of each benchmark and device the newest results count. What stands in the page above its mark is written by
hand and stays.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from measured import RESULTS, Table, label, shown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARK = "<!-- From here on by benchmarks/page.py, out of benchmarks/results. -->"
TITLES = {
    "training": "Training throughput",
    "training-smm": "Training throughput with modulation",
    "modulation": "What modulation costs",
    "dilation": "Modulated masks",
    "arithmetic": "Share of the attainable arithmetic",
    "losses": "Losses",
    "tiled-prediction": "Tiled prediction",
    "conformal": "Thresholds with a guarantee",
    "startup": "From the command to the first step",
    "window": "The window",
    "settings": "Settings chosen by measurement",
    "settings-instance": "Settings with instance norm",
    "processes": "Several processes",
    "growth": "Growth with the number of images",
    "long-run": "Growth with the number of epochs",
}
"""Benchmark → heading, in the page's order; others come behind."""
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's, which colour-blind people tell apart; each line has a mark of its own besides."""
MARKS = "os^Dvx"
INK = {True: "#FFFFFF", False: "#1A1A1A"}
"""Of numbers in bars, by whether they are the engine's."""

Result = dict[str, Any]


def main() -> None:
    found = newest(RESULTS)
    PAGE.parent.joinpath("images").mkdir(exist_ok=True)
    parts = [summary(found)]
    for result in found:
        parts.append(section(result))
    hand = PAGE.read_text("utf-8").partition(MARK)[0].rstrip() if PAGE.is_file() else "# Performance"
    PAGE.write_text(f"{hand}\n\n{MARK}\n\n" + "\n\n".join(parts) + "\n", "utf-8")
    print(f"{PAGE}: {len(found)} results")


def newest(folder: Path) -> list[Result]:
    """The newest results of each benchmark and device, in the page's order."""
    latest: dict[tuple[str, str], Result] = {}
    for path in sorted(folder.glob("*.json")):
        result: Result = json.loads(path.read_text("utf-8"))
        key = result["benchmark"], result["machine"]["device"]
        if key not in latest or latest[key]["date"] <= result["date"]:
            latest[key] = result
    order = {name: place for place, name in enumerate(TITLES)}
    return sorted(
        latest.values(),
        key=lambda result: (order.get(result["benchmark"], len(order)), result["machine"]["device"]),
    )


def summary(found: Sequence[Result]) -> str:
    """What was to be reached, and what was; of a benchmark with many bounds, the count and the lowest."""
    rows = []
    for result in found:
        name, device = heading(result), result["machine"]["device"]
        for group in grouped(result["targets"]):
            worst = min(group, key=slack)
            met = sum(each["met"] for each in group)
            what = worst["what"] if len(group) == 1 else f"{len(group)} figures, the worst: {worst['what']}"
            rows.append([
                f"[{name}](#{anchor(result)})", device, what, bound(worst),
                f"{shown(worst['measured'])} {worst['unit']}",
                "yes" if met == len(group) else (f"{met} of {len(group)}" if len(group) > 1 else "**no**"),
            ])  # fmt: skip
    columns = ["benchmark", "device", "what", "target", "measured", "reached"]
    return (
        "## Targets\n\n" + Table("targets", "What was to be reached, and what was", columns, rows).markdown()
    )


def grouped(targets: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Targets with the same bounds together, if there are more than six of them."""
    if len(targets) <= 6:
        return [[target] for target in targets]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for target in targets:
        groups.setdefault((target["least"], target["most"], target["unit"]), []).append(target)
    return list(groups.values())


def slack(target: dict[str, Any]) -> float:
    """How far a figure is from its bound, as a factor; below 1 it is missed."""
    if target["least"] is not None:
        return float(target["measured"] / target["least"])
    return float(target["most"] / max(target["measured"], 1e-12))


def bound(target: dict[str, Any]) -> str:
    if target["least"] is not None:
        return f"≥ {target['least']:g} {target['unit']}"
    return f"≤ {target['most']:g} {target['unit']}"


def heading(result: Result) -> str:
    name = result["benchmark"]
    return TITLES.get(name, name.replace("-", " ").replace("_", " ").capitalize())


def anchor(result: Result) -> str:
    """That of the section's title, as GitHub makes it."""
    kept = [c for c in title(result).lower() if c.isalnum() or c in " -"]
    return "".join(kept).replace(" ", "-")


def title(result: Result) -> str:
    return f"{heading(result)} on {result['machine']['device']}"


def section(result: Result) -> str:
    """One benchmark's results, with its figures."""
    machine, versions = result["machine"], result["versions"]
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"## {title(result)}",
        result["about"].strip().split("\n\n")[0].replace("\n", " "),
        f"`{result['command']}`",
        f"{machine['device']} ({machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['capability']}, {machine['memory_gb']} GB), {result['date'][:10]}, commit "
        f"{result['commit']}, load {machine['load']} at the end; Python {machine['python']}, {libraries}.",
    ]
    for given in result["tables"]:
        table = Table(**given)
        lines.append(table.markdown())
        draw = FIGURES.get(table.name.rstrip("0123456789").rstrip("-"))
        figure = None if draw is None else draw(table)
        if figure is not None:
            own = label(table.name.removeprefix(result["benchmark"]))
            name = f"performance-{result['benchmark']}-{own}-{label(machine['device'])}.png"
            figure.savefig(PAGE.parent / "images" / name, dpi=110, bbox_inches="tight")
            plt.close(figure)
            lines.append(f"![{table.title}](images/{name})")
    return "\n\n".join(lines)


def column(table: Table, name: str, rows: Sequence[Sequence[Any]] | None = None) -> list[Any]:
    """The cells of a column."""
    place = list(table.columns).index(name)
    return [row[place] for row in (table.rows if rows is None else rows)]


def bars(table: Table) -> Figure | None:
    """Throughput of each way, as bars, from the slowest round to the fastest."""
    names, values = column(table, table.columns[0]), column(table, table.columns[1])
    figure, axes = plt.subplots(figsize=(7, 0.38 * len(names) + 0.9))
    ours = [str(name).startswith("engine") for name in names]
    reach = [
        [abs(end - value) for end, value in zip(column(table, name), values, strict=True)]
        for name in ("slowest", "fastest")
    ]
    hues = [HUES[0] if mine else "#B0B0B0" for mine in ours]
    axes.barh(range(len(names)), values, color=hues, xerr=reach, ecolor="#1A1A1A", capsize=3)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(table.columns[1])
    axes.set_title(table.title, fontsize=10)
    for place, value in enumerate(values):
        axes.annotate(f" {shown(value)}", (0, place), va="center", fontsize=8, color=INK[ours[place]])
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def growth(table: Table) -> Figure | None:
    """Time and memory over the number of images, on logarithmic axes, with a line of slope one."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    kinds = list(dict.fromkeys(column(table, "kept in")))
    drawn = {"epoch s": "an epoch (s)", "without files MB": "memory without mapped files (MB)"}
    for axes, (name, said) in zip(panels, drawn.items(), strict=True):
        for number, kind in enumerate(kinds):
            rows = [row for row in table.rows if row[0] == kind]
            x, y = column(table, "images", rows), column(table, name, rows)
            axes.plot(x, y, marker=MARKS[number], color=HUES[number], label=f"cache: {kind}")
        counts, first = sorted(column(table, "images")), min(column(table, name))
        last = max(column(table, name))
        axes.plot(
            counts, [last * count / counts[-1] for count in counts], ":", color="#7A7A7A", label="slope 1"
        )
        axes.set(xscale="log", yscale="log", xlabel="images", ylabel=said)
        axes.set_ylim(bottom=max(first / 3, 1e-3))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(table.title, fontsize=10)
    figure.tight_layout()
    return figure


def epochs(table: Table) -> Figure | None:
    """What a run costs its viewer, over the number of its epochs."""
    names = ("event to layers ms", "callback ms", "longest callback ms", "look ms")
    if len(table.rows) < 2:
        return None
    figure, axes = plt.subplots(figsize=(7, 3.6))
    x = column(table, "epochs up to")
    for number, name in enumerate(names):
        axes.plot(
            x, column(table, name), marker=MARKS[number], color=HUES[number], label=name.removesuffix(" ms")
        )
    axes.axhline(50, color="#7A7A7A", ls=":", label="50 ms")
    axes.set(xscale="log", yscale="log", xlabel="epochs in the run", ylabel="ms")
    axes.set_title(table.title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


FIGURES: dict[str, Callable[[Table], Figure | None]] = {
    "training": bars,
    "epoch_by_images": growth,
    "run_by_epochs": epochs,
}
"""Name of a table, without the number at its end → its figure."""


if __name__ == "__main__":
    main()
