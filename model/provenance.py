"""What decides a run's result, beside its config: versions, machine, code, data."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from model_config import Config
from processing.errors import PipelineError
from processing.files import stat_files

HERE = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "opencv-python", "simplejpeg", "numpy", "pandas", "scikit-learn")


def describe_origin(config: Config, device: torch.device, data: dict[str, str]) -> dict[str, Any]:
    """The first content of run.json.

    Args:
        config: ImageConfig or CSVConfig.
        device: torch.device that the run trains on.
        data: dict of what it trains on -> fingerprint.

    Returns:
        dict of plain values.
    """
    return {
        "state": "running",
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "epochs_done": 0,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "device": str(device),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "data": data,
    }


def fingerprint_tables(files: Iterable[Path]) -> dict[str, str]:
    """fingerprint_table of those of the files that are there, by file name."""
    return {file.name: fingerprint_table(file) for file in files if file.is_file()}


def fingerprint_table(path: Path) -> str:
    """SHA-256 of a table's bytes, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint_images(names: list[str], root: Path) -> str:
    """SHA-256 over a list of images: path from the root and size in bytes of each, in order.

    Raises:
        PipelineError: one is not there.
    """
    digest = hashlib.sha256()
    for name, state in zip(names, stat_files(root, names), strict=True):
        if state is None:
            raise PipelineError(f"{root / name} is gone. Option 0 (processing_data) makes it again, if it can.")
        digest.update(f"{name}\t{state.st_size}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}    # of a hook
    try:
        answer = subprocess.run(["git", *words], cwd=HERE, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
