"""What bash completes, asked of bash."""

import shutil
import subprocess

import pytest

from deflare_core.app.commands import COMMANDS, main

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def script(capsys):
    assert main(["completion"]) == 0
    return capsys.readouterr().out


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of the words of a command line."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"{script}\nCOMP_WORDS=({line}) COMP_CWORD={len(words) - 1}; _deflare; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


@needs_bash
def test_bash_completes_commands_options_and_settings(script):
    assert complete(script, "deflare", "") == [command.name for command in COMMANDS]
    assert complete(script, "deflare", "enc") == ["encode"]
    assert complete(script, "deflare", "infer", "--fr") == ["--from"]
    assert complete(script, "deflare", "infer", "-i", "a.h5", "--sens") == ["--sensor-size"]
    assert complete(script, "deflare", "train", "--trainer.max_st") == ["--trainer.max_steps"]


@needs_bash
def test_bash_leaves_files_and_unknown_commands_to_itself(script):
    assert complete(script, "deflare", "infer", "a") == []
    assert complete(script, "deflare", "infre", "--fr") == []
    assert complete(script, "deflare", "encode", "--in") == [], "What has no name on the line is not an option."
