"""What the user's own Python, shell and Jupyter run later."""

import os

from tests.security.abuse import append, facts, read, write
from tests.security.probe import IN_WORKSPACE, NOWHERE, harm, topic

probe = topic("What runs with the user's rights later")


@probe("adds a `.pth` file to the project's `.venv`")
def pth_file():
    write(f"{facts.site}/planted.pth", "")


@probe("adds `sitecustomize.py` to it")
def sitecustomize():
    write(f"{facts.site}/sitecustomize.py", "")


@probe("changes a module that is installed there")
def installed_module():
    append(f"{facts.site}/hive_jupyter/errors.py", "")


@probe("poisons the bytecode of an installed module")
def bytecode():
    folder = f"{facts.site}/hive_jupyter/__pycache__"
    os.makedirs(folder, exist_ok=True)
    write(f"{folder}/planted.pyc")


@probe("puts another Python in its place", fresh=True)
def replace_python():
    python = f"{facts.venv}/bin/python"
    target = os.readlink(python)
    os.unlink(python)
    os.symlink(target, python)


@probe("points `pyvenv.cfg` to another Python")
def pyvenv():
    append(f"{facts.venv}/pyvenv.cfg", "")


@probe("renames the `.venv`", fresh=True)
def rename_venv():
    away = f"{facts.project}/data/venv"
    os.rename(facts.venv, away)
    os.rename(away, facts.venv)


@probe("puts a program into the `bin` of the `.venv`")
def venv_bin():
    write(f"{facts.venv}/bin/git", "#!/bin/sh\n")
    os.unlink(f"{facts.venv}/bin/git")


@probe("puts a program into a folder of the project that is on PATH")
def project_bin():
    write(f"{facts.project}/bin/git", "#!/bin/sh\n")
    os.unlink(f"{facts.project}/bin/git")


@probe("changes a program in a folder of the project that is on PATH")
def project_program():
    append(f"{facts.project}/bin/tool", "")


@probe("moves a folder away that holds one on PATH, to put another in its place", fresh=True)
def move_tools():
    away = f"{facts.project}/data/tools"
    os.rename(f"{facts.project}/tools", away)
    os.rename(away, f"{facts.project}/tools")


@probe(
    "makes a folder of the project that is on PATH, and was not there yet",
    fresh=True,
    folder="later",
)
def later_on_path():
    folder = f"{facts.later}/bin"
    os.mkdir(folder)
    try:
        write(f"{folder}/git", "#!/bin/sh\n")
        os.unlink(f"{folder}/git")
    finally:
        os.rmdir(folder)


@probe(
    "points a link in the project that PATH leads through elsewhere",
    fresh=True,
    folder="signposted",
)
def link_on_path():
    link = f"{facts.signposted}/bin"
    target = os.readlink(link)
    os.unlink(link)
    os.symlink(target, link)


@probe(
    "points a link in the project that leads to an environment elsewhere",
    fresh=True,
    folder="signposted",
)
def link_to_environment():
    link = f"{facts.signposted}/env"
    target = os.readlink(link)
    os.unlink(link)
    os.symlink(target, link)


@probe("writes `.git/config` where such a folder is missing", fresh=True, folder="later")
def git_beside_later():
    append(f"{facts.later}/.git/config", "")


@probe("moves a folder away that holds an environment, to put another in its place", fresh=True)
def move_environment():
    away = f"{facts.project}/data/environments"
    os.rename(f"{facts.project}/environments", away)
    os.rename(away, f"{facts.project}/environments")


@probe("puts a program into `~/bin`")
def home_bin():
    write(f"{facts.home}/bin/git", "#!/bin/sh\n")
    os.unlink(f"{facts.home}/bin/git")


@probe("adds `usercustomize.py` to the user's site folder")
def user_site():
    write(f"{facts.user_site}/usercustomize.py", "")
    os.unlink(f"{facts.user_site}/usercustomize.py")


@probe("adds a file to IPython's startup folder")
def ipython_startup():
    write(f"{facts.home}/.ipython/profile_default/startup/00-planted.py", "")


@probe("changes IPython's configuration")
def ipython_config():
    write(f"{facts.home}/.ipython/profile_default/ipython_config.py", "")


@probe("changes Jupyter's configuration")
def jupyter_config():
    append(f"{facts.home}/.jupyter/jupyter_server_config.json", "")


@probe("adds a kernelspec")
def kernelspec():
    os.makedirs(f"{facts.jupyter}/kernels/planted", exist_ok=True)
    write(f"{facts.jupyter}/kernels/planted/kernel.json", "{}")


@probe("lists the runtime folder of the user's hives")
def list_runtime():
    return os.listdir(os.path.dirname(facts.runtime))


@probe("writes into the runtime folder of the host")
def write_runtime():
    write(f"{facts.runtime}/planted")
    os.unlink(f"{facts.runtime}/planted")


@probe("reads the log of another worker")
def read_log():
    return read(f"{facts.sibling_folder}/log")


@probe("writes into the folder of another worker")
def write_folder():
    write(f"{facts.sibling_folder}/planted")
    os.unlink(f"{facts.sibling_folder}/planted")


@probe(
    "has the host take a secret for the worker's log",
    possible=NOWHERE,
    why="the host follows no link of a worker's, in every profile",
    fresh=True,
)
def log_of_secret():
    os.unlink(f"{facts.own_folder}/log")
    os.symlink(f"{facts.home}/.ssh/id_ed25519", f"{facts.own_folder}/log")


@harm(log_of_secret)
def _(world):
    return "SECRET" in world.last_log


@probe(
    "adds a task that an editor runs",
    possible=IN_WORKSPACE,
    why="it is a file of the project; Hive [tells](project-files.md) that it came",
    fresh=True,
)
def editor_task():
    os.makedirs(f"{facts.project}/deep/.vscode", exist_ok=True)
    write(f"{facts.project}/deep/.vscode/tasks.json", "{}")


@probe("changes the notebook", possible=IN_WORKSPACE, why="it is a file of the project")
def notebook():
    append(f"{facts.project}/notebook.ipynb", "")


@probe(
    "has a module of the project imported by the zygote or by a worker's start",
    possible=NOWHERE,
    why="both are isolated, and the project comes on the path last",
    fresh=True,
    folder="traps",
)
def shadowed_modules():
    """The folder has its own random.py, zmq.py and others; they leave a mark when they run."""
    import stack_data  # noqa: F401  where Hive has not imported it yet, this would be the project's


@harm(shadowed_modules)
def _(world):
    return world.marks.exists()


@probe(
    "plants a module of the project that the next zygote looks for (in an editable install)",
    possible=NOWHERE,
    why="a zygote imports nothing that a worker may write",
    fresh=True,
)
def optional_module():
    """The environment has the project on its path, and jupyter_client tries orjson."""
    write(
        f"{facts.project}/source/orjson.py",
        f"open({facts.marks!r}, 'a').write('planted')\nraise ModuleNotFoundError\n",
    )


@harm(optional_module)
def _(world):
    world.start_another_hive()
    ran = world.marks.exists()
    world.marks.unlink(missing_ok=True)
    (world.project / "source" / "orjson.py").unlink(missing_ok=True)
    return ran


@probe(
    "poisons the bytecode of a module of the project",
    possible=IN_WORKSPACE,
    why="it is the project's, and git does not show it where `__pycache__` is ignored: remove it "
    "if in doubt",
    fresh=True,
)
def project_bytecode():
    os.makedirs(f"{facts.project}/deep/er/__pycache__", exist_ok=True)
    write(f"{facts.project}/deep/er/__pycache__/module.cpython-311.pyc")
