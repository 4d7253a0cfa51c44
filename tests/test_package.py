"""Importing the package costs next to nothing, and its public names are what it says."""

import subprocess
import sys

import pytest

import hive_jupyter

HEAVY = ("zmq", "IPython", "ipykernel", "jupyter_client", "ipywidgets", "traitlets", "asyncio")


def test_importing_the_package_imports_nothing_heavy():
    """Every kernel with the extension in its configuration pays for it."""
    program = f"import sys, hive_jupyter; print(*[n for n in {HEAVY} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )

    assert not answer.stdout.split()


def test_the_public_names_are_those_that_are_exported_lazily():
    """Sorted, so that a name has one place."""
    assert list(hive_jupyter._HOMES) == hive_jupyter.__all__ == sorted(hive_jupyter.__all__)


@pytest.mark.parametrize("name", hive_jupyter.__all__)
def test_every_public_name_is_where_it_is_said_to_be(name):
    """And is Hive's own."""
    value = getattr(hive_jupyter, name)

    assert name == value.__name__
    assert value.__module__.startswith("hive_jupyter.")


def test_public_names_can_be_completed():
    """Tab shows them before they are used."""
    assert set(hive_jupyter.__all__) <= set(dir(hive_jupyter))


def test_an_unknown_name_is_an_attribute_error():
    """As for any module."""
    with pytest.raises(AttributeError, match="'hive_jupyter' has no attribute 'Hive'"):
        _ = hive_jupyter.Hive


def test_nothing_is_logged_unless_asked_for():
    """The host's own logging is the user's."""
    program = "import logging, hive_jupyter; logging.getLogger('hive_jupyter').error('x')"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ("", "") == (answer.stdout, answer.stderr)
