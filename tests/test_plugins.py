"""User-defined code: found by name, loaded with one-line errors, and hashed completely."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from bsk.errors import UsageError
from bsk.plugins import code_sha256, is_plugin, load

FILES = {
    "mycode.py": "from mynets import blocks\nfrom myother import three\ndef my_method(): return three\n",
    "myother.py": "three = 3\n",
    "mynets/__init__.py": "",
    "mynets/blocks.py": "from . import parts\nfrom .sub.deep import four\n",
    "mynets/parts.py": "def late():\n    import mylate\n",
    "mynets/sub/__init__.py": "from ..above import five\n",
    "mynets/sub/deep.py": "four = 4\n",
    "mynets/above.py": "five = 5\n",
    "mylate.py": "six = 6\n",
}
ALOOF = {"mynets/unused.py": "", "mystranger.py": ""}


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch):
    """Let each test import its own files again."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.startswith("my")]:
        del sys.modules[name]


def written(folder: Path, files: dict[str, str] = FILES | ALOOF) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def in_a_process(folder: Path, before: str = "") -> str:
    """Return the hash as a fresh process finds it."""
    words = f"{before}\nfrom bsk.plugins import load\nprint(load('mycode:my_method', '--method').sha256)"
    return subprocess.run([sys.executable, "-c", words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_function_is_found_by_module_and_name(tmp_path: Path, monkeypatch, capsys) -> None:
    written(tmp_path, {"mytalk.py": "print('hello')\ndef net(): return 7\n"})
    monkeypatch.chdir(tmp_path)
    plugin = load("mytalk:net", "--model")
    assert plugin.spec == "mytalk:net" and plugin.function() == 7 and len(plugin.sha256) == 64
    assert capsys.readouterr() == ("", "hello\n")
    assert is_plugin("mytalk:net") and not is_plugin("resnet18")


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        ("def my_method(): 0\n", "myown:my_methd", "--method myown:my_methd: myown has no my_methd; did you mean my_"),
        ("", "mynone:f", "--method mynone:f: no module mynone here or on PYTHONPATH"),
        ("", "mynone.deep:f", "--method mynone.deep:f: no module mynone.deep here"),
        ("", "myown.deep:f", "--method myown.deep:f: no module myown.deep here"),
        ("", "myown:", "--method myown:: expected module:function"),
        ("", ":f", "--method :f: expected module:function"),
        ("", "myown.py:f", "--method myown.py:f: no module myown.py here"),
        ("", "a:b:c", "--method a:b:c: expected module:function"),
        ("f = 3\n", "myown:f", "--method myown:f: expected a function, found int"),
        ("raise SystemExit\n", "myown:f", "--method myown:f: SystemExit: no message; check myown"),
        ("1 / 0\n", "myown:f", "--method myown:f: ZeroDivisionError: division by zero; check myown"),
        ("def f(:\n", "myown:f", "--method myown:f: SyntaxError: "),
        ("import mynowhere\n", "myown:f", "--method myown:f: ModuleNotFoundError: No module named 'mynowhere'"),
    ],
)
def test_a_failure_is_one_line(text: str, spec: str, said: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(written(tmp_path, {"myown.py": text}))
    with pytest.raises(UsageError) as refused:
        load(spec, "--method")
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_code_that_changes_the_working_folder_leaves_ours_unchanged(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "walker.py").write_text("import os\nos.chdir('/')\ndef function():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    load("walker:function", "--model")
    assert Path.cwd() == tmp_path


def test_a_folder_that_is_gone_hides_no_module(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "elsewhere.py").write_text("def function():\n    return 3\n")
    (tmp_path / "gone").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert load("elsewhere:function", "--model").function() == 3


def test_the_hash_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    here, there = written(tmp_path / "here"), written(tmp_path / "there")
    plain = in_a_process(here)
    assert plain == in_a_process(there)
    assert plain == in_a_process(here, "import mycode, mynets.sub.deep, mynets.unused, mystranger, mylate")


@pytest.mark.parametrize("name", FILES)
def test_an_edit_of_any_file_that_is_imported_changes_the_hash(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(written(tmp_path))
    before = code_sha256("mycode")
    with (tmp_path / name).open("a") as file:
        file.write("# edited\n")
    assert code_sha256("mycode") != before


@pytest.mark.parametrize("name", ALOOF)
def test_an_edit_of_any_other_file_does_not(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(written(tmp_path))
    before = code_sha256("mycode")
    (tmp_path / name).write_text("# edited\n")
    assert code_sha256("mycode") == before


@pytest.mark.parametrize("name", ["mylisted/one.py", "mylisted/deep/two.py"])
def test_a_package_that_imports_by_computed_names_counts_whole(name: str, tmp_path: Path, monkeypatch) -> None:
    text = "import importlib\ndef net(n): return importlib.import_module('mylisted.' + n)\n"
    monkeypatch.syspath_prepend(written(tmp_path, {"mylisted/__init__.py": text, name: ""}))
    before = code_sha256("mylisted")
    (tmp_path / name).write_text("# edited\n")
    assert code_sha256("mylisted") != before


def test_code_that_was_edited_after_its_import_keeps_the_hash_of_what_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(written(tmp_path))
    before = load("mycode:my_method", "--method").sha256
    (tmp_path / "mycode.py").write_text("def my_method(): return 'other'\n")
    assert load("mycode:my_method", "--method").sha256 == before
    del sys.modules["mycode"]
    again = load("mycode:my_method", "--method")
    assert again.function() == "other" and again.sha256 != before


def test_installed_code_and_that_of_python_is_not_hashed(tmp_path: Path, monkeypatch) -> None:
    site = written(tmp_path / "site-packages", {"myinstalled.py": ""})
    written(tmp_path, {"mymodule.py": "import json, torch, bsk.errors, myinstalled\n"})
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(site), *sys.path])
    before = code_sha256("mymodule"), code_sha256("myinstalled")
    (site / "myinstalled.py").write_text("# another version\n")
    assert code_sha256("mymodule") == before[0] and code_sha256("myinstalled") != before[1]


def test_of_an_installed_package_the_version_counts_and_not_the_device_it_was_built_for(monkeypatch) -> None:
    found = {}
    for version in ("0.25.0", "0.25.0+cpu", "0.25.0+cu128", "0.25.0+rocm6.4", "0.25.1+cpu", "0.25.0+mine"):
        monkeypatch.setattr("importlib.metadata.version", lambda name, version=version: version)
        found[version] = code_sha256("torchvision.models")
    assert len({found[each] for each in ("0.25.0", "0.25.0+cpu", "0.25.0+cu128", "0.25.0+rocm6.4")}) == 1
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(("script", "edited"), [("script.py", "script.py"), ("script", "helper.py")])
def test_an_edit_of_a_script_or_its_imports_changes_the_hash_of_its_functions(
    script: str, edited: str, tmp_path: Path
) -> None:
    text = "from bsk.plugins import load\ndef mine(): import helper\nprint(load('__main__:mine', '--method').sha256)\n"
    (tmp_path / script).write_text(text)
    (tmp_path / "helper.py").write_text("")
    found = []
    for _ in range(2):
        words = [sys.executable, script]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout)
        with (tmp_path / edited).open("a") as file:
            file.write("# edited\n")
    assert found[0] != found[1]


def test_a_function_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook or at a prompt, where code changes and bsk would not notice."""
    module = ModuleType("__main__")
    vars(module)["mine"] = lambda: None
    monkeypatch.setitem(sys.modules, "__main__", module)
    with pytest.raises(UsageError, match="--method __main__:mine: has no file whose changes bsk could notice; put"):
        load("__main__:mine", "--method")


def test_code_in_an_archive_is_hashed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, text in (("a", "x = 1\n"), ("b", "x = 2\n"), ("c", "x = 1\n")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("packed.py", text)
        monkeypatch.syspath_prepend(tmp_path / f"{name}.zip")
        found.append(code_sha256("packed"))
    assert found[0] == found[2] != found[1]
