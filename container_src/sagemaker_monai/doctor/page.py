"""doctor.html: the report as one file, without scripts, style sheets or pictures from elsewhere.

Every text is escaped, because class names and headers are untrusted. A policy in the head forbids the browser to load
or run anything, in case an escape was forgotten.
"""

import base64
from collections.abc import Sequence
from html import escape

from sagemaker_monai.doctor.examine import Examination
from sagemaker_monai.doctor.report import examples_of, sections, summary

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c1c1c;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0}
th{font-weight:600;width:15rem;white-space:pre-wrap}tr+tr{border-top:1px solid #eee}
.error{color:#a40000;font-weight:600}.warning{color:#8a5a00;font-weight:600}.note{color:#555}
img{max-width:100%;height:auto;image-rendering:auto}footer{margin-top:2rem;color:#555;font-size:.85rem}
"""


def as_page(examination: Examination, *, sheet: bytes | None, names: Sequence[str] = ()) -> str:
    """The page.

    Args:
        examination: what was found.
        sheet: the contact sheet as PNG.
        names: of the files, to be shown as examples; by default their numbers are.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width"><title>Data set examination</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Data set examination</h1><p>{escape(summary(examination))}</p>",
        "<h2>Findings</h2>",
        _findings(examination, names),
    ]
    for title, rows in sections(examination):
        lines = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in rows)
        parts.append(f"<h2>{escape(title)}</h2><table>{lines}</table>")
    if sheet is not None:
        data = base64.b64encode(sheet).decode()
        parts.append(
            "<h2>Contact sheet</h2><p>Images of patients, evenly over the classes, with the number of the first file; "
            f'volumes in three planes.</p><img alt="Contact sheet" src="data:image/png;base64,{data}">'
        )
    parts.append(
        "<footer>Numbers count files in the order of their names, from 1. Percentages of findings count images. This "
        "report is no statement about anybody's health.</footer></body></html>"
    )
    return "\n".join(parts) + "\n"


def _findings(examination: Examination, names: Sequence[str]) -> str:
    if not examination.remarks:
        return "<p>None.</p>"
    rows = []
    for each in examination.remarks:
        examples = examples_of(each, names)
        rows.append(
            f'<tr><td class="{each.severity}">{each.severity}</td><td>{escape(each.code)}</td>'
            f"<td>{each.count} {escape(each.unit)}</td>"
            f"<td>{escape(each.message)}{f' <small>{escape(examples)}</small>' if examples else ''}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"
