"""Loading the extension with settings that cannot be: a kernel starts all the same."""

import pytest

from tests.front_end import FrontEnd


def configured(folder, *lines):
    """Settings in the user's ``ipython_kernel_config.py``."""
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("\n".join(["c = get_config()", *lines]))


def failure(played):
    """The error that a cell shows: its name and its text, without a stack of Hive's own."""
    assert played.reply["status"] == "error", played.messages
    (error,) = played.of("error")
    assert "hive_jupyter/" not in "".join(error["traceback"])
    return f"{error['ename']}: {error['evalue']}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.HiveConfig.timeout = 'soon'", "'soon' is no duration. Write seconds or a unit"),
        ("c.HiveConfig.memory = '10M'", "A worker cannot start in 10 MB. Give it at least 160 MB"),
        ("c.HiveConfig.workers = {'r': {'kernel': 'no-such'}}", 'No kernelspec "no-such"'),
    ],
)
def test_a_kernel_with_a_wrong_setting_starts_and_loading_says_what_is_wrong(tmp_path, line, said):
    configured(tmp_path, "c.InteractiveShellApp.extensions = ['hive_jupyter']", line)

    with FrontEnd(tmp_path) as kernel:
        assert kernel.play("1 + 1").reply["status"] == "ok"
        shown = failure(kernel.play("%load_ext hive_jupyter"))

    assert said in shown


def test_a_wrong_variable_of_the_environment_is_named_and_can_be_mended(tmp_path):
    with FrontEnd(tmp_path, HIVE_JUPYTER_TIMEOUT="soon") as kernel:
        shown = failure(kernel.play("%load_ext hive_jupyter"))
        mended = kernel.play(
            "import os\n"
            "os.environ['HIVE_JUPYTER_TIMEOUT'] = '30s'\n"
            "%load_ext hive_jupyter\n"
            "%delegate 6 * 7"
        )

    assert "HIVE_JUPYTER_TIMEOUT='soon'" in shown
    assert mended.order[-1] == ("execute_result", "42")


def test_a_worker_does_not_load_what_the_users_kernel_loads(tmp_path):
    """The settings of the user's kernel are not the worker's, so nothing nests by itself."""
    configured(tmp_path, "c.InteractiveShellApp.extensions = ['hive_jupyter']")

    with FrontEnd(tmp_path) as kernel:
        played = kernel.play("%delegate 'delegate' in get_ipython().magics_manager.magics['cell']")

    assert played.order[-1] == ("execute_result", "False")
