"""The documentation names all that there is, and says the same as the code."""

import ast
import builtins
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from ipykernel.ipkernel import IPythonKernel
from traitlets import import_item

import hive_jupyter
from hive_jupyter import AuthorizationGuard, HiveManager, SwarmNode
from hive_jupyter.agents import AGENT_TOOLS
from hive_jupyter.cli import HiveApp
from hive_jupyter.config import HiveConfig
from hive_jupyter.delegation import BaseDelegation
from hive_jupyter.errors import remote_error
from hive_jupyter.jobs import Job
from hive_jupyter.leftovers.kinds import KINDS, REPOSITORY, kind_of_folder
from hive_jupyter.leftovers.report import report
from hive_jupyter.leftovers.watch import Finding
from hive_jupyter.notebook.magics import COMMANDS, COMMIT, DELEGATE
from hive_jupyter.protocol import (
    EXIT,
    FAILED,
    PROTOCOL_VERSION,
    READY,
    REPLY_METADATA,
    RUN_KEY,
    SIGNALLED,
    STARTED,
    WORKER_NAME,
)
from hive_jupyter.swarm.channels import _REQUIRED as REQUIRED_CONTENT
from hive_jupyter.swarm.messages import COMMS, OUTPUTS
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.worker.kernel import CoderWorker
from tools.write_settings import ROWS, table

ROOT = Path(__file__).parent.parent
COMMAND_LINE = (HiveApp, *(import_item(app) for app, _ in HiveApp.subcommands.values()))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The part of a page below a heading, up to the next one."""
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


# --- docs/configuration.md ---


def test_the_table_of_settings_is_as_the_traits_have_it():
    assert ROWS.findall(read("docs/configuration.md")) == [table()], "tools/write_settings.py"


def test_the_page_names_the_settings_that_are_read_when_the_hive_starts():
    page = read("docs/configuration.md")
    (names,) = re.findall(
        r"^((?:`\w+`(?:, | and )?)+) are read when the hive starts", page, re.MULTILINE
    )

    assert HiveConfig.class_trait_names(at_start=True) == re.findall(r"\w+(?=`)", names)


# --- docs/magics.md ---


def parsers():
    yield "## `%delegate` and `%%delegate`", DELEGATE
    yield "## `%commit`", COMMIT
    for name, parser in COMMANDS.items():
        yield f"### `%hive {name}`", parser


@pytest.mark.parametrize(("heading", "parser"), [*parsers()])
def test_a_magic_is_documented_with_all_its_flags(heading, parser):
    text = section(read("docs/magics.md"), heading)
    documented = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))
    flags = set(parser.flags) - {"-h", "--help"}

    assert set() == flags - documented
    assert set() == documented - set(parser.flags)


def test_no_command_is_documented_that_does_not_exist():
    page = read("docs/magics.md")

    assert list(COMMANDS) == re.findall(r"^### `%hive (\w+)`$", page, re.MULTILINE)


# --- docs/command-line.md ---


@pytest.mark.parametrize("app", COMMAND_LINE)
def test_a_command_is_documented_with_all_its_options(app):
    heading = f"## `{app.name.replace('jupyter-hive', 'jupyter hive')}`"
    text = section(read("docs/command-line.md"), heading)
    options = {f"--{name}" for name in (*app.aliases, *app.flags) if len(name) > 1}
    options |= {f"-{name}" for name in app.aliases if len(name) == 1}

    assert set() == options - set(re.findall(r"--?[\w-]+", text))


def test_every_subcommand_has_a_place_in_the_page():
    page = read("docs/command-line.md")

    assert list(HiveApp.subcommands) == re.findall(r"^## `jupyter hive (\w+)`$", page, re.MULTILINE)


# --- docs/tools.md ---


@pytest.mark.parametrize("tool", {**BUILT_IN, **AGENT_TOOLS}.values(), ids=lambda tool: tool.name)
def test_a_tool_is_documented_with_its_arguments(tool):
    (row,) = re.findall(rf"^\| `{tool.name}` \|.*$", read("docs/tools.md"), re.MULTILINE)
    arguments = re.findall(r"`(\w+)`", row.split("|")[2])

    assert list(tool.arguments) == arguments


# --- docs/protocol.md ---


def added_messages():
    """Those that a worker takes, and those that the host checks, beside Jupyter's own."""
    taken = {*CoderWorker.msg_types, *CoderWorker.control_msg_types}
    taken -= {*IPythonKernel.msg_types, *IPythonKernel.control_msg_types}
    answers = {kind.replace("_request", "_reply") for kind in taken}
    checked = {*REQUIRED_CONTENT} - OUTPUTS - COMMS - {"input_request", "execute_reply"}
    return taken | answers | checked


def test_the_messages_that_hive_adds_to_jupyters_are_documented():
    text = section(read("docs/protocol.md"), "## Message types")

    assert added_messages() == set(re.findall(r"^\|[ \w]*\| `(\w+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("## The header of a request", [RUN_KEY, WORKER_NAME]),
        ("## The metadata of a reply", [REPLY_METADATA]),
        ("## Host and supervisor", [STARTED, READY, FAILED, SIGNALLED, EXIT]),
    ],
)
def test_the_words_that_host_and_worker_share_are_documented(heading, words):
    text = section(read("docs/protocol.md"), heading)

    assert words == re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_the_version_of_the_protocol_is_the_one_in_the_page():
    assert f"It is version {PROTOCOL_VERSION} of these" in read("docs/protocol.md")


# --- docs/project-files.md ---


def test_the_files_on_which_tools_act_are_documented_as_they_are():
    rows = [
        f"| {kind.tool} | {kind.when} | {' '.join(f'`{name}`' for name in kind.patterns)} |"
        for kind in KINDS
    ]
    table = re.findall(r"^\| .* \| .* \| `.*` \|$", read("docs/project-files.md"), re.MULTILINE)

    assert rows == table


def test_the_message_in_the_page_is_that_of_the_code():
    moves = (("sub/.git", "sub/git-set-aside-by-hive-c17419ae"),)
    tasks = kind_of_folder((".vscode",))
    findings = [
        Finding(".vscode/tasks.json", "new", tasks),
        Finding("sub/.git", "new", REPOSITORY, moves),
    ]
    message = report(findings, ["coder"], "/home/ada/project")

    assert " ".join(message.split()) in " ".join(read("docs/project-files.md").split())


# --- README.md and docs/design.md ---


def test_the_two_commands_of_the_readme_exist():
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE)
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", read("README.md")))

    assert {"demo", "test"} <= named
    assert set() == named - set(targets)


def test_every_public_name_is_documented():
    pages = read("docs/python.md")

    assert [] == [name for name in hive_jupyter.__all__ if f"`{name}" not in pages]


def test_the_reference_shows_the_signatures_as_they_are():
    """Of each class in it: what a method takes and returns, word by word."""
    (block,) = re.findall(r"```pyi\n(class .*?)```", read("docs/python.md"), re.DOTALL)
    wrong = []
    for shown in ast.parse(block).body:
        home = inspect.getsourcefile(PUBLIC[shown.name])
        signatures = dict(signatures_of(ast.parse(Path(home).read_text()), shown.name))
        assert shown.body
        wrong += [
            (shown.name, method.name, signatures.get(method.name))
            for method in shown.body
            if signature(method) != signatures.get(method.name)
        ]

    assert [] == wrong


def test_the_exceptions_that_come_as_a_remote_error_alone_are_named():
    text = section(read("docs/python.md"), "## Errors")
    alone = [
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and not isinstance(remote_error(name, "", []), kind)
    ]

    assert alone
    assert [] == [name for name in alone if f"`{name}`" not in text]


PUBLIC = {
    kind.__name__: kind
    for kind in (HiveManager, BaseDelegation, Job, SwarmNode, AuthorizationGuard)
}


def signatures_of(tree, name):
    """The signatures of a class's methods, by their names."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield method.name, signature(method)


def signature(method):
    return type(method), ast.unparse(method.args), ast.unparse(method.returns)


def test_each_public_name_is_exported_once():
    assert len(hive_jupyter.__all__) == len(set(hive_jupyter.__all__))
    assert set(hive_jupyter.__all__) == set(hive_jupyter._HOMES)
    listed = read("docs/python.md")
    named = set(re.findall(r"from hive_jupyter import ([\w, ]+)", listed))
    assert {name.strip() for names in named for name in names.split(",")} <= set(
        hive_jupyter.__all__
    )


def test_the_map_of_the_house_names_every_module():
    """docs/design.md draws the package; a module that is not drawn was forgotten there."""
    drawn = section(read("docs/design.md"), "## The house")
    files = [
        path.name for path in (ROOT / "hive_jupyter").rglob("*.py") if path.name != "__init__.py"
    ]

    assert files
    assert [] == [name for name in files if not re.search(rf"(?<!\w){re.escape(name)}", drawn)]


def test_the_map_of_the_house_names_no_module_that_is_not_there():
    drawn = section(read("docs/design.md"), "## The house")
    files = {path.name for path in (ROOT / "hive_jupyter").rglob("*.py")}

    assert set() == set(re.findall(r"\b\w+\.py\b", drawn)) - files


def test_the_floors_of_the_house_are_those_that_are_checked():
    contract, *_ = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (told,) = re.findall(
        r"^Imports run one way: (.*?)\. ", read("docs/design.md"), re.MULTILINE | re.DOTALL
    )

    assert [{*re.findall(r"\w+", floor)} for floor in contract["layers"]] == [
        {*re.findall(r"`(\w+)`", floor)} for floor in told.split("above")
    ]


def test_no_kernelspec_is_called_hive():
    """As the README promises."""
    named = re.findall(r"jupyter kernelspec install .*--name (\S+)", read("docs/kernelspec.md"))

    assert named
    assert "hive" not in named


def test_the_python_example_of_the_readme_runs():
    """The block that begins with an import is executed as it stands."""
    (example,) = re.findall(r"```python\n(from .*?)```", read("README.md"), re.DOTALL)
    names = {}

    exec(compile(example, "README.md", "exec"), names)

    assert "3.0" == names["result"].value_repr
