"""The torchvision remedy: it acts on the broken pair only, and every interpreter gets it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ENVIRONMENT = Path(__file__).resolve().parents[1] / "environment"

# Stand-ins for the pair: importing torchvision fails the real way unless nms was declared.
TORCH = """
class library:
    class Library:
        def __init__(self, name, kind): assert (name, kind) == ("torchvision", "FRAGMENT")
        def define(self, schema): declared.append(schema.split("(")[0])
declared = []
"""
TORCHVISION = "from . import extension, _meta_registrations\n"
META = """
import torch, torchvision.extension
if not (torchvision.extension._has_ops() or "nms" in torch.declared):
    raise RuntimeError("operator torchvision::nms does not exist")
"""


def site_packages(root: Path, *, has_ops: bool) -> Path:
    (root / "torchvision").mkdir(parents=True)
    (root / "torch.py").write_text(TORCH)
    (root / "torchvision" / "__init__.py").write_text(TORCHVISION)
    (root / "torchvision" / "extension.py").write_text(f"def _has_ops(): return {has_ops}\n")
    (root / "torchvision" / "_meta_registrations.py").write_text(META)
    return root


def declared(site: Path, *, via: str) -> subprocess.CompletedProcess[str]:
    """Import torchvision in a fresh interpreter that reads .pth files of `site` as a venv does."""
    code = f"import site; site.addsitedir({str(site)!r}); import torchvision, torch, sys; " + via
    argv = [sys.executable, "-S", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture
def check_imports() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", ENVIRONMENT / "check_imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_pair_fails_without_the_hook_and_imports_with_it(
    tmp_path: Path, check_imports: ModuleType
) -> None:
    site = site_packages(tmp_path / "site", has_ops=False)
    assert check_imports.FAULT in declared(site, via="pass").stderr
    check_imports.install_hook(site)
    assert declared(site, via="print(torch.declared)").stdout.strip() == "['nms', 'qnms']"


def test_hook_leaves_a_healthy_pair_alone(tmp_path: Path, check_imports: ModuleType) -> None:
    site = site_packages(tmp_path / "site", has_ops=True)
    check_imports.install_hook(site)
    after = declared(site, via="print(torch.declared, 'Declare' in str(sys.meta_path))")
    assert after.stdout.strip() == "[] False"


@pytest.mark.parametrize(
    ("errors", "installs", "code"),
    [([""], 0, 0), (["operator torchvision::nms does not exist", ""], 1, 0), (["other"], 0, 1)],
)
def test_setup_mends_the_known_fault_only(
    monkeypatch: pytest.MonkeyPatch,
    check_imports: ModuleType,
    errors: list[str],
    installs: int,
    code: int,
) -> None:
    installed: list[Path] = []
    answers = iter(errors)
    monkeypatch.setattr(check_imports, "import_error", lambda: next(answers))
    monkeypatch.setattr(check_imports, "install_hook", installed.append)
    monkeypatch.setattr(check_imports.sys, "base_prefix", "elsewhere")
    assert check_imports.main() == code
    assert len(installed) == installs
