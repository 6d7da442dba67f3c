import io
import time

import pytest
from rich.console import Console

from mmt_jax import progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_lines_come_now_and_then_and_at_the_end(clock, capsys):
    with progress.Counter("pairs", 4_000) as counter:
        for _ in range(4):
            clock.now += 15
            counter.add(1_000)
    assert capsys.readouterr().err.splitlines() == [
        "2,000 of 4,000 pairs, 67 a second, 0:30 left",
        "4,000 of 4,000 pairs, 67 a second, 0:00 left",
    ]


def test_what_is_soon_over_or_not_to_be_shown_says_nothing(clock, capsys):
    with progress.Counter("pairs", 10) as counter:
        clock.now += 1
        counter.add(10)
    with progress.Counter("pairs", 10, shown=False) as counter:
        clock.now += 1_000
        counter.add(10)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_which_may_stand_below_another(clock, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "console", lambda: console)
    with progress.Counter("steps", 3) as outer:
        clock.now += 5
        outer.add(1)
        for photo in progress.track(iter(["a", "b"]), "photos"):
            clock.now += 4
            assert photo
            time.sleep(0.3)  # a bar is drawn ten times a second
    text = screen.getvalue()
    assert "1 of 3 steps, 0.2 a second, 0:10 left" in text
    assert "1 photos, 0.2 a second" in text


def test_stages_are_told_by_the_program_alone(monkeypatch, capsys):
    progress.stage("compiling a step")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "stages", True)
    progress.stage("compiling a step")
    assert capsys.readouterr().err == "compiling a step …\n"
