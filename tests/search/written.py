"""Jobs of trials that only write what a training would."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 3},
    "callbacks": {"progress": "auto"},
    "logger": {"wandb": None},
}


class Written:
    """Jobs that write one epoch a glance, and end as they are told to.

    curves: Fold -> its metric, epoch by epoch; the last one is the score.
    code: Exit code; text: what is said before it.
    """

    def __init__(
        self, folder: Path, curves: Mapping[int, list[float]], code: int = 0, text: str = ""
    ) -> None:
        self.folder, self.curves, self.code, self.text = folder, curves, code, text
        self.started: list[int] = []
        self.ended: list[int] = []
        self.written = 0

    def start(self, job: str, config: Mapping[str, Any], file: Path, log: Path) -> int:
        fold = config["fold"]
        (self.folder / config["name"] / f"fold{fold}").mkdir(parents=True)
        log.write_text(self.text)
        self.started.append(fold)
        self.place, self.written = self.folder / config["name"] / f"fold{fold}", 0
        return fold

    def poll(self, pid: int) -> int | None:
        values = self.curves[pid]
        if self.written < len(values):
            lines = [f"{e},{e},val/auc,{v}\n" for e, v in enumerate(values[: self.written + 1])]
            (self.place / "metrics.csv").write_text("epoch,step,name,value\n" + "".join(lines))
            self.written += 1
            return None
        score = {"metrics": {"auc": {"value": values[-1]}}}
        (self.place / "score.json").write_text(json.dumps(score))
        return self.code

    def end(self, pid: int) -> None:
        self.ended.append(pid)
