"""Check that this interpreter's ``import timm`` works; mend the one fault we know how to mend.

Run by ``make setup`` with the venv's Python. A healthy torch and torchvision are left alone. Where
torch is a CPU build beside a CUDA torchvision, torchvision_ops.py goes into this venv's
site-packages with a .pth line that loads it at start. Any other failure is shown and ends with 1.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = Path(__file__).with_name("torchvision_ops.py")
INSTALLED = "isic_torchvision_ops"
FAULT = "operator torchvision::nms does not exist"
# Lightning reaches torchvision through torchmetrics, by another road than timm.
PROBE = "import timm, pytorch_lightning"


def import_error() -> str:
    """The traceback of importing timm and Lightning in a fresh interpreter, empty when it works."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


def install_hook(site_packages: Path) -> None:
    """Copy the hook into site_packages and have every interpreter of this venv load it."""
    shutil.copyfile(HOOK, site_packages / f"{INSTALLED}.py")
    (site_packages / f"{INSTALLED}.pth").write_text(f"import {INSTALLED}\n", encoding="utf-8")


def main() -> int:
    """Probe, mend if it is the known fault, probe again; the exit code for make."""
    if sys.prefix == sys.base_prefix:
        sys.stderr.write("expected a venv's Python, got the system's; run `make setup`\n")
        return 1
    error = import_error()
    if FAULT in error:
        site_packages = Path(sysconfig.get_paths()["purelib"])
        install_hook(site_packages)
        sys.stdout.write(f"CPU torch beside CUDA torchvision: import hook put in {site_packages}\n")
        error = import_error()
    if error:
        sys.stderr.write(f"{error}\n`{PROBE}` failed; delete .venv and run `make setup` again\n")
        return 1
    sys.stdout.write("import timm, pytorch_lightning: ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
