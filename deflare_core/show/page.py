"""Pages: text in Markdown as one HTML file that runs nothing, and asks no other machine for anything."""

from __future__ import annotations

import html

import mistune

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:; media-src data:"
"""What a browser may load, whatever a page's text may hold: pictures beside it, and what is in the page itself."""
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "th,td{padding:.3em .45em;border-bottom:1px solid #8885;text-align:right;vertical-align:top}"
    "th{vertical-align:bottom}th:first-child,td:first-child{text-align:left}"
    "img,video{max-width:100%;height:auto;background:#fff}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.6em .9em;background:#8881;font-size:13px}"
    "details{color:#777;font-size:13px;margin:.4em 0}summary{cursor:pointer}"
    ".summary{border-left:4px solid #2f9e6e;padding-left:1.2em}.failed{color:#c1272d}"
)


def make_page(title: str, body: str) -> str:
    """A page of HTML from its title, which is text, and its body, which is HTML."""
    head = f'<meta charset=utf-8><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += "<meta name=viewport content='width=device-width'>"
    return f"<!doctype html>{head}<title>{html.escape(title)}</title><style>{STYLE}</style>{body}\n"


def render_markdown(text: str) -> str:
    """The HTML of a text in Markdown; HTML within it is shown as it stands."""
    return str(mistune.create_markdown(escape=True, plugins=["table"])(text))
