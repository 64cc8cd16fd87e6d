"""`python -m isic VERB`: the stages that need no training loop. `VERB --help` tells more."""

import difflib
import re
import sys

from isic.cli import command
from isic.config.words import quoted

VERBS = {
    "synth": ("isic.stages.archive:synth", "write a generated archive in an official layout"),
    "download": ("isic.stages.archive:download", "fetch images and metadata from the ISIC Archive"),
    "check": ("isic.stages.archive:check", "read an archive and list what is wrong with it"),
    "stack": ("isic.stages.stack:stack", "fit boosters on features and image runs' scores"),
    "pseudo": ("isic.stages.pseudo:pseudo", "turn confident predictions into training rows"),
    "runs": ("isic.stages.runs:runs", "print every run, best score first"),
    "sync": ("isic.stages.sync:sync", "send to W&B what was kept offline"),
}

CLEAN = "isic.engine.clean:clean"  # reads checkpoints: the one use of `runs` that needs torch


def flag_of_runs(word: str) -> str:
    """`--clean` and `--clean=delete` as keys."""
    return "clean=show" if word == "--clean" else re.sub(r"^--(?=clean=)", "", word)


def verbatim(word: str) -> str:
    """Quote the archive's query for Hydra, whose grammar would take [50 TO *] for a list.

    What is quoted as a whole already, and null, is left alone.
    """
    key, _, value = word.partition("=")
    if key != "query" or value in ("", "null") or re.fullmatch(r"(['\"]).*\1", value):
        return word
    return f"query={quoted(value)}"


def main() -> None:
    """Dispatch to a verb; exits the process."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        lines = [f"  {name:<8} {text}" for name, (_, text) in VERBS.items()]
        sys.stdout.write("python -m isic VERB [KEY=VALUE ...]\n\n" + "\n".join(lines) + "\n")
        return
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        sys.stderr.write(f"error: no verb {verb!r}; there are {', '.join(VERBS)}.{hint}\n")
        sys.exit(2)
    words = [flag_of_runs(w) if verb == "runs" else verbatim(w) for w in sys.argv[2:]]
    sys.argv = [f"isic {verb}", *words]
    cleans = verb == "runs" and any(w in ("clean=show", "clean=delete") for w in words)
    command(verb, CLEAN if cleans else VERBS[verb][0])


if __name__ == "__main__":
    main()
