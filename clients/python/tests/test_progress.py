"""Bars: what ``progress=True`` shows."""

from __future__ import annotations

import importlib.util
import io
import sys
import types

import pytest
from conftest import MiB

import isobar
from isobar import _progress

STATES = [
    isobar.Progress("o", "load_model", "queued", position=2, reason="no room"),
    isobar.Progress("o", "load_model", "running"),
    isobar.Progress("o", "load_model", "running", bytes_done=16 * MiB, bytes_total=64 * MiB, throughput_bytes_per_second=2.5 * 1024 * MiB),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def show(out: io.StringIO, *states: isobar.Progress) -> str:
    with _progress.shown(True, "model unet", out) as told:
        assert told is not None
        for s in states:
            told(s)
    return out.getvalue()


def test_a_line_on_a_terminal(without_tqdm: None) -> None:
    lines = show(Terminal(), *STATES).split("\r")
    assert lines[1] == "model unet: waiting, place 2: no room"
    assert lines[2].rstrip() == "model unet: running"
    assert lines[3] == "model unet: [########......................]  25 %  16.0 MiB of 64.0 MiB  2.50 GiB/s"
    assert "[##############################] 100 %" in lines[4] and lines[4].endswith("\n")


def test_lines_in_a_file(without_tqdm: None) -> None:
    assert show(io.StringIO(), *STATES).splitlines() == ["model unet: waiting, place 2: no room", "model unet: running"]


def test_what_is_done_at_once_shows_nothing(without_tqdm: None) -> None:
    assert show(Terminal()) == ""


def test_what_fails_is_not_shown_as_done(without_tqdm: None) -> None:
    out = Terminal()
    with pytest.raises(KeyError), _progress.shown(True, "model unet", out) as told:
        assert told is not None
        told(STATES[2])
        raise KeyError
    assert "100 %" not in out.getvalue() and out.getvalue().endswith("\n")


def test_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm draws where it is installed; here a stand-in notes what it is given."""
    seen: list[tuple[object, object]] = []

    class Bar:
        total: int | None = None
        n = 0

        def __init__(self, **options: object) -> None:
            assert options["desc"] == "model unet" and options["unit"] == "B"

        def set_postfix_str(self, text: str, refresh: bool) -> None:
            seen.append((self.n, text))

        def refresh(self) -> None:
            pass

        def close(self) -> None:
            seen.append((self.n, "closed"))

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: module)
    show(io.StringIO(), *STATES)
    assert seen == [(0, "waiting, place 2: no room"), (0, ""), (16 * MiB, ""), (64 * MiB, "closed")]


def test_who_has_a_callback_keeps_it() -> None:
    for given in (print, None):
        with _progress.shown(given, "x") as told:
            assert told is given
    with _progress.shown(False, "x") as told:
        assert told is None
