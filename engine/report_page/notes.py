"""Notes: what the run warned of, how it was stopped and resumed, and why it failed."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.report_page.findings import Findings
from engine.report_page.markup import Markup, element, folded, joined, prose
from engine.report_page.words import moment


def section(findings: Findings, problems: Sequence[str]) -> Markup:
    """Warnings, then what happened when.

    Args:
        findings: of the run.
        problems: what this page lacks, a sentence each.
    """
    warnings = [str(event.get("message", "")) for event in findings.of("warning")]
    return joined(
        _list("The run warned:", warnings) if warnings else element("p", "The run gave no warning."),
        _list("This page lacks something:", problems) if problems else None,
        _course(findings.events),
        [_failure(event) for event in findings.of("failed")],
    )


def _list(title: str, sentences: Sequence[str]) -> Markup:
    return joined(
        element("p", title), element("ul", [element("li", prose(sentence)) for sentence in sentences])
    )


def _course(events: Sequence[Mapping[str, Any]]) -> Markup | None:
    lines = [(event, words) for event in events if (words := _words(event))]
    if not lines:
        return None
    items = [
        element("li", element("span", moment(event["time"]), class_="faint"), f": {words}")
        for event, words in lines
    ]
    return joined(element("h3", "What happened when"), element("ul", items))


def _words(event: Mapping[str, Any]) -> str:
    epoch = event.get("epoch", 0)
    match event["event"]:
        case "started" if event.get("resumed_after"):
            return f"resumed after epoch {event['resumed_after']} on {event.get('host', '?')}"
        case "started":
            return f"started on {event.get('host', '?')}"
        case "stopped":
            return f"stopped after epoch {epoch} ({event.get('reason') or 'no reason given'})"
        case "failed":
            return f"failed in epoch {epoch}: {event.get('message', '')}"
        case "finished":
            why = {"epochs": "all epochs done"}.get(event.get("reason", ""), event.get("reason", ""))
            return f"finished after epoch {epoch} ({why})"
    return ""


def _failure(event: Mapping[str, Any]) -> Markup | None:
    trace = str(event.get("traceback") or "")
    return folded("The failure as the program saw it", element("pre", trace)) if trace else None
