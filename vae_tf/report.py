"""Reports: `report.md`, `report.html` in one file that loads nothing, `metrics.json`, pictures."""

import base64
import html
import io
import json
import math
import os
import pathlib
import tempfile

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.3rem .7rem;text-align:left}
td+td{font-variant-numeric:tabular-nums}img{max-width:100%;height:auto;display:block;margin:1rem 0}
p,td{overflow-wrap:anywhere}"""


class Section:
    """A heading, rows of `(name, value)`, sentences, and names of pictures."""

    def __init__(self, title, rows=(), text="", pictures=()):
        self.title, self.rows, self.text, self.pictures = title, list(rows), text, tuple(pictures)


def write(directory, title, sections, figures, metrics):
    """Write a report into a new directory, beside its place and then renamed.

    Args:
        directory: where; it must not exist.
        title: the heading.
        sections: `Section`s.
        figures: matplotlib `Figure`s by name; each is written as a PNG too.
        metrics: what `metrics.json` holds.

    Returns:
        The directory's path.
    """
    directory = pathlib.Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    pictures = {name: _png(figure) for name, figure in figures.items()}
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory.parent) as folder:
        aside = pathlib.Path(folder) / "report"
        aside.mkdir()
        for name, content in pictures.items():
            (aside / f"{name}.png").write_bytes(content)
        (aside / "report.md").write_text(markdown(title, sections))
        (aside / "report.html").write_text(page(title, sections, pictures))
        (aside / "metrics.json").write_text(
            json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n"
        )
        os.rename(aside, directory)
    return directory


def markdown(title, sections):
    """The report as Markdown, its pictures by their file names."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.rows:
            rows = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in section.rows)
            parts.append(f"| | |\n|---|---|\n{rows}")
        parts += [section.text] if section.text else []
        parts += [f"![{name}]({name}.png)" for name in section.pictures]
    return "\n\n".join(parts) + "\n"


def page(title, sections, pictures):
    """The report as one HTML page that loads nothing: its pictures, PNG bytes by name, are inside."""
    title = html.escape(title)
    parts = [f"<h1>{title}</h1>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        cells = (
            f"<td>{html.escape(str(a))}</td><td>{html.escape(str(b))}</td>" for a, b in section.rows
        )
        rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
        parts += [f"<table>{rows}</table>"] if rows else []
        parts += [f"<p>{html.escape(section.text)}</p>"] if section.text else []
        for name in section.pictures:
            content = base64.b64encode(pictures[name]).decode()
            parts.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{content}">')
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )


def _plain(value):
    """For JSON, which has no NaN: None stands for it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()
