"""Late imports: a function of a module that is not loaded before it is called."""

import sys

from deflare_core.system.late_imports import import_late


def test_a_module_is_loaded_when_its_function_is_called(tmp_path, monkeypatch):
    (tmp_path / "slow_to_load.py").write_text("def add(a, b=1):\n    return a + b\n")
    monkeypatch.syspath_prepend(tmp_path)
    with import_late("slow_to_load"):
        from slow_to_load import add
    assert "slow_to_load" not in sys.modules, "Importing the function loads nothing."
    assert add(2, b=3) == 5, "Called, it does what it does in its module."
    assert sys.modules.pop("slow_to_load").add is not add, "The module itself is as it comes."


def test_a_module_that_is_loaded_stays():
    import colorsys

    with import_late("colorsys"):
        from colorsys import hsv_to_rgb
    assert hsv_to_rgb is colorsys.hsv_to_rgb, "There is nothing to put off."
