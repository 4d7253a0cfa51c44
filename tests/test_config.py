"""Settings come from code, configuration and environment, in that order."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets.config import Config, Configurable

from hive_jupyter.config import ENVIRONMENT_PREFIX, PASSED_VARIABLES, HiveConfig
from hive_jupyter.errors import ConfigError
from hive_jupyter.protocol import WORKER_VARIABLE

NAMES = sorted(HiveConfig.class_trait_names(config=True))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """The environment of whoever runs the tests sets nothing."""
    for name in NAMES:
        monkeypatch.delenv(ENVIRONMENT_PREFIX + name.upper(), raising=False)


def test_code_wins_over_configuration_over_environment(monkeypatch):
    """The order that the module's docstring promises."""
    monkeypatch.setenv("HIVE_JUPYTER_TIMEOUT", "1s")
    monkeypatch.setenv("HIVE_JUPYTER_SPARES", "2")
    monkeypatch.setenv("HIVE_JUPYTER_WORKER", "environment")
    configuration = Config({"HiveConfig": {"timeout": "2s", "spares": 3}})

    settings = HiveConfig(config=configuration, timeout="3s")

    assert (3, 3, "environment") == (settings.timeout, settings.spares, settings.worker)


def test_the_configuration_of_a_parent_counts(monkeypatch):
    """The magics hand themselves over as parent."""
    monkeypatch.setenv("HIVE_JUPYTER_SPARES", "2")
    parent = Configurable(config=Config({"HiveConfig": {"spares": 3}}))

    assert 3 == HiveConfig(parent=parent).spares


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DIRECT", "0", False),
        ("MEMORY", "2G", 2 * 2**30),
        ("MEMORY", "none", None),
        ("TIMEOUT", "none", None),
        ("TIMEOUT", "1.5m", 90),
        ("PROCESSES", "64", 64),
        ("PROCESSES", "none", None),
        ("OPEN_FILES", "0", None),
        ("INTERRUPT_GRACE", "0", 0),
        ("SANDBOX", "workspace", "workspace"),
        ("PASS_ENVIRONMENT", "A, B_* C,", ["A", "B_*", "C"]),
        ("PASS_ENVIRONMENT", " , ", []),
        ("TOOL_MODULES", "mytools, pkg.tools", ["mytools", "pkg.tools"]),
        ("COMMIT_FILTERS", "lfs nbstripout", ["lfs", "nbstripout"]),
        ("COMMIT_FILTERS", ",", []),
        ("ENVIRONMENT", '{"A": "1"}', {"A": "1"}),
        ("ENVIRONMENT", "A=1", {"A": "1"}),
        ("WORKERS", '{"r": {"kernel": "ir"}}', {"r": {"kernel": "ir"}}),
    ],
)
def test_the_environment_is_read(monkeypatch, name, text, value):
    """Each kind of setting can be said in one line of text."""
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name, text)

    assert value == getattr(HiveConfig(), name.lower())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TIMEOUT", "soon"),
        ("CONNECT_TIMEOUT", "none"),
        ("MEMORY", "much"),
        ("MAX_CELL_BYTES", "0"),
        ("SPARES", "-1"),
        ("SPARES", "two"),
        ("PROCESSES", "many"),
        ("PROCESSES", "31"),
        ("OPEN_FILES", "-1"),
        ("SANDBOX", "stict"),
        ("DIRECT", "maybe"),
        ("PASS_ENVIRONMENT", "*"),
        ("PASS_ENVIRONMENT", "['A']"),
        ("ENVIRONMENT", "("),
        ("ENVIRONMENT", "{(}"),
        ("ENVIRONMENT", "{[]: 1}"),
    ],
)
def test_a_bad_environment_is_a_config_error(monkeypatch, name, text):
    """Never a TraitError, and never ignored."""
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name, text)

    with pytest.raises(ConfigError):
        HiveConfig()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ENVIRONMENT", "{A: 1}", 'Write {"A": "1"}.'),
        ("WORKERS", "r", 'Write {"r": {"kernel": "ir"}}.'),
    ],
)
def test_what_is_no_dict_gets_one_to_copy(monkeypatch, name, text, said):
    """Instead of what a parser of Python says."""
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name, text)

    with pytest.raises(ConfigError) as caught:
        HiveConfig()

    assert f"HIVE_JUPYTER_{name}={text!r}: {text!r} is no dict. {said}" == str(caught.value)


@pytest.mark.parametrize("text", ["maybe", "%r", "yes", " "])
def test_what_is_neither_true_nor_false_gets_the_words_to_choose_from(monkeypatch, text):
    """And the variable and its value are named."""
    monkeypatch.setenv("HIVE_JUPYTER_DIRECT", text)

    with pytest.raises(ConfigError) as caught:
        HiveConfig()

    said = f"HIVE_JUPYTER_DIRECT={text!r}: {text!r} is neither true nor false. "
    assert said + "Write 1 or true, or 0 or false." == str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_is_not_set(monkeypatch, name):
    """Which is how a shell or a container file often unsets one."""
    default = getattr(HiveConfig(), name)
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name.upper(), "")

    assert default == getattr(HiveConfig(), name)


@given(name=st.sampled_from(NAMES), text=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_environment_breaks_the_settings(name, text):
    """Any text sets something or is a ConfigError."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT_PREFIX + name.upper(), text.replace("\0", ""))
        with contextlib.suppress(ConfigError):
            HiveConfig()


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": -1},
        {"timeout": math.nan},
        {"timeout": "x"},
        {"timeout": []},
        {"timeout": 1e300},
        {"connect_timeout": None},
        {"connect_timeout": math.inf},
        {"memory": -1},
        {"memory": 1.5},
        {"memory": 2**63},
        {"max_cell_bytes": None},
        {"max_failures": 0},
        {"pass_environment": [1]},
        {"pass_environment": ["A=1"]},
        {"tool_modules": ["my-tools"]},
        {"commit_filters": ["a=b"]},
        {"commit_filters": [""]},
        {"start_method": "spawn"},
    ],
    ids=repr,
)
def test_a_bad_value_is_refused(settings):
    """What a timer or a limit cannot hold is said at once."""
    with pytest.raises(ConfigError):
        HiveConfig(**settings)


def test_a_change_is_made_whole_or_not_at_all():
    """And nobody hears of one that is not made."""
    settings = HiveConfig(environment={"A": "1"})
    heard = []
    settings.observe(lambda change: heard.append((change.name, change.new)))

    for wrong in ({"max_failures": 0}, {"environment": {"": "1"}}, {"memory": "much"}):
        with pytest.raises(ConfigError):
            settings.change(timeout=5, **wrong)
    assert (None, []) == (settings.timeout, heard)

    settings.change(timeout="5s", environment={"B": "2"})
    assert (5, {"B": "2"}) == (settings.timeout, settings.environment)
    assert [("timeout", 5), ("environment", {"B": "2"})] == heard


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"memory": "1K"}, ConfigError, "cannot start in 1 KB"),
        ({"memory": "10M", "sandbox": "workspace"}, ConfigError, "at least 160 MB"),
        ({"readable_paths": ["data"]}, ConfigError, "has to be a whole one"),
    ],
)
def test_a_policy_that_no_worker_can_have_is_refused_when_it_is_set(wrong, error, said):
    """Not when the next worker is to start."""
    settings = HiveConfig(memory="1G")

    with pytest.raises(error, match=said):
        settings.change(**wrong)

    assert ("workspace", 2**30) == (settings.sandbox, settings.memory)


def test_other_settings_can_change_beside_a_policy_that_no_worker_can_have():
    """A configured one is refused by the next worker, and by nothing else."""
    settings = HiveConfig(memory="1K")

    settings.change(timeout=5)
    settings.change(memory="1G")

    assert (5, 2**30) == (settings.timeout, settings.memory)


@pytest.mark.parametrize("nothing", [None, 0, "0", "none", "None", math.inf])
def test_no_limit_has_one_value(nothing):
    """However it is said, it is None."""
    assert HiveConfig(timeout=nothing).timeout is None


@pytest.mark.parametrize("limit", ["memory", "cpu_time", "processes", "open_files", "file_size"])
@pytest.mark.parametrize("nothing", [None, 0, "0", "none", "None"])
def test_each_limit_of_a_worker_can_be_none(limit, nothing):
    """Said in the same ways."""
    assert getattr(HiveConfig(**{limit: nothing}), limit) is None
    assert getattr(HiveConfig(**{limit: nothing}).policy(), limit) is None


def test_a_mistyped_setting_gets_its_neighbour():
    """Instead of being ignored."""
    with pytest.raises(ConfigError, match='Did you mean "timeout"'):
        HiveConfig(timeuot=3)


def test_every_setting_is_explained():
    """``%hive config`` shows the help."""
    assert [] == [name for name in NAMES if not HiveConfig.class_traits()[name].help]


def test_the_mark_of_a_worker_is_no_setting():
    """Else a default worker's name in the environment would look like being inside a worker."""
    assert WORKER_VARIABLE not in {ENVIRONMENT_PREFIX + name.upper() for name in NAMES}


def test_no_variable_that_grants_a_right_is_passed():
    """Neither by name nor by a pattern."""
    secrets = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "HTTPS_PROXY", "HF_TOKEN")

    assert not set(secrets) & set(PASSED_VARIABLES)
    assert not [
        (secret, pattern)
        for secret in secrets
        for pattern in PASSED_VARIABLES
        if pattern.endswith("*") and secret.startswith(pattern[:-1])
    ]


def test_the_rule_for_outputs_is_none_by_that_word(monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_OUTPUTS", "None")

    assert HiveConfig().outputs is None


def test_what_is_no_rule_for_outputs_is_answered_with_the_rules(monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_OUTPUTS", "trustd")

    with pytest.raises(ConfigError, match=r"Write trusted, framed, inert, or none\..*trusted"):
        HiveConfig()
