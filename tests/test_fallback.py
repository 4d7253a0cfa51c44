"""Instructions show the task whole, ready to copy, whatever is in it."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hive_jupyter.swarm.fallback import Instructions

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]))
TROUBLE = st.lists(
    st.sampled_from(["`", "```", "~~~", "\n", " ", "x", "'", '"', "\\", "\x1b[2J", "\r", "\0", "é"])
).map("".join)


def blocks(markdown):
    """The code blocks of a Markdown text, as CommonMark reads them: (info, content)."""
    found = []
    fence = None
    for line in markdown.split("\n"):
        ticks = len(line) - len(line.lstrip("`"))
        if fence is None and ticks >= 3:
            fence, info, content = ticks, line[ticks:], []
        elif fence is not None and ticks >= fence and not line[ticks:].strip():
            found.append((info, "\n".join(content)))
            fence = None
        elif fence is not None:
            content.append(line)
    assert fence is None, "a block was never closed"
    return found


def run_by_hand(copied, meant):
    """What a kernel would run: the copied code itself, or the cell that it hands over."""
    if copied.removesuffix("\n") == meant.removesuffix("\n"):
        return meant
    cells = []

    class Shell:
        run_cell = staticmethod(cells.append)

    exec(copied, {"get_ipython": Shell})
    return cells[0]


def test_it_says_what_why_how_and_when(monkeypatch):
    """The four things that a person needs, in a notebook and in a terminal."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    instructions = Instructions("x = 1", "Worker a failed.", retry_at=1030.0)
    when = time.strftime("%H:%M:%S", time.localtime(1030))

    for text in (instructions._repr_markdown_(), str(instructions)):
        assert "x = 1" in text
        assert "Worker a failed." in text
        assert "copy the code into a cell of its own" in text
        assert f"after {when}" in text


@pytest.mark.parametrize(
    ("retry_at", "text"), [(None, "once the cause named above is gone"), (0, "with your next cell")]
)
def test_it_says_when_there_is_no_time_to_wait_for(retry_at, text):
    """Either nothing but a change helps, or the rest is over."""
    assert text in str(Instructions("x", "no", retry_at=retry_at))


@given(task=ANY_TEXT | TROUBLE)
@example("x = '''\n```\n'''")
@example("`````")
@example("print('\x1b[31m')")
@example("a\r\nb\rc\x0cd\u2028e")
@example("")
@example("\n\n")
def test_the_block_to_copy_runs_exactly_the_task(task):
    """Fences within the code do not end the block, and no character gets lost."""
    (info, copied), *others = blocks(Instructions(task, "no")._repr_markdown_())
    meant = task.replace("\r\n", "\n").replace("\r", "\n")

    assert not others
    assert "python" == info
    assert copied.replace("\n", "").replace("\t", "").isprintable()
    assert meant == run_by_hand(f"{copied}\n", meant)


def test_long_code_is_never_cut():
    """The user copies it."""
    task = "\n".join(f"line_{number} = {number}" for number in range(50_000))
    instructions = Instructions(task, "no")

    assert task in instructions._repr_markdown_()
    assert task in str(instructions)


def test_tabs_and_letters_of_all_languages_stay_as_they_are():
    """Only what a screen would swallow or obey is escaped."""
    task = "if ünïcode:\n\tprint('日本語 🐝')"

    assert task in Instructions(task, "no")._repr_markdown_()


@given(ANY_TEXT | TROUBLE)
def test_a_terminal_is_not_steered(text):
    """No escape sequence of a task or a log reaches it."""
    for language in ("python", "r", ""):
        shown = str(Instructions(text, text, language=language))

        assert shown.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("reason", ["<script>x</script>", "*a* _b_ $c$ `d` [e](f)", "# g", "a|b"])
def test_a_reason_is_text_and_not_markup(reason):
    """It may quote what a worker wrote."""
    markdown = Instructions("x", reason)._repr_markdown_()
    first = markdown.split("\n")[0]

    assert first.replace("\\", "").endswith(reason)
    assert not [letter for letter in "<*_$`[#|" if f" {letter}" in first]


def test_the_tail_of_a_log_is_shown_as_it_is():
    """From the second line on."""
    reason = "The worker did not start. Its log ends with:\n*** ``` ***\n  deep"

    assert ("text", "*** ``` ***\n  deep") == blocks(Instructions("x", reason)._repr_markdown_())[0]


@pytest.mark.parametrize(
    ("language", "info", "how"),
    [
        ("python", "python", "your own kernel"),
        ("R", "r", "terminal for r"),
        ("c++", "c++", "terminal for c++"),
        ("x\n```\n", "text", "terminal for text"),
        ("", "text", "what the tool would have done"),
    ],
)
def test_each_language_has_its_way_by_hand(language, info, how):
    """And a language's name, which a kernel tells, cannot break the block."""
    markdown = Instructions("x", "no", language=language)._repr_markdown_()

    assert [(info, "x")] == blocks(markdown)
    assert how in markdown


def test_ipython_shows_it_in_a_terminal():
    """As its text, not as the repr of a dataclass."""
    from IPython.lib.pretty import pretty

    instructions = Instructions("x", "no")

    assert str(instructions) == pretty(instructions)
