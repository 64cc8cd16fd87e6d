"""`python -m isic VERB`: the stages that need no training loop. `VERB --help` tells more."""

import difflib
import sys

from isic.cli import command

VERBS = {
    "synth": ("isic.stages:synth", "write a generated archive in an official layout"),
    "check": ("isic.stages:check", "read an archive and list what is wrong with it"),
    "runs": ("isic.stages:runs", "print every run, best score first"),
}


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
    sys.argv = [f"isic {verb}", *sys.argv[2:]]
    command(verb, VERBS[verb][0])


if __name__ == "__main__":
    main()
