"""What the README promises is true: its snippet runs, its commands parse, its files exist."""

import re
import shlex

import pytest
from support.recordings import make_events

from deflare_core.app.arguments import check, make_parser, parameters_of, parse
from deflare_core.app.commands import COMMANDS as PROGRAM
from deflare_core.app.commands import find_command
from deflare_core.io.recordings import save_events
from deflare_core.system.places import PROJECT_ROOT

README = (PROJECT_ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if line.startswith("deflare ") and "`" not in line]


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_events("recording.h5", make_events(num=2_000, duration_us=60_000), source="test")
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len(snippet.strip().splitlines()) <= 15
    names: dict = {}
    exec(snippet, names)
    assert (names["voxel"].shape, names["output"].shape) == ((6, 8, 12, 16), (2, 8, 12, 16))
    assert (names["summary"].num_in, names["summary"].num_synthesised) == (2_000, 0), "A gate invents nothing."
    window = names["events"].window(names["t0_us"], names["t0_us"] + 20_000)
    assert len(names["kept"].kept) == len(window)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_parses(command, monkeypatch):
    optional_too = re.sub(r" \[([^\]]*)\]", r" \1", command)
    _, *words = shlex.split(optional_too)
    found = find_command(words)
    parameters = parameters_of(found.load())
    options, settings = parse(make_parser(found.name, found.about, parameters), parameters, words[1:])
    monkeypatch.chdir(PROJECT_ROOT)
    assert check(found.name, parameters, options, settings) is not None, (
        "Every option and setting is one that there is."
    )


def test_the_readme_shows_every_command():
    shown = {line.split()[1] for line in COMMANDS}
    assert {command.name for command in PROGRAM} == shown, "The README shows a use of each command."


def test_every_make_target_of_the_readme_exists():
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^|`|=\S+ )make ([a-z]+)", README, re.MULTILINE)
    assert {"quickstart", "test", "setup", "lab"} <= set(targets), "The README names the targets that a newcomer needs."
    for target in targets:
        assert f"\n{target}:" in makefile, f"The Makefile has no target {target}."


def test_every_linked_file_exists():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (PROJECT_ROOT / link).exists(), f"The README links to {link}, which is not there."
    for name in re.findall(r"^  (\w+\.py) ", README, re.MULTILINE):
        assert (PROJECT_ROOT / "deflare_core" / name).is_file()


def test_every_module_stands_in_the_readme():
    for path in (PROJECT_ROOT / "deflare_core").glob("[a-z]*.py"):
        assert path.name in README, f"{path.name} is missing from the README's file tree."
