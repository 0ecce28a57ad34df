"""The commands on this machine and its notebooks: benchmark, notebook and doctor."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from runpy import run_path
from typing import Annotated

from pydantic import Field

from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError
from deflare_core.system.markdown import align_tables

MEASUREMENTS = "tests/benchmarks/machine_speed.py"


def benchmark(
    device: Annotated[str, Field(description="auto, cpu or cuda")] = "auto",
    output_dir: Annotated[Path | None, Field(description="none: reports/<date>_benchmark")] = None,
) -> None:
    """Measure this machine's speed, and print the tables; the measurements are with the tests, in a clone."""
    from deflare_core.show.run_index import list_report
    from deflare_core.system.devices import pick_device
    from deflare_core.system.places import PROJECT_ROOT

    folder, script = output_dir or Path("reports") / f"{date.today():%Y-%m-%d}_benchmark", PROJECT_ROOT / MEASUREMENTS
    if not script.exists():
        raise DeflareError(f"{script}: is missing; the benchmark is part of a clone of the repository, run it there.")
    measure = run_path(str(script))["run_benchmark"]
    print(align_tables(measure(pick_device(device), folder)) + f"\nReport in {folder}")
    list_report(folder)


def notebook(
    name: Annotated[str, Field(description="number, name or path of a notebook, such as 00")],
    reading: Reading,
    parameter: Annotated[
        list[tuple[str, str]],
        Field(
            description="set a parameter", json_schema_extra={"nargs": 2, "action": "append", "metavar": "NAME VALUE"}
        ),
    ] = [],  # noqa: B006
    app: Annotated[bool, Field(description="show it in a browser without its code; for 05, the viewer")] = False,
    port: Annotated[int, Field(description="of the app, on this machine")] = 8866,
) -> None:
    """Run a notebook with parameters, or show it as an app."""
    from deflare_core.app.notebook import parameter_value, reading_parameters, run_notebook, serve_notebook

    parameters = reading_parameters(reading) | {key: parameter_value(key, text) for key, text in parameter}
    if app:
        serve_notebook(name, parameters, port=port)
    print(f"report in {run_notebook(name, parameters)}")


def doctor() -> int:
    """Print what works of the installation, and return 1 if a part does not."""
    from deflare_core.app.doctor import examine

    failed = 0
    for subject, works, seen in examine():
        print(f"{'ok  ' if works else 'FAIL'} {subject:9} {seen}")
        failed += not works
    return 1 if failed else 0
