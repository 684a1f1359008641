"""Loss curves of pre-training runs as one SVG file: training and held-out masked-word loss against minutes.

The held-out loss stands beside the loss of a guess by word frequency alone (dashed), which a model must beat.

    python bench/draw_curves.py docs/curves.svg "English=runs/english-20" "Chinese, whole words=runs/chinese-20"
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.training.track import read_metrics

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 300, 46, 42, 34
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """Of one run, each point (minutes, nats)."""

    title: str
    training: Points
    held_out: Points
    by_frequency: float | None


def read(title: str, run: Path) -> Curves:
    folder = run / "pretrain" if (run / "pretrain").is_dir() else run
    training: Points = []
    held_out: Points = []
    by_frequency = None
    for event in read_metrics(folder / "metrics.jsonl"):
        minutes = event.get("elapsed_seconds", 0) / 60
        if event["event"] == "step" and event["losses"].get("mlm") is not None:
            training.append((minutes, event["losses"]["mlm"]))
        elif event["event"] == "evaluation":
            held_out.append((minutes, event["losses"]["mlm"]))
            by_frequency = event.get("unigram_entropy") or by_frequency
    return Curves(title, training, held_out, by_frequency)


def smoothed(points: Points, window: int = 9) -> Points:
    """Mean over neighbours, so that the course shows among the batches."""
    half = window // 2
    found = []
    for number, (minutes, _) in enumerate(points):
        near = [value for _, value in points[max(0, number - half) : number + half + 1]]
        found.append((minutes, sum(near) / len(near)))
    return found


def draw(all_curves: Sequence[Curves]) -> str:
    total = WIDTH * len(all_curves)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {HEIGHT}" width="{total}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{total}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for number, curves in enumerate(all_curves):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(curves), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(curves: Curves) -> list[str]:
    values = [value for _, value in (*curves.training, *curves.held_out)] + [curves.by_frequency or 0]
    low, high = int(min(value for value in values if value)), int(max(values)) + 1
    longest = max(minutes for minutes, _ in (*curves.training, *curves.held_out))

    def at(minutes: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 12) * minutes / longest
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    def line(points: Points, colour: str, more: str = "") -> str:
        spots = " ".join(at(*point) for point in points)
        return f'<polyline points="{spots}" fill="none" stroke="{colour}" stroke-width="1.6" {more}/>'

    last = curves.held_out[-1][1]
    parts = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{curves.title}</text>']
    for value in range(low, high + 1):
        x, y = at(0, value).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - 12}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{value}</text>')
    for minutes in range(0, int(longest) + 1, 5):
        x, y = at(minutes, low).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{minutes}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">minutes</text>')
    if curves.by_frequency:
        parts.append(line([(0, curves.by_frequency), (longest, curves.by_frequency)], "#888", 'stroke-dasharray="5 4"'))
        x, y = at(longest, curves.by_frequency).split(",")
        parts.append(
            f'<text x="{x}" y="{float(y) - 5}" text-anchor="end" fill="#666">by frequency alone '
            f"{curves.by_frequency:.2f}</text>"
        )
    parts += [line(smoothed(curves.training), "#9dbce0"), line(curves.held_out, "#c0392b")]
    parts += [
        f'<circle cx="{x}" cy="{y}" r="2.5" fill="#c0392b"/>' for x, y in (at(*p).split(",") for p in curves.held_out)
    ]
    x, y = at(longest, last).split(",")
    parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="end" fill="#c0392b">held out {last:.2f}</text>')
    x, y = at(longest * 0.35, curves.training[len(curves.training) // 3][1]).split(",")
    parts.append(f'<text x="{x}" y="{float(y) - 12}" fill="#5b86b5">training</text>')
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="TITLE=RUN")
    options = parser.parse_args()
    curves = [read(title, Path(run)) for title, _, run in (text.partition("=") for text in options.runs)]
    options.out.write_text(draw(curves), encoding="utf-8")
    for one in curves:
        frequency = one.by_frequency or 0.0
        print(f"{one.title}: held out {one.held_out[-1][1]:.4f}, by frequency alone {frequency:.4f}")


if __name__ == "__main__":
    main()
