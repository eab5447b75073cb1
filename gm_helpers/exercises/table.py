"""How far a student is."""

import html

from gm_helpers.exercises.checking import COLOURS, EXERCISES, Exercise
from gm_helpers.files import UsageError


class Progress:
    """A table of a notebook's exercises: what their checkers said last in this kernel. It shows itself."""

    def __init__(self, rows: list[Exercise]):
        self.rows = rows
        self.right = sum(own.verdict.status == "right" for own in rows)

    def __repr__(self) -> str:
        lines = [f"{own.section:12s} {own.name:20s} {own.verdict.status}" for own in self.rows]
        return "\n".join([*lines, f"{self.right} of {len(self.rows)} right"])

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td>{html.escape(own.section)}</td><td><code>{own.name}</code></td>"
            f'<td style="border-left: 4px solid {COLOURS[own.verdict.status]}">{own.verdict.status}</td></tr>'
            for own in self.rows
        )
        return f"<table>{''.join(cells)}</table><p>{self.right} of {len(self.rows)} right</p>"


def progress(notebook: str) -> Progress:
    """The table of that notebook's exercises, such as "2_gan". Raises UsageError for one that has none."""
    rows = [own for own in EXERCISES.values() if own.notebook == notebook]
    if not rows:
        names = ", ".join(sorted({own.notebook for own in EXERCISES.values()}))
        raise UsageError(f"no exercises are known of {notebook!r}: choose one of {names}")
    return Progress([Exercise(own.name, own.notebook, own.section, own.verdict) for own in rows])
