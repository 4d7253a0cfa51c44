"""Jobs in a real JupyterLab and Notebook: what they say comes into their own cell."""

import shutil

import nbformat
import pytest

pytest.importorskip("jupyterlab", reason="make browser runs this")
pytest.importorskip("playwright.sync_api", reason="make browser runs this")
pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="needs Chromium: apt install chromium"
)

from playwright.sync_api import expect  # noqa: E402  it is known to be there

JOB = """%%delegate --bg -w train
import time
from pathlib import Path
from IPython.display import HTML, display
print("early", flush=True)
while not Path("go on").exists():
    time.sleep(0.01)
display(HTML("<b>late</b>"))
6 * 7"""
GO_ON = """%%delegate -w other
from pathlib import Path
import time
Path("go on").touch()
while True:
    time.sleep(0.01)"""
SLOW = "%%delegate\nimport time\nwhile True: time.sleep(0.01)"


def output_of(page, number):
    return page.locator(".jp-CodeCell").nth(number).locator(".jp-Cell-outputWrapper")


@pytest.mark.parametrize("front_end", ["doc/tree", "notebooks"], ids=["lab", "notebook"])
def test_a_job_comes_into_its_own_cell_while_another_runs(opened, place, front_end):
    (place.repo.folder / "go on").unlink(missing_ok=True)
    page = opened(JOB, GO_ON, front_end=front_end)

    job = output_of(page, 1)
    expect(job).to_contain_text("early")
    expect(job.locator("b", has_text="late")).to_be_visible()
    expect(job).to_contain_text("42")
    expect(job).to_contain_text("ok after")
    expect(page.locator(".jp-CodeCell").nth(2)).to_contain_text("[*]")


def test_tags_of_a_cell_stand_for_options(opened):
    tags = {"tags": ["hive-timeout=0.3", "hive-worker=tagged"]}
    page = opened(nbformat.v4.new_code_cell(SLOW, metadata=tags))

    expect(output_of(page, 1)).to_contain_text('Worker "tagged" was stopped after 300 ms')
