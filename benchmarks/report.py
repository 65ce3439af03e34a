"""The report: a table, the targets, a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Measurement", "chart", "joined", "line", "tell"]


@dataclass(frozen=True)
class Measurement:
    """One finding. Rates are a second, CPU is in microseconds a request, latencies too.

    Of `start` the rate is seconds, of `memory-…` it is MiB.
    """

    lane: str
    server: str
    row: str
    round: int
    rate: float
    cpu: float = 0.0
    database_cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    #: The part of a core that the generator needed; near 1 it was the one that was measured.
    generator: float = 0.0
    #: So many cores somebody else kept busy meanwhile.
    others: float = 0.0
    requests: int = 0
    refused: int = 0
    faults: int = 0
    example: str = ""

    @property
    def busy(self) -> float:
        """The part of a core that the server had. Far below 1, it waited: for its disk, for the
        generator, or because somebody else had the core.
        """
        return self.cpu * self.rate / 1e6


def joined(parts: Sequence[Measurement]) -> Measurement:
    """Several short passes as one finding."""
    total = sum(part.requests for part in parts)

    def mean(of: Callable[[Measurement], float]) -> float:
        return sum(of(part) * part.requests for part in parts) / max(total, 1)

    first = parts[0]
    return Measurement(
        first.lane, first.server, first.row, first.round,
        rate=total / (sum(part.requests / part.rate for part in parts if part.rate) or 1),
        cpu=mean(lambda part: part.cpu), database_cpu=mean(lambda part: part.database_cpu),
        p50=mean(lambda part: part.p50), p99=max(part.p99 for part in parts),
        generator=mean(lambda part: part.generator), others=mean(lambda part: part.others),
        requests=total,
        refused=sum(part.refused for part in parts),
        faults=sum(part.faults for part in parts),
        example=next((part.example for part in parts if part.example), ""),
    )  # fmt: skip


def line(made: Measurement) -> str:
    """A finding as one line, while the run goes on."""
    text = f"{made.lane:9}{made.round:2}  {made.server:20}{made.row:15}{made.rate:12,.2f}"
    if made.cpu:
        text += f"  cpu {made.cpu:8.1f} µs  busy {made.busy:4.0%}"
    if made.database_cpu:
        text += f" + {made.database_cpu:.1f} µs"
    if made.p50:
        text += f"  p50 {made.p50:8.0f}  p99 {made.p99:8.0f} µs  generator {made.generator:.0%}"
        text += f"  others {made.others:.1f}"
    if made.refused:
        text += f"  refused {made.refused}"
    if made.faults:
        text += f"  FAULTS {made.faults}: {made.example[:200]}"
    return text


class Findings:
    """Medians over rounds, and ratios within rounds."""

    def __init__(self, found: Sequence[Measurement]) -> None:
        self.found = found

    def of(self, server: str, row: str, lane: str = "pinned") -> dict[int, Measurement]:
        """A row's findings by round."""
        return {
            made.round: made
            for made in self.found
            if (made.server, made.row, made.lane) == (server, row, lane)
        }

    def middle(self, server: str, row: str, lane: str, what: str) -> float | None:
        """The median of a number over the rounds."""
        values = [getattr(made, what) for made in self.of(server, row, lane).values()]
        return median(values) if values else None

    def ratio(
        self,
        one: tuple[str, str],
        other: tuple[str, str],
        *,
        lane: str = "pinned",
        by_cpu: bool = False,
    ) -> float | None:
        """The median of the rounds' ratios: how much faster, or how much less CPU."""
        mine, theirs = self.of(*one, lane), self.of(*other, lane)
        ratios = []
        for number in mine.keys() & theirs.keys():
            if by_cpu:
                top, bottom = theirs[number].cpu, mine[number].cpu + mine[number].database_cpu
            else:
                top, bottom = mine[number].rate, theirs[number].rate
            if top and bottom:
                ratios.append(top / bottom)
        return median(ratios) if ratios else None


# ---------------------------------------------------------------- the targets

OURS = "hupan-sqlite"
#: So many cores may others keep busy without anybody being told.
QUIET = 0.2


@dataclass(frozen=True)
class Target:
    """What a number should be: at least (or at most) so much."""

    what: str
    limit: float
    found: float | None
    by_cpu: float | None = None
    at_most: bool = False
    #: Why it cannot be measured here.
    not_here: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `MISS`, or why there is none."""
        if self.not_here:
            return self.not_here
        if self.found is None:
            return "not measured"
        good = self.found <= self.limit if self.at_most else self.found >= self.limit
        return "pass" if good else "MISS"


def targets(findings: Findings, cores: int, interface: str) -> list[Target]:
    """All targets, on the pinned lane where nothing else is said."""
    ceiling = (f"ceiling-{interface}", "read")
    made: list[Target] = []

    def compare(what: str, limit: float, mine: str, theirs: tuple[str, str]) -> None:
        made.append(
            Target(
                what,
                limit,
                findings.ratio((OURS, mine), theirs),
                findings.ratio((OURS, mine), theirs, by_cpu=True),
            )
        )

    for row in ("info", "get-user"):
        compare(f"{row}, kept ÷ ceiling", 0.85, row, ceiling)
        compare(f"{row}, kept ÷ ceiling in our loop", 0.85, row, ("ceiling-loop", "read"))
        compare(f"{row}, kept ÷ PocketBase read", 20, row, ("pocketbase", "read"))
        compare(f"{row}, kept ÷ fastapi-users /users/me", 80, row, ("fastapi-users", "read"))
    posted = (f"ceiling-{interface}", "post")
    made.append(
        Target("get-user, kept ÷ ceiling that reads a body", 0.85,
               findings.ratio((OURS, "get-user"), posted),
               findings.ratio((OURS, "get-user"), posted, by_cpu=True), not_here="to compare")
    )  # fmt: skip
    few = "" if cores >= 4 else f"not measurable here ({cores} cores)"
    for row in ("info", "get-user"):
        two = findings.ratio(("hupan-sqlite-2w", row), (OURS, row), lane="unpinned")
        made.append(Target(f"{row}, two workers ÷ one (unpinned)", 1.8, two, not_here=few))
    compare("info, not kept ÷ ceiling", 0.30, "info-cold", ceiling)
    grown = findings.ratio(("hupan-sqlite-small", "info-cold"), (OURS, "info-cold"))
    lean = findings.ratio((OURS, "info-cold"), ("hupan-sqlite-small", "info-cold"), by_cpu=True)
    made.append(
        Target("info, not kept: 1,000 people ÷ many", 1.3, grown, lean and 1 / lean, at_most=True)
    )
    compare("email-login ÷ bare argon2id", 0.90, "email-login", ("bare", "argon2id"))
    compare("email-login ÷ PocketBase login", 1.0, "email-login", ("pocketbase", "login"))
    for row in ("edit-nickname", "save-user-data"):
        compare(f"{row} ÷ PocketBase update", 8, row, ("pocketbase", "update"))
        compare(f"{row} ÷ bare group commit", 0.50, row, ("bare", "group-commit"))
    compare("first edit-avatar ÷ PocketBase update", 5, "edit-avatar", ("pocketbase", "update"))
    for row in ("info", "get-user"):
        peaks, steady = findings.of(OURS, row), findings.of(OURS, f"{row}@70%")
        # Where half of the answers take as long as at the peak, the rate was not kept: somebody
        # took the core away, and a queue without an end has no tail.
        tails = [
            one.p99 / one.p50
            for number, one in steady.items()
            if number in peaks and one.p50 and one.p50 < peaks[number].p50
        ]
        tail = median(tails) if tails else None
        gone = "" if tails or not steady else "not measurable: the rate was not kept"
        made.append(
            Target(f"{row}: p99 ÷ p50 at 70 % of its peak", 5, tail, at_most=True, not_here=gone)
        )

    def plain(what: str, limit: float, row: str) -> None:
        found = findings.middle(OURS, row, "pinned", "rate")
        made.append(Target(what, limit, found, at_most=True))

    plain("memory idle, MiB", 80, "memory-idle")
    kept = findings.of(OURS, "memory-kept").get(0)
    plain(f"memory with {kept.requests if kept else 200_000:,} tokens kept, MiB", 200,
          "memory-kept")  # fmt: skip
    plain("start, seconds", 0.8, "start")
    made.append(
        Target("reads during the storm ÷ without it", 0.70,
               findings.ratio((OURS, "storm"), (OURS, "calm")))
    )  # fmt: skip
    return made


# ---------------------------------------------------------------- the text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[place]) for line in (head, *rows)) for place in range(len(head))]

    def one(cells: Sequence[str]) -> str:
        # The first column is words, the others are numbers.
        padded = [cell.ljust(w) if not n else cell.rjust(w)
                  for n, (cell, w) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for n, w in enumerate(widths)) + "|"
    return [one(head), rule, *(one(cells) for cells in rows)]


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None or value == 0 else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return f"{value:.0%}" if value else ""


def tell(found: Sequence[Measurement], about: dict[str, object]) -> str:
    """The whole report as Markdown."""
    findings = Findings(found)
    interface = str(about["interface"])
    lines = ["", "# Benchmark", "", ", ".join(f"{key} {value}" for key, value in about.items())]
    busy = [made.others for made in found if made.p50]
    if busy and median(busy) > QUIET:
        lines += [
            "",
            f"Others kept {median(busy):.1f} cores busy meanwhile: requests/s and latencies say"
            " little, CPU µs and the ratios by CPU say more.",
        ]
    for lane in dict.fromkeys(made.lane for made in found):
        lines += ["", f"## {lane}", ""]
        pairs = dict.fromkeys((made.row, made.server) for made in found if made.lane == lane)
        rows = []
        for row, server in pairs:

            def middle(what: str, row: str = row, server: str = server) -> float | None:
                return findings.middle(server, row, lane, what)  # noqa: B023  # Used at once.

            of_ceiling = None
            if row in ("info", "get-user", "info-cold", "read", "post"):
                of_ceiling = findings.ratio(
                    (server, row), (f"ceiling-{interface}", "read"), lane=lane
                )
            rows.append([
                f"{server} {row}", _number(middle("rate"), 2 if row == "start" else 0),
                _number(middle("cpu")), _number(middle("database_cpu")),
                _percent(middle("busy")), _number(middle("others")),
                _number(middle("p50"), 0), _number(middle("p99"), 0), _number(of_ceiling, 3),
                str(sum(made.refused for made in findings.of(server, row, lane).values()) or ""),
                str(sum(made.faults for made in findings.of(server, row, lane).values())),
            ])  # fmt: skip
        head = ["", "requests/s", "CPU µs", "database µs", "busy", "others", "p50 µs", "p99 µs",
                "÷ ceiling", "refused", "faults"]  # fmt: skip
        lines += _table(head, rows)
    lines += ["", "## Targets", ""]
    told = targets(findings, int(str(about["cores"])), interface)
    lines += _table(
        ["one worker, pinned, SQLite", "found", "by CPU", "target", ""],
        [
            [
                one.what, _number(one.found, 2), _number(one.by_cpu, 2),
                f"{'≤' if one.at_most else '≥'} {one.limit:g}", one.verdict,
            ]
            for one in told
        ],
    )  # fmt: skip
    return "\n".join(lines)


# ---------------------------------------------------------------- the chart


def chart(found: Sequence[Measurement]) -> str:
    """Requests a second as bars, readable on light and on dark paper."""
    findings = Findings(found)
    lanes = list(dict.fromkeys(made.lane for made in found))
    lane = "pinned" if "pinned" in lanes else (lanes or [""])[0]
    bars: list[tuple[str, str, float]] = []
    for row, server in dict.fromkeys((m.row, m.server) for m in found if m.lane == lane):
        rate = findings.middle(server, row, lane, "rate")
        if rate and not row.startswith(("start", "memory")):
            bars.append((f"{server} {row}", server.partition("-")[0], rate))
    width, left, step = 860, 260, 20
    top = max((rate for _, _, rate in bars), default=1.0)
    height = 40 + step * len(bars)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        "<style>text{fill:#24292f}.hupan{fill:#0969da}.ceiling{fill:#8c959f}.bare{fill:#8c959f}"
        ".pocketbase{fill:#bf3989}.fastapi{fill:#1a7f37}"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.hupan{fill:#58a6ff}"
        ".pocketbase{fill:#f778ba}.fastapi{fill:#56d364}}</style>",
        f'<text x="{left}" y="20">requests a second, {lane}; the bars are linear</text>',
    ]
    for place, (label, kind, rate) in enumerate(bars):
        y = 34 + step * place
        length = max(1.0, rate / top * (width - left - 90))
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{label}</text>')
        out.append(
            f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{step - 5}"'
            ' rx="2"/>'
        )
        out.append(f'<text x="{left + length + 6:.1f}" y="{y + 12}">{rate:,.0f}</text>')
    return "\n".join([*out, "</svg>", ""])
