"""A run's entry on W&B: always written to disk first, sent by another process. No torch.

| module | what it does |
|---|---|
| `run` | `publish` a finished run; `open_run`, `log_result`, `close_run` for one that goes on |
| `send` | one process that sends while a command runs; `send_kept` for `python -m isic sync` |
| `torn` | where what a killed process wrote ends |

A stage that has a finished folder calls `publish(folder, options, ...)` and nothing else; `options`
is the plain mapping of conf/logger's key `wandb`, None where it is off.
The trap: `wandb.init(mode="online")` makes a training wait for a server that does not answer.
"""

from isic.dashboard.run import close_run, is_on, log_result, open_run, publish, tolerated

__all__ = ["close_run", "is_on", "log_result", "open_run", "publish", "tolerated"]
