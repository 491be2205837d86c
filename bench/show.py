"""Tables as text and Markdown, plots, and where results are kept."""
import json, math, os, time

COLOUR = {"kiln": "#d1495b", "docker": "#2e86ab", "buildkit": "#66a182", "buildah": "#9aa5b1", "limit": "#edae49"}


def seconds(v):
    return "" if v is None else f"{v * 1000:.1f} ms" if v < 0.1 else f"{v:.3f} s" if v < 10 else f"{v:.1f} s"


def megabytes(v):
    return "" if v is None else f"{v / 1e6:.1f} MB" if v < 1e8 else f"{v / 1e6:.0f} MB"


def table(title, head, rows):
    """The same table as text and as Markdown."""
    width = [max(len(it[i]) for it in [head] + rows) for i in range(len(head))]
    text = [title]
    for row in [head] + rows:
        text.append("  " + "  ".join(it.ljust(width[0]) if i == 0 else it.rjust(width[i]) for i, it in enumerate(row)).rstrip())
    rule = ["---"] + ["--:"] * (len(head) - 1)
    lines = [f"## {title}", ""] + ["| " + " | ".join(row) + " |" for row in [head, rule] + rows] + [""]
    return "\n".join(text), "\n".join(lines)


def keep(results, command, begun, shown, ending=""):
    """Writes results as JSON and their tables as Markdown; returns the path but for its extension."""
    m, folder = results["machine"], os.path.dirname(os.path.abspath(__file__)) + "/results"
    out = f"{folder}/{results['date'][:19].replace(':', '')}-{results['commit']}{ending}"
    os.makedirs(folder, exist_ok=True)
    with open(out + ".json", "w") as f:
        json.dump(results, f, indent=1)
        f.write("\n")
    versions = "".join(f"{it}, " for it in results.get("versions", {}).values())[:-2]
    with open(out + ".md", "w") as f:
        f.write(f"# {command}, {results['date'][:10]}, commit {results['commit']}\n\n{m['processor']}, {m['cores']} cores, {m['memory_bytes'] / 2 ** 30:.0f} GiB, "
                f"Linux {m['kernel']}, {m['file_system']}. " + (versions and versions + ". ") + f"Took {(time.time() - begun) / 60:.0f} minutes.\n\n")
        f.write("\n".join(text for _, text in shown))
    return out


def bars(cases, names, path):
    """Grouped bars on a logarithmic axis: `cases` is a list of (text, {name: seconds})."""
    bar, gap, left, width = 14, 18, 240, 620
    values = [v for _, by_name in cases for v in by_name.values() if v]
    lo, hi = -3.5, max(1.0, math.ceil(math.log10(max(values)) * 2) / 2)

    def x(s):
        return left + (max(math.log10(max(s, 1e-4)), lo) - lo) / (hi - lo) * width
    height = 50 + len(cases) * (bar * len(names) + gap) + 30
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" font-family="sans-serif" font-size="12">',
         '<rect width="100%" height="100%" fill="white"/>',
         '<text x="10" y="20" font-size="14">Seconds, median, logarithmic: shorter is better</text>']
    for i, n in enumerate(names):
        o.append(f'<rect x="{left + i * 100}" y="28" width="12" height="12" fill="{COLOUR[n]}"/><text x="{left + 17 + i * 100}" y="38">{n}</text>')
    for p in range(math.ceil(lo), math.floor(hi) + 1):
        o.append(f'<line x1="{x(10 ** p):.1f}" x2="{x(10 ** p):.1f}" y1="46" y2="{height - 24}" stroke="#ddd"/><text x="{x(10 ** p):.1f}" y="{height - 8}" text-anchor="middle">{10 ** p:g} s</text>')
    y = 52
    for text, by_name in cases:
        o.append(f'<text x="{left - 10}" y="{y + bar * len(names) / 2 + 4}" text-anchor="end">{text}</text>')
        for n in names:
            if by_name.get(n):
                m = by_name[n]
                o.append(f'<rect x="{left}" y="{y}" width="{max(1, x(m) - left):.1f}" height="{bar - 2}" fill="{COLOUR[n]}"/><text x="{x(m) + 5:.1f}" y="{y + bar - 3}">{m:.3g}</text>')
            y += bar
        y += gap
    with open(path, "w") as f:
        f.write("\n".join(o + ["</svg>", ""]))


def curves(panels, path):
    """One plot for each (title, unit, {name: [(x, y)]}), both axes logarithmic."""
    w, h, pad, colours = 380, 260, 56, ["#d1495b", "#2e86ab", "#66a182", "#edae49"]
    columns = 2
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * w}" height="{math.ceil(len(panels) / columns) * h}" font-family="sans-serif" font-size="11">',
         '<rect width="100%" height="100%" fill="white"/>']
    for nth, (title, unit, lines) in enumerate(panels):
        left, top = nth % columns * w, nth // columns * h
        points = [p for line in lines.values() for p in line if p[1]]
        if not points:
            continue
        x0, x1 = (f(math.log10(p[0]) for p in points) for f in (min, max))
        y0, y1 = math.floor(min(math.log10(p[1]) for p in points)), math.ceil(max(math.log10(p[1]) for p in points))
        y1 = max(y1, y0 + 1)

        def at(p):
            fx = (math.log10(p[0]) - x0) / ((x1 - x0) or 1)
            fy = (math.log10(p[1]) - y0) / (y1 - y0)
            return left + pad + fx * (w - pad - 20), top + h - 40 - fy * (h - 80)
        o.append(f'<text x="{left + pad}" y="{top + 18}" font-size="13">{title}</text>')
        for p in range(y0, y1 + 1):
            _, y = at((10 ** x0, 10 ** p))
            o.append(f'<line x1="{left + pad}" x2="{left + w - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/><text x="{left + pad - 6}" y="{y + 4:.1f}" text-anchor="end">{10 ** p:g}{unit}</text>')
        for p in sorted({p[0] for p in points}):
            x, _ = at((p, 10 ** y0))
            o.append(f'<text x="{x:.1f}" y="{top + h - 24}" text-anchor="middle">{p:,}</text>')
        for i, (name, line) in enumerate(lines.items()):
            c = colours[i % len(colours)]
            d = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p) for p in line if p[1]))
            o.append(f'<polyline points="{d}" fill="none" stroke="{c}" stroke-width="2"/>')
            o += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{c}"/>' for x, y in (at(p) for p in line if p[1])]
            o.append(f'<text x="{left + pad + 4}" y="{top + 34 + 13 * i}" fill="{c}">{name}</text>')
    with open(path, "w") as f:
        f.write("\n".join(o + ["</svg>", ""]))
