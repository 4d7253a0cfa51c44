"""What Binder builds from: repo2docker takes it, all is pinned, and the badge leads there."""

import os
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.binder.files import FOLDER, ROOT, START, pins, python_version

EXTRAS = ("dask", "demo", "lab", "mcp", "tools")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_repo2docker_takes_the_files():
    done = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--no-run", "--debug", ROOT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    said = done.stdout + done.stderr
    assert 0 == done.returncode, said
    assert f"Building conda environment for python={python_version()}" in said
    assert 'bin/pip install --no-cache-dir -r "binder/requirements.txt"' in said
    assert "RUN ./binder/postBuild" in said


def test_post_build_is_a_program():
    assert os.access(FOLDER / "postBuild", os.X_OK)


def test_each_package_has_one_version():
    assert pins()
    for pin in pins():
        (only,) = pin.specifier
        assert "==" == only.operator
        assert "*" not in only.version


def test_the_versions_are_those_that_the_project_asks_for():
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins()}
    extras = project()["optional-dependencies"]
    asked = [*project()["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    for requirement in map(Requirement, asked):
        if requirement.name != project()["name"]:
            version = versions.get(canonicalize_name(requirement.name), "none")
            assert version in requirement.specifier, (requirement, version)


def test_the_python_is_one_that_the_project_asks_for():
    assert f"{python_version()}.0" in SpecifierSet(project()["requires-python"])


def test_the_versions_were_found_for_that_python_and_all_that_is_installed():
    _, command = (FOLDER / "requirements.txt").read_text().splitlines()[:2]

    assert f"--python-version {python_version()} " in command
    assert [f"--extra {extra}" in command for extra in EXTRAS] == [True] * len(EXTRAS)


def test_the_badge_leads_to_the_quickstart():
    readme = (ROOT / "README.md").read_text()

    assert f"https://mybinder.org/v2/gh/OWNER/hive-jupyter/HEAD?urlpath={START})" in readme
    assert (ROOT / START.removeprefix("lab/tree/")).is_file()
