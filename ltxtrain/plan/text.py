"""The plan in plain words, for the screen and for plan.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltxtrain.plan.records import Plan


def render_plan(plan: Plan) -> str:
    """At most 100 columns, aligned, no colour. Ends with a newline."""
    return f"{plan.run_name}\n"
