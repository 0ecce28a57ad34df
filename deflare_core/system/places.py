"""Places: where the project and what comes with it stand on disk."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
REPORTS = PROJECT_ROOT / "reports"
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
"""The checkpoint that comes with the package; its README.md says what it was trained on and what it cannot do."""
