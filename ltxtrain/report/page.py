"""``report.html``: one page that tells the whole run, needs no server and asks nothing of the network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ltxtrain.files import write_atomically
from ltxtrain.markup import Html, el, page
from ltxtrain.plan.folder import RunFolder
from ltxtrain.report.gallery import gallery_section
from ltxtrain.report.planned import plan_section
from ltxtrain.report.run import Run, read_run
from ltxtrain.report.sections import files_section, headline, settings_section, status, versions_section
from ltxtrain.report.training import curves_section

# The page itself and files beside it.
NEAR = "'self' file: data:"
SOURCES = {"img-src": NEAR, "media-src": NEAR}


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from the files beside it and return its path. The same folder gives the same bytes.

    Parts that are not there, as in a run that was killed early, are told and left out. Raises DataError where
    ``run_dir`` is no run folder.
    """
    run = read_run(run_dir)
    path = RunFolder(run_dir).report_html
    write_atomically(path, render_page(run))
    return path


def render_page(run: Run) -> str:
    """The page as text."""
    sections = _sections(run)
    main = el("main", *(_section(*section) for section in sections))
    body = (_header(run), _navigation(sections), main, _footer(run))
    return page(f"{run.name} - LTX-Video LoRA", _asset("page.css"), _asset("page.js"), SOURCES, body)


def _sections(run: Run) -> list[tuple[str, str, Html]]:
    """Anchor, title and content of each part, in the order in which people look."""
    return [
        ("gallery", "Videos", gallery_section(run)),
        ("curves", "Curves", curves_section(run)),
        ("plan", "Plan", plan_section(run)),
        ("files", "Files", files_section(run)),
        ("configuration", "Configuration", settings_section(run)),
        ("versions", "Versions", versions_section(run)),
    ]


def _section(key: str, title: str, content: Html) -> Html:
    return el("section", el("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")


def _header(run: Run) -> Html:
    state = status(run)
    base = f"LoRA of {run.base_model}" if run.base_model else "LoRA of LTX-Video"
    missing = f"Not in this folder, or not readable: {', '.join(run.missing)}." if run.missing else ""
    return el(
        "header",
        el("p", base, el("span", state, class_=f"state {state.split()[0]}"), class_="eyebrow"),
        el("h1", run.name),
        headline(run),
        el("p", missing, class_="missing") if missing else None,
    )


def _navigation(sections: list[tuple[str, str, Html]]) -> Html:
    links = [el("a", title, href=f"#{key}") for key, title, _ in sections]
    return el("nav", el("div", *links), aria_label="Parts of this page")


def _footer(run: Run) -> Html:
    digest = f" config.toml {run.config_sha256[:12]}" if run.config_sha256 else ""
    return el("footer", el("p", f"Made by ltxtrain from the run folder {run.root.name}.{digest}"))


def _asset(name: str) -> str:
    return (files("ltxtrain.report") / name).read_text(encoding="utf-8")
