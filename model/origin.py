"""What decides a run's result, beside its config: versions, machine, code, data."""

import hashlib
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "opencv-python", "numpy", "pandas", "scikit-learn")


def describe_origin(config, device, tables):
    """The first content of run.json.

    Args:
        config: ImageConfig or CSVConfig.
        device: torch.device that the run trains on.
        tables: paths of the tables that it trains on; the list of images is part of them.

    Returns:
        dict of plain values.
    """
    return {
        "state": "running",
        "started": datetime.now().isoformat(timespec="seconds"),
        "epochs_done": 0,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "device": str(device),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "data": {table.name: hashlib.sha256(table.read_bytes()).hexdigest() for table in tables},
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit():
    """Commit of this program's checkout, "+ changes" where code differs from it, or None outside a checkout."""
    top, commit = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    if not commit or Path(top) != HERE:
        return None
    return commit + (" + changes" if _git("status", "--porcelain", "--", "*.py") else "")


def _git(*words):
    """What git says, or nothing where it fails or is not there."""
    try:
        answer = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
