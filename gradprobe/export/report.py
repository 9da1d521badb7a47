"""A page that holds everything: the verdict in words, pictures, findings, the spec. It asks nothing of any host."""

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from gradprobe import __version__
from gradprobe.export.contents import Contents
from gradprobe.export.figures import gradient_flow, png

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff; --tint: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b3; --line: #30363d; --paper: #0d1117; --tint: #161b22 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0; overflow-wrap: anywhere } .soft { color: var(--soft); margin-top: 0 }
.verdict { font-size: 1.15rem; border-left: .3rem solid; padding: .2rem .9rem; margin: 1.5rem 0 }
.healthy { border-color: #1a7f37 } .warning { border-color: #bf8700 } .critical { border-color: #cf222e }
.undecided { border-color: var(--soft) }
img { width: 100%; height: auto; background: #fff; border-radius: .4rem } table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line) }
section { margin: 2rem 0 } pre { background: var(--tint); padding: 1rem; overflow: auto; border-radius: .4rem }
h3 { margin: 1.5rem 0 .2rem }
"""


def page(contents: Contents) -> bytes:
    """The HTML document."""
    record = contents.record
    parts = [
        f"<h1>{escape(contents.title)}</h1>",
        f'<p class="soft">{escape(record.id)} · {record.status.value} · {record.iteration:,} of '
        f"{record.iterations:,} iterations · Gradprobe {__version__}</p>",
        _verdict(contents.diagnosis),
        _picture(contents),
        _findings(contents.diagnosis),
        _results(record.result),
        _json("Spec", record.spec),
        _json("Provenance", record.provenance),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(contents.title)} – Gradprobe</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    ).encode()


def _verdict(diagnosis: Mapping[str, Any] | None) -> str:
    if diagnosis is None:
        return '<p class="verdict undecided">Nothing was measured yet, so there is no verdict.</p>'
    findings = diagnosis["findings"]
    kind = findings[0]["severity"] if findings else str(diagnosis["verdict"])
    style = kind if kind in ("healthy", "warning", "critical") else "undecided"
    return f'<p class="verdict {style}">{escape(str(diagnosis["summary"]))}</p>'


def _picture(contents: Contents) -> str:
    if not contents.statistics:
        return ""
    data = base64.b64encode(png(gradient_flow(contents))).decode()
    told = "Mean absolute gradients and output gradients of each layer over the iterations; loss and accuracy."
    return f'<section><img alt="{told}" src="data:image/png;base64,{data}"></section>'


def _findings(diagnosis: Mapping[str, Any] | None) -> str:
    if diagnosis is None or not diagnosis["findings"]:
        return ""
    return f"<section><h2>Findings</h2>{''.join(map(_finding, diagnosis['findings']))}</section>"


def _finding(finding: Mapping[str, Any]) -> str:
    layers = ", ".join(finding["layers"]) or "the run as a whole"
    lasting = "and it lasts" if finding["ongoing"] else f"until {finding['last_step']:,}"
    remedies = "".join(
        f"<li>{escape(remedy['reason'].rstrip('.'))}: <code>{escape(json.dumps(remedy['patch']))}</code></li>"
        for remedy in finding["remedies"]
    )
    return (
        f"<h3>{escape(_words(finding['rule']))} ({finding['severity']}, {_words(finding['phase'])})</h3>"
        f"<p>{escape(finding['explanation'])}</p>"
        f'<p class="soft">Cause: {escape(_words(finding["cause"]))}. Since iteration {finding["first_step"]:,}, '
        f"{lasting}. Layers: {escape(layers)}.</p>"
        + (f"<p>To change, as merge patches of the spec:</p><ul>{remedies}</ul>" if remedies else "")
    )


def _results(result: Mapping[str, Any] | None) -> str:
    if not result:
        return ""
    rows = "".join(
        f"<tr><th>{escape(_words(name))}</th><td>{escape(_figure(value))}</td></tr>" for name, value in result.items()
    )
    return f"<section><h2>Result</h2><table>{rows}</table></section>"


def _json(title: str, document: Mapping[str, Any] | None) -> str:
    if not document:
        return ""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return f"<section><h2>{title}</h2><pre>{escape(text)}</pre></section>"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
