"""Fixtures shared by all tests: where real data and reference outputs lie; no test may open a socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect = socket.socket.connect

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address}: tests use no network")
        return real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data sets in their own layouts."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not beside this checkout (../shared/data)")
    return folder


def golden_folder(kind: str) -> Path:
    """Reference outputs: $OMG_GOLDEN_<KIND>, else ../shared/golden/<kind>, else tests/golden/<kind>."""
    override = os.environ.get(f"OMG_GOLDEN_{kind.upper()}")
    if override:
        return Path(override)
    for candidate in (SHARED / "golden" / kind, ROOT / "tests" / "golden" / kind):
        if candidate.is_dir():
            return candidate
    pytest.skip(f"no reference outputs: set OMG_GOLDEN_{kind.upper()} to their folder")


@pytest.fixture(scope="session")
def golden_model() -> Path:
    return golden_folder("model")


@pytest.fixture(scope="session")
def golden_metrics() -> Path:
    return golden_folder("metrics")
