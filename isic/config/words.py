"""The words of a command line before Hydra reads them: flags first, paths in quotes.

Hydra's grammar takes `2024_01` for a number, `#` for a comment, `a(b)` for a call. The value of a
path key is text to its last character: it is put into quotes here. Only a comma stays ambiguous,
since it may separate two paths: then the error shows what to type.
"""

import os
import re
from collections.abc import Sequence

from isic.config.paths import PLAIN, SINGLE, is_path_key
from isic.errors import ConfigError
from isic.names import refusal

CALLS = re.compile(
    r"(choice|range|interval|glob|shuffle|sort|tag|extend_list|int|float|str|bool|json_str)\(.*\)"
)  # of Hydra's grammar


def checked_words(arguments: list[str]) -> list[str]:
    """Flags first, as Hydra wants them; paths in quotes.

    Raises:
        ConfigError: A word that is neither flag nor KEY=VALUE, or a comma in a path.
    """
    takes_value = {"-c", "--cfg", "-p", "--package", "-cn", "-cd", "-cp", "-i", "--info"}
    takes_value |= {"--config-name", "--config-dir", "--config-path"}
    flags: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.startswith("-"):
            flags += [word, next(words, "")] if word in takes_value else [word]
        elif "=" in word or word.startswith("~") or "--shell-completion" in flags:
            rest.append(word)
        else:
            raise ConfigError(
                f"{word}: expected KEY=VALUE (or -m, --help, --cfg job); no spaces about ="
                + _spaced(rest, word)
            )
    if "--shell-completion" in flags:
        return flags + rest
    sweeps = not {"-m", "--multirun"}.isdisjoint(flags)
    return [_folder_flag(f) for f in flags] + [as_typed(w, sweeps=sweeps) for w in rest]


def _spaced(before: Sequence[str], word: str) -> str:
    """Say what to type instead where a shell has cut a path at a space."""
    key = before[-1].partition("=")[0] if before else ""
    if not is_path_key(key.lstrip("+")):
        return ""
    value = before[-1].partition("=")[2]
    return f"; a path with spaces wants quotes: {quoted_form(key, f'{value} {word}')}"


def _folder_flag(flag: str) -> str:
    """`--config-dir=~/conf` as a shell would have it after a space."""
    name, separator, value = flag.partition("=")
    return f"{name}={os.path.expanduser(value)}" if separator else os.path.expanduser(flag)


def as_typed(word: str, *, sweeps: bool) -> str:
    """A word KEY=VALUE with a path key's value in Hydra's quotes, so that it is text throughout.

    Quoted values, interpolations and calls of Hydra's grammar (`choice(a,b)`) stay as they are; of
    commas only a list `[a,b]`, and with `sweeps` (`-m`) an enumeration, have a meaning.

    Raises:
        ConfigError: A comma that may separate two paths or be part of one.
    """
    name, separator, value = word.partition("=")
    key = name.lstrip("+~").partition("@")[0]
    if not separator or name.startswith("~") or value in PLAIN or not is_path_key(key):
        return word
    value = os.path.expanduser(value) if key.startswith(("paths.", "hydra.")) else value
    if "${" in value or _is_quoted(value) or CALLS.fullmatch(value):
        return word
    single = is_path_key(key, SINGLE)
    if not single and value.startswith("[") and value.endswith("]"):
        return f"{name}={_each(value[1:-1], '[{}]')}"
    if "," not in value:
        return f"{name}={quoted(value)}"
    if sweeps:
        return f"{name}={_each(value, '{}', single=single)}"
    either = "" if single else f", or several as {key}=[{value}]"
    raise ConfigError(
        f"{key}: a comma would separate two values, got {value!r}; one path with a comma in it "
        f"wants quotes: {quoted_form(name, value)}{either}"
    )


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _each(values: str, around: str, *, single: bool = False) -> str:
    """Items between commas, each in quotes; what has quotes or lists in it is Hydra's to read.

    single: Whether each is one path, so that brackets are part of it.
    """
    items = [item.strip() for item in values.split(",")]
    grammar = any(i[:1] in ("'", '"') for i in items) if single else re.search(r"['\"\[\]]", values)
    if grammar or not all(items):
        return around.format(values)
    return around.format(",".join(i if i in PLAIN else quoted(i) for i in items))


def quoted(value: str) -> str:
    """A text in Hydra's single quotes, which gives it back to the last character."""
    # a backslash counts only in front of a quote or of ${, and is then written twice
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    value = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", value)
    return f"'{value}'"


def quoted_form(key: str, value: str) -> str:
    """Return what to type in a shell so that Hydra takes the value as it is."""
    inner = re.sub(r"(\\*)(\"|$)", lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    word = f'{key}="{inner}"'
    return "'" + word.replace("'", "'\"'\"'") + "'"


def unread_word(error: Exception) -> str | None:
    """Say which word Hydra's grammar did not take, and how it is quoted; None for other errors."""
    word = getattr(error, "override", None)
    if found := re.search(r"Ambiguous value for argument '(.*)'\n", str(error)):
        word = found[1]
    if not word or "=" not in word:
        return None
    key, _, value = word.partition("=")
    if key == "name" and not found:  # in quotes it is refused too, by what makes the folder
        return refusal(value)
    several = f", several are a list, {key}=[{value}], or jobs of -m" if found else ""
    return (
        f"{key}: expected one value, got {value!r}, which Hydra's grammar reads otherwise; as one "
        f"text it wants quotes: {quoted_form(key, value)}{several}"
    )
