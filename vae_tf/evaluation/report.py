"""Reports: `report.md`, `report.html` in one file that loads nothing, `metrics.json`, pictures.

The page is rendered from the Markdown, with the pictures inside it.
"""

import base64
import dataclasses
import html
import io
import json
import math
import pathlib
import re

from vae_tf import files
from vae_tf.errors import printable

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td{border:1px solid #ccc;padding:.3rem .7rem;text-align:left}
thead{display:none}td+td{font-variant-numeric:tabular-nums}img{max-width:100%;height:auto;margin:1rem 0}
p,td{overflow-wrap:anywhere}td:first-child{overflow-wrap:break-word;min-width:7rem}"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report: a heading, rows of `(name, value)`, sentences, and figures by name.

    caveats: sentences that go with the figures wherever they are shown.
    """

    title: str
    rows: list = ()
    text: str = ""
    figures: dict = dataclasses.field(default_factory=dict)
    caveats: list = ()


def write(directory, title, sections, metrics, others=None):
    """Write a report into a new directory, aside and then renamed.

    Args:
        directory: where; it must not exist.
        title: the heading.
        sections: `Section`s; each of their figures is also written as a PNG.
        metrics: what `metrics.json` holds.
        others: the content of more files, by name.

    Returns:
        The directory's path.
    """
    directory = pathlib.Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    pictures = {f"{name}.png": _png(figure) for name, figure in figures.items()}
    title, text = printable(title), markdown(title, sections)
    with files.aside(directory) as scratch:
        scratch.mkdir()
        for name, content in (pictures | (others or {})).items():
            (scratch / name).write_bytes(content)
        (scratch / "report.md").write_text(text, encoding="utf-8")
        (scratch / "report.html").write_text(page(title, text, pictures), encoding="utf-8")
        (scratch / "metrics.json").write_text(
            json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    return directory


def markdown(title, sections):
    """The report as Markdown, its pictures by their file names."""
    parts = [f"# {escaped(title)}"]
    for section in sections:
        parts.append(f"## {escaped(section.title)}")
        parts += [f"**Caution:** {escaped(caveat)}" for caveat in section.caveats]
        if section.rows:
            rows = (f"| {escaped(name)} | {escaped(value)} |" for name, value in section.rows)
            parts.append("\n".join(["| | |", "|---|---|", *rows]))
        parts += [_paragraph(section.text)] if section.text else []
        parts += [f"![{name}]({name}.png)" for name in section.figures]
    return "\n\n".join(parts) + "\n"


def escaped(text):
    """Text as it is, on one line, where Markdown or HTML would read something else into it."""
    text = printable(re.sub(r"\s*\n\s*", " ", str(text)))
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)  # an entity
    text = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)  # a tag, or an address
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # a link
    text = re.sub(r"(?<!\S)#", r"\\#", text)  # a heading's beginning or end
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # emphasis; not the _ of z_mean


def _paragraph(text):
    """Text at the beginning of a line, where a list, a rule or a quotation could begin too."""
    return re.sub(r"^(\d*)(?=[-+=>.)])", r"\1\\", escaped(text).strip())


def page(title, text, pictures):
    """Markdown as one HTML page that loads nothing.

    Args:
        title: of the window.
        text: the Markdown. HTML in it is shown, and not obeyed.
        pictures: PNG bytes by the file names that the Markdown shows them by.
    """
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")

    def image(self, tokens, index, options, env):
        content = base64.b64encode(pictures[tokens[index].attrs["src"]]).decode()
        tokens[index].attrs["src"] = f"data:image/png;base64,{content}"
        return self.image(tokens, index, options, env)

    renderer.add_render_rule("image", image)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n"
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{renderer.render(text)}</body></html>\n"
    )


def _plain(value):
    """For JSON, which has no NaN: None stands for it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()
