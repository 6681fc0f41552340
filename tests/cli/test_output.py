"""What a verb prints shows external text as it is, and a terminal never obeys it."""

from __future__ import annotations

import json

import pytest
import typer

from dist_gat.base.errors import DataError
from dist_gat.cli import main
from dist_gat.cli.output import make_table, open_output

HOSTILE = ["\x1b[2J", "[red]x[/red]", ":smile:", "two\nlines", "\x9b31m", "back\\", "[/]", "\u202egpj.exe"]
SHOWN = [r"\x1b[2J", "[red]x[/red]", ":smile:", r"two\nlines", r"\x9b31m", "back\\", "[/]", r"\u202egpj.exe"]
CONTROLS = {chr(code) for code in [*range(32), *range(127, 160)]} - {"\n"}


@pytest.fixture(params=[False, True])
def colours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Rich writes its own ANSI sequences in colour alone, so only without them none may be there."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR" if request.param else "NO_COLOR", "1")
    return request.param


def test_tables_notes_and_progress(colours: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with open_output(as_json=False) as output:
        table = make_table(f"title {HOSTILE[0]} [b]", ["user_id", "score"], [[text, 0.5] for text in HOSTILE])
        output.result({}, table, notes=f"in {HOSTILE[0]} {HOSTILE[1]}")
        output.progress(f"reading {HOSTILE[0]} {HOSTILE[1]}")
    out, err = capsys.readouterr()
    assert all(any(text in line for line in out.splitlines()) for text in SHOWN)
    assert r"title \x1b[2J [b]" in out
    assert r"in \x1b[2J [red]x[/red]" in out
    assert err == "  reading \\x1b[2J [red]x[/red]\n"
    assert "\x1b[2J" not in out
    assert colours or not CONTROLS & set(out + err)


def test_json_keeps_ids_and_escapes_them(capfd: pytest.CaptureFixture[str]) -> None:
    with open_output(as_json=True) as output:
        output.result({"ids": HOSTILE})
    out = capfd.readouterr().out
    assert json.loads(out) == {"ids": HOSTILE}
    assert not CONTROLS & set(out)


def test_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise DataError(f"user {HOSTILE[0]} {HOSTILE[1]} {HOSTILE[2]}: unknown\ntry again")

    monkeypatch.setattr(main, "app", lambda: app([], standalone_mode=False))
    with pytest.raises(SystemExit):
        main.main()
    err = capsys.readouterr().err
    assert err == "error: user \\x1b[2J [red]x[/red] :smile:: unknown\ntry again\n"
