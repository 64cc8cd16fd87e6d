"""What a check found: lines for the screen, `report.md` for people, `fingerprint.json` for code.

The JSON holds facts only and is sorted, so that two of them differ where the archives do; seconds
and next steps stand in the text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isic.audit.findings import ODD, STATES, WRONG, Finding, Part
from isic.cells import markdown_cell
from isic.files import write_text
from isic.index.schema import DatasetInfo
from isic.outputs import output_folder

FACTS, TEXT = "fingerprint.json", "report.md"


@dataclass
class Report:
    """The parts of one check, by name, and the seconds that each took."""

    info: DatasetInfo
    root: Path
    archive_hash: str
    parts: dict[str, Part] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """What is right, then notes, odd, wrong: the last lines are read first."""
        found = [f for part in self.parts.values() for f in part.findings]
        return [f for state in STATES for f in found if f.state == state]

    @property
    def errors(self) -> list[Finding]:
        """What makes the command end with 3."""
        return [f for f in self.findings if f.state == WRONG]

    def facts(self) -> dict[str, Any]:
        """Everything counted, as plain types."""
        return {
            "archive": self.info.name,
            "archive_hash": self.archive_hash,
            "license": self.info.license,
            "citation": self.info.citation,
            "states": {state: self._count(state) for state in STATES},
            **{name: dict(part.facts) for name, part in self.parts.items()},
        }

    def lines(self, *, wrong: bool = False) -> list[str]:
        """All for the screen; without `wrong` but what is the command's error after it."""
        lines = [f"{self.info.name} in {self.root}"]
        for f in self.findings:
            if f.state == WRONG and not wrong:
                continue
            lines.append(f"{f.state:<5}  {f.subject:<10}  {f.text}")
            if f.todo:
                lines.append(f"{'':<5}  {'':<10}  -> {f.todo}")
        lines.append(f"seconds: {self._seconds()}")
        return [*lines, self._licence()]

    def markdown(self) -> str:
        """The same as a page, with the columns that tell most."""
        rows = [
            f"| {f.state} | {f.subject} | {markdown_cell(f.text)} | {markdown_cell(f.todo)} |"
            for f in reversed(self.findings)
        ]
        return "\n".join(
            [
                f"# {markdown_cell(self.info.name)} {self.archive_hash}",
                "",
                f"Folder: {markdown_cell(self.root)}.",
                f"{self._count(WRONG)} wrong, {self._count(ODD)} odd.",
                "",
                "| | what | found | next step |",
                "|---|---|---|---|",
                *rows,
                *_columns(self.parts.get("shortcuts", Part()).facts),
                "",
                f"seconds: {self._seconds()}",
                "",
                markdown_cell(self._licence()),
                "",
            ]
        )

    def write(self, folder: Path) -> None:
        """Write both files, whole or not at all."""
        text = json.dumps(self.facts(), indent=1, sort_keys=True, ensure_ascii=False)
        output_folder(folder, given=True)
        write_text(folder / FACTS, text + "\n")
        write_text(folder / TEXT, self.markdown())

    def _licence(self) -> str:
        cite = f"; cite: {self.info.citation}" if self.info.citation else ""
        return f"licence: {self.info.license}{cite}"

    def _count(self, state: str) -> int:
        return sum(f.state == state for f in self.findings)

    def _seconds(self) -> str:
        return ", ".join(f"{name} {taken:.1f}" for name, taken in self.seconds.items())


def _columns(facts: Mapping[str, Any], most: int = 15) -> list[str]:
    """A table of the columns that guess best."""
    found = {**facts.get("columns", {}), **facts.get("pairs", {})}
    tried = sorted(found.items(), key=lambda item: -item[1]["auc"])[:most]
    if not tried:
        return []
    head = ["", "Columns and pairs that tell a class, best first (AUC on groups not seen):", ""]
    rows = [
        f"| {markdown_cell(name)} | {markdown_cell(found['class'])} | {found['auc']:.3f} |"
        for name, found in tried
    ]
    return [*head, "| column | class | AUC |", "|---|---|---|", *rows]
