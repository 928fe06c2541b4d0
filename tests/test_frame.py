"""The frame around the code: dependencies agree, imports point one way, files name no machine."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mlmkit

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "mlmkit").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

TOLD = " ".join((mlmkit.__doc__ or "").split())
ORDER = [*re.search(r"\w+(?: → \w+)+", TOLD)[0].split(" → "), "__main__"]
"""The modules as text flows through them, as the docstring of mlmkit tells it."""


@cache
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required(*extras: str) -> dict[str, Requirement]:
    """The direct dependencies of mlmkit and of these extras."""
    lines = list(project()["dependencies"])
    for extra in extras:
        lines += project()["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pinned(lines: list[str]) -> dict[str, str]:
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, version in pins}


@cache
def constraints() -> dict[str, str]:
    return pinned((ROOT / "constraints.txt").read_text().splitlines())


@cache
def environment() -> list[str | dict[str, list[str]]]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def conda_pip_lines() -> list[str]:
    return next(entry["pip"] for entry in environment() if isinstance(entry, dict))


# Dependencies


def test_every_direct_dependency_is_pinned_to_a_version_that_it_allows():
    for name, requirement in required("course", "hf", "dev").items():
        assert name in constraints(), f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(constraints()[name]), f"{requirement} but {constraints()[name]}"


def test_constraints_are_nothing_but_exact_versions():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), line
    assert lines == sorted(lines, key=str.lower)


def test_the_conda_environment_has_the_direct_dependencies_in_the_pinned_versions():
    pins = pinned(conda_pip_lines())
    assert pins.keys() == required("course").keys()
    assert pins == {name: constraints()[name] for name in pins}
    assert "-e ." in conda_pip_lines()


def test_the_conda_environment_has_a_python_that_the_package_allows():
    wanted = next(entry for entry in environment() if isinstance(entry, str) and entry.startswith("python="))
    assert SpecifierSet(project()["requires-python"]).contains(wanted.removeprefix("python="))


def test_the_makefile_asks_for_the_pythons_that_the_package_allows():
    lowest, highest = re.search(
        r"\((\d+, \d+)\) <= sys.version_info\[:2\] <= \((\d+, \d+)\)", (ROOT / "Makefile").read_text()
    ).groups()
    allowed = SpecifierSet(project()["requires-python"])
    minors = [minor for minor in range(30) if allowed.contains(f"3.{minor}")]
    assert [lowest, highest] == [f"3, {minors[0]}", f"3, {minors[-1]}"]


# What a reader and a CI job start with


def test_the_first_screen_of_the_readme_names_the_two_commands():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:60])
    assert "make course" in first_screen
    assert "make test" in first_screen


def test_ci_runs_lint_course_and_test_and_says_nothing_after_them():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if re.search(r"\bmake\b", line) and not line.startswith("#")]
    assert commands == ["timed make lint", "timed make course", "make test"]
    assert lines[-1] == commands[-1]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100, "it must be executable"


# Modules


def module_of(path: Path) -> str:
    """The entry of ORDER to which a file belongs; "" for the front of the package."""
    first = path.relative_to(ROOT / "mlmkit").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(path: Path) -> Iterator[str]:
    """The modules of mlmkit that a file imports, anywhere in it, as entries of ORDER."""
    package = ["mlmkit", *path.relative_to(ROOT / "mlmkit").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            names = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        for name in names:
            if name.split(".")[0] == "mlmkit":
                yield name.split(".")[1] if "." in name else ""


def test_every_module_has_its_place_in_the_order():
    assert sorted({module_of(path) for path in MODULES} - {""}) == sorted(ORDER)


@pytest.mark.parametrize("path", [path for path in MODULES if module_of(path)], ids=lambda path: path.stem)
def test_a_module_imports_only_from_modules_before_it(path: Path):
    own = module_of(path)
    for name in set(imported(path)) - {own}:
        assert name in ORDER, f"{path.name} imports from the front of the package"
        assert ORDER.index(name) < ORDER.index(own), f"{own} imports {name}, which comes after it"


def test_the_front_of_the_package_exports_what_its_modules_define():
    for name in mlmkit.__all__:
        assert getattr(mlmkit, name) is not None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "mlmkit")))
def test_a_module_can_be_read_in_one_sitting(path: Path):
    assert len(path.read_text().splitlines()) <= 350


# Files


@cache
def tracked() -> list[Path]:
    """The files that git tracks, or would with the next `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


needs_git = pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")


@needs_git
def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
    pattern = re.compile(r"(?<![\w.~])/(?:work|root)/[\w.-]")
    for path in tracked():
        found = pattern.search(path.read_text(errors="ignore"))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_names_a_folder_of_the_machine_it_was_run_on(path: Path):
    pattern = re.compile(r"(?<![\w.~])/(?:tmp|home|Users|work|root|opt|usr|var)/[\w.-]+")
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            shown = {mime: text for mime, text in output.get("data", {}).items() if "image" not in mime}
            text = json.dumps([shown, output.get("text", "")], ensure_ascii=False)
            assert not pattern.search(text), pattern.search(text)[0]
