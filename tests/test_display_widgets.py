"""Widgets of a confined worker pass as what is known of them, and drive nothing in the page."""

import contextlib
import datetime as dt
import itertools
import json
import string
import time
import uuid

import ipywidgets
import pytest
from comm.base_comm import BaseComm
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _registry
from tqdm.notebook import tqdm
from traitlets import TraitError

from hive_jupyter.display import traits
from hive_jupyter.display.rules import FRAMED, INERT
from hive_jupyter.display.widgets import METADATA, VIEW, Models
from tests.markup_soup import SOUPS
from tests.test_display_images import drawn
from tests.test_display_markup import check_harmless

CELL = "cell-1"
CONTROLS = "@jupyter-widgets/controls"
FORBIDDEN = "<img src=x onerror=alert(1)>"


class Sent(BaseComm):
    """A comm that keeps what ipywidgets sends, as JSON makes it."""

    messages = None

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        content = {"comm_id": self.comm_id, "data": data or {}, **keys}
        Sent.messages.append((msg_type, json.loads(json.dumps(content)), buffers or []))


@pytest.fixture
def sent(monkeypatch):
    messages = []
    monkeypatch.setattr(Sent, "messages", messages)
    monkeypatch.setattr("comm.create_comm", Sent)
    yield messages
    with contextlib.suppress(Exception):
        ipywidgets.Widget.close_all()


def models(rule=FRAMED):
    return Models(rule, "coder")


def take(known, messages):
    """What passes of messages."""
    return [known.passed(*message, CELL) for message in messages]


def state(name, version="2.0.0", module=CONTROLS, **values):
    return {
        "_model_name": name,
        "_model_module": module,
        "_model_module_version": version,
        **values,
    }


def identity():
    return uuid.uuid4().hex


def opened(known, name, *, to=None, buffers=(), paths=(), **values):
    """Open a model; gives its id, and the state that passed or None."""
    to = to or identity()
    module, version = {
        "LayoutModel": traits.BASE,
        "OutputModel": traits.OUTPUT,
    }.get(name, traits.CONTROLS)
    data = {"state": state(name, version, module, **values), "buffer_paths": list(paths)}
    content = {"comm_id": to, "target_name": "jupyter.widget", "data": data}
    found = known.passed("comm_open", content, list(buffers), CELL)
    return to, None if found is None else found[0]["data"]["state"]


def updated(known, to, method="update", buffers=(), paths=(), **values):
    data = {"method": method, "state": values, "buffer_paths": list(paths)}
    found = known.passed("comm_msg", {"comm_id": to, "data": data}, list(buffers), CELL)
    return None if found is None else found[0]["data"]["state"]


def reference(to):
    return f"IPY_MODEL_{to}"


def check_unchanged(messages):
    for (_, content, buffers), found in zip(messages, take(models(), messages), strict=True):
        assert found is not None, content
        passed, passed_buffers = found
        content.pop("target_module", None)
        assert content["data"].pop("state", {}) == passed["data"].pop("state", {})
        assert content == passed
        assert [bytes(buffer) for buffer in buffers] == passed_buffers


# What is used


def test_a_slider_with_its_layout_and_style_passes_unchanged(sent):
    slider = ipywidgets.FloatSlider(
        description="$x_1$",
        readout_format=".3f",
        style={"handle_color": "#1e1e1e", "description_width": "initial"},
        layout={"width": "50%", "margin": "0 0 2px 5px", "border": "1px solid lightgrey"},
    )
    slider.value = 3.5
    slider.close()
    check_unchanged(sent)


def test_every_widget_passes_as_it_is_made(sent):
    """Each of ipywidgets' own that is not left out."""
    for name in sorted(dir(ipywidgets)):
        made = getattr(ipywidgets, name)
        if isinstance(made, type) and issubclass(made, ipywidgets.DOMWidget):
            options = (
                {"options": ["a", "b"]} if "_options_labels" in made.class_trait_names() else {}
            )
            with contextlib.suppress(TypeError, TraitError):
                made(**options)
    known, names = models(), set()
    for kind, content, buffers in sent:
        found = known.passed(kind, content, buffers, CELL)
        told = content["data"]["state"]
        names.add(told["_model_name"])
        if told["_model_name"] not in LEFT_OUT:
            assert found is not None
            assert told == found[0]["data"]["state"]
    assert len(names) > 50
    assert {name.split()[0] for name in known.take_refused()} == LEFT_OUT & names


def test_interact_passes_unchanged(sent):
    box = ipywidgets.interactive(lambda x, y: x, x=(0, 10), y=["a", "b"])
    box.add_class("widget-interact")
    box.children[0].value = 7
    check_unchanged(sent)


def test_a_progress_bar_of_tqdm_passes(sent):
    for _ in tqdm(range(3), desc="a", mininterval=0, display=False):
        pass
    bar = tqdm(total=5, display=False)
    bar.container.children[0].value = " 40%"
    bar.container.children[2].value = " 2/5 [00:00&lt;00:01, 9.12it/s]"
    bar.colour = "green"
    bar.container.close()
    check_unchanged(sent)


def test_links_in_the_page_pass_unchanged(sent):
    slider, play, text = ipywidgets.IntSlider(), ipywidgets.Play(), ipywidgets.FloatText()
    ipywidgets.jslink((play, "value"), (slider, "value"))
    link = ipywidgets.jsdlink((slider, "value"), (text, "value"))
    tab = ipywidgets.Tab([slider, text], titles=["one", "two"])
    ipywidgets.jslink((slider, "max"), (tab, "selected_index"))
    link.target = (tab, "selected_index")
    check_unchanged(sent[:-1])


def test_layouts_pass_unchanged(sent):
    def button():
        return ipywidgets.Button(
            description="a", icon="check", tooltip="b", layout={"width": "auto", "height": "auto"}
        )

    grid = ipywidgets.GridspecLayout(20, 20, height="400px", grid_gap="3px 1em")
    grid[:3, 0] = button()
    grid[1:, 1] = button()
    ipywidgets.AppLayout(
        header=button(),
        left_sidebar=button(),
        center=button(),
        footer=button(),
        pane_widths=[3, 3, "60px"],
        pane_heights=[1, "5fr", "60px"],
    )
    ipywidgets.TwoByTwoLayout(top_left=button(), bottom_right=button())
    ipywidgets.GridBox(
        [button()],
        layout={
            "grid_template_columns": "[a] minmax(10px, 1fr) repeat(3, 25.5%) fit-content(40%)",
            "grid_row": "1 / -1",
            "grid_area": "2 / 1 / 4 / 3",
            "flex": "0 1 auto",
            "flex_flow": "row wrap",
            "overflow": "hidden auto",
            "display": "flex",
        },
    )
    ipywidgets.Accordion([ipywidgets.HBox([button()]), button()], titles=("a", "b"))
    ipywidgets.Stack([button(), button()], selected_index=0)
    check_unchanged(sent)


def test_selections_pass_unchanged(sent):
    options = [("one", 1), ("two", 2), ("<b>", 3)]
    for made in (
        ipywidgets.Dropdown,
        ipywidgets.Select,
        ipywidgets.RadioButtons,
        ipywidgets.SelectionSlider,
        ipywidgets.ToggleButtons,
    ):
        made(options=options).value = 2
    ipywidgets.SelectMultiple(options=options).value = (1, 3)
    ipywidgets.SelectionRangeSlider(options=options, index=(0, 2)).index = (1, 2)
    check_unchanged(sent)


def test_an_output_takes_text_and_pictures(sent):
    out = ipywidgets.Output()
    out.msg_id = CELL
    out.msg_id = ""
    out.append_stdout("text\n")
    out.append_display_data({"text/plain": "a", "text/html": "<b>a</b>"})
    out.outputs += (
        {
            "output_type": "error",
            "ename": "ValueError",
            "evalue": "a",
            "traceback": ["\x1b[31ma\x1b[0m"],
        },
    )
    check_unchanged(sent)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_a_picture_passes_unchanged(sent, kind):
    picture = ipywidgets.Image(value=drawn(f"image/{kind}"), format=kind, width=300)
    picture.value = drawn(f"image/{kind}", (9, 9))
    check_unchanged(sent)


def test_pickers_and_tags_pass_unchanged(sent):
    now = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    ipywidgets.DatePicker(value=now.date(), min=now.date(), step=2)
    ipywidgets.DatetimePicker(value=now)
    ipywidgets.NaiveDatetimePicker(value=now.replace(tzinfo=None))
    ipywidgets.TimePicker(value=now.time(), step="any")
    ipywidgets.ColorPicker(value="#00ff00")
    ipywidgets.TagsInput(value=["a", "b"], allowed_tags=["a", "b"], tag_style="info")
    ipywidgets.ColorsInput(value=["red", "#2f6d30"])
    ipywidgets.FloatsInput(value=[1.5, 2], format=".2f")
    ipywidgets.IntsInput(value=[1, 2], min=0, max=10)
    ipywidgets.FileUpload(multiple=True, accept="image/*,.csv")
    ipywidgets.FloatRangeSlider(value=(1, 2))
    ipywidgets.Combobox(options=["a"], ensure_option=True)
    check_unchanged(sent)


# What is known

# Audio and Video load an address and hand what they hold to decoders; the others read gamepads,
# and open models of the page's own. DOMWidgetModel is what Audio and Video are made of.
LEFT_OUT = {
    "AudioModel",
    "VideoModel",
    "ControllerModel",
    "ControllerAxisModel",
    "ControllerButtonModel",
    "DOMWidgetModel",
}
MADE_HERE = {f"_{what}_{part}" for what in ("model", "view") for part in ("module", "name")} | {
    "_model_module_version",
    "_view_module_version",
}


def registered():
    """ipywidgets' own: the view and the traits of each, by module, version and name."""
    found = {}
    for module, versions in _registry._registry.items():
        for version, names in versions.items():
            for name, views in names.items():
                for view_module, view_versions in views.items():
                    for view_version, view_names in view_versions.items():
                        for view, made in view_names.items():
                            keys = set(made.class_trait_names(sync=True))
                            found[module, version, name] = (view_module, view_version, view), keys
    return {key: made for key, made in found.items() if key[0].startswith("@jupyter-widgets/")}


def test_these_are_the_widgets_and_traits_of_ipywidgets():
    known = registered()
    assert known.keys() == traits.MODELS.keys() | {(*traits.CONTROLS, name) for name in LEFT_OUT}
    for key, model in traits.MODELS.items():
        view, names = known[key]
        assert view == model.view
        assert names - MADE_HERE == model.traits.keys(), key


def test_the_front_end_is_told_the_protocol_of_ipywidgets():
    assert METADATA["version"] == ipywidgets._version.__protocol_version__


def test_what_is_not_known_is_refused_and_named_once():
    known = models()
    for _ in range(2):
        for told in (
            state("AnyModel", "~0.9.*", "anywidget", _esm="alert(1)"),
            state("IntSliderModel", "1.5.0"),
            state("IntSliderModel", "2.0.0", "@jupyter-widgets/base"),
            state("VideoModel"),
            state(["x"], {}, None),
        ):
            content = {
                "comm_id": identity(),
                "target_name": "jupyter.widget",
                "data": {"state": told},
            }
            assert known.passed("comm_open", content, [], CELL) is None
    names = known.take_refused()
    assert "AnyModel (anywidget ~0.9.*)" in names
    assert 5 == len(names)
    assert [] == known.take_refused()


def test_names_of_what_is_refused_are_plain_and_bounded():
    known = models()
    for place in range(1000):
        opened(known, f"\x1b[2J{place}\n" + "x" * 1000)
    names = known.take_refused()
    assert len(names) <= 100
    assert all(len(name) <= 100 and name.isprintable() for name in names)


@pytest.mark.parametrize("target", ["jupyter.widget.control", "jupyter.widget.version", "x", None])
def test_another_comm_is_refused(target):
    content = {"comm_id": identity(), "target_name": target, "data": {"state": state("TextModel")}}
    assert models().passed("comm_open", content, [], CELL) is None


@pytest.mark.parametrize("to", ["", "x" * 32, "a" * 65, "A" * 32, "../a", 5, None, "__proto__"])
def test_another_id_is_refused(to):
    content = {
        "comm_id": to,
        "target_name": "jupyter.widget",
        "data": {"state": state("TextModel")},
    }
    assert models().passed("comm_open", content, [], CELL) is None


def test_an_id_is_opened_once_and_does_not_come_back():
    known = models()
    to, _ = opened(known, "TextModel")
    assert opened(known, "HTMLModel", to=to)[1] is None
    assert known.passed("comm_close", {"comm_id": to, "data": {}}, [], CELL)
    assert known.passed("comm_close", {"comm_id": to, "data": {}}, [], CELL) is None
    assert opened(known, "TextModel", to=to)[1] is None
    assert updated(known, to, value="x") is None
    assert known.view({"model_id": to}) is None


@pytest.mark.parametrize("method", ["custom", "request_state", "backbone", None, ["update"]])
def test_other_messages_are_refused(method):
    """A custom message to a view takes the keyboard, for one."""
    known = models()
    to, _ = opened(known, "TextModel")
    data = {"method": method, "content": {"do": "focus"}, "state": {"value": "x"}}
    assert known.passed("comm_msg", {"comm_id": to, "data": data}, [], CELL) is None


def test_the_number_of_widgets_is_bounded():
    known = models()
    ids = [opened(known, "LayoutModel", to=f"{place:x}")[0] for place in range(10_000)]
    assert opened(known, "LayoutModel")[1] is None
    known.passed("comm_close", {"comm_id": ids[0], "data": {}}, [], CELL)
    assert opened(known, "LayoutModel")[1] is not None


def test_where_nothing_may_be_asked_nothing_asks_for_a_password_or_files():
    for name in ("PasswordModel", "FileUploadModel"):
        assert opened(models(FRAMED), name)[1] is not None
        assert opened(models(INERT), name)[1] is None


# What the page would do


def test_names_of_models_and_views_are_not_the_workers():
    _, passed = opened(
        models(),
        "TextModel",
        _view_name="HTMLView",
        _view_module="anywidget",
        _view_module_version="0",
        _esm="alert(1)",
        _css="*",
    )
    assert ("TextView", CONTROLS, "2.0.0") == (
        passed["_view_name"],
        passed["_view_module"],
        passed["_view_module_version"],
    )
    assert not passed.keys() & {"_esm", "_css"}
    known = models()
    to, _ = opened(known, "TextModel")
    assert updated(known, to, _view_name="HTMLView", _model_name="HTMLModel") is None


@pytest.mark.parametrize("name", ["HTMLModel", "HTMLMathModel"])
@given(html=SOUPS)
def test_html_is_built_anew(name, html):
    known = models()
    to, passed = opened(known, name, value=html)
    check_harmless(passed["value"])
    check_harmless(updated(known, to, value=html)["value"])


def test_no_frame_is_put_into_a_widget():
    for html in ("<script>draw()</script>a", "<style>p { color: red }</style>a", "a" * 300_000):
        assert "<iframe" not in opened(models(), "HTMLModel", value=html)[1]["value"]


@pytest.mark.parametrize("name", ["HTMLMathModel", "LabelModel", "TextModel"])
def test_formulas_fetch_nothing(name):
    passed = opened(models(), name, value=r"$\style{cursor: url(//x)}{x}$")[1]
    assert r"\style" not in passed["value"]
    assert r"\bbox" not in opened(models(), name, description=r"$\bbox[x:y]{x}$")[1]["description"]


def test_a_description_is_no_html():
    known = models()
    to, passed = opened(known, "TextModel", description_allow_html=True, description=FORBIDDEN)
    assert passed["description_allow_html"] is False
    assert updated(known, to, description_allow_html=True) == {"description_allow_html": False}


def test_only_harmless_classes_pass():
    classes = ["widget-interact", "jp-Dialog", "lm-mod-hidden", "jp-Toolbar", FORBIDDEN]
    assert ["widget-interact"] == opened(models(), "BoxModel", _dom_classes=classes)[1][
        "_dom_classes"
    ]


@pytest.mark.parametrize(
    ("name", "trait", "value"),
    [
        ("ButtonModel", "icon", "check JP-Dialog"),
        ("ToggleButtonModel", "icon", "x jp-Dialog"),
        ("ToggleButtonModel", "icon", "x lm-mod-hidden"),
        ("ToggleButtonsModel", "icons", ["x lm-mod-hidden"]),
        ("ButtonModel", "button_style", "constructor"),
        ("BoxModel", "box_style", "__proto__"),
        # an error that has this in it becomes HTML of the page when it is clicked at
        ("IntSliderModel", "readout_format", FORBIDDEN),
        ("FloatsInputModel", "format", FORBIDDEN),
        ("IntSliderModel", "readout_format", "0999999999d"),
        ("IntSliderModel", "value", FORBIDDEN),
        ("IntSliderModel", "value", [FORBIDDEN]),
        ("IntSliderModel", "max", {"toString": FORBIDDEN}),
        ("IntSliderModel", "value", float("nan")),
        ("IntSliderModel", "value", 10**400),
        ("IntSliderModel", "value", True),
        ("IntSliderModel", "orientation", FORBIDDEN),
        ("DropdownModel", "_options_labels", [[FORBIDDEN]]),
        ("DropdownModel", "index", FORBIDDEN),
        ("DatePickerModel", "value", {"year": FORBIDDEN}),
        ("DatePickerModel", "value", {"toString": 1}),
        ("TextModel", "value", {"a": FORBIDDEN}),
        ("TextModel", "description", [FORBIDDEN]),
        ("TextModel", "value", "x" * 1_000_001),
        ("TextareaModel", "rows", 10**6),
        ("ColorPickerModel", "value", "url(//x.y)"),
        ("ColorsInputModel", "value", ["url(//x.y)"]),
        ("FileUploadModel", "value", [{"name": "x"}]),
        ("ImageModel", "format", "url"),
        ("ImageModel", "format", "svg+xml"),
        ("ImageModel", "width", "100vw"),
        ("ImageModel", "value", "https://x.y"),
    ],
)
def test_a_value_that_does_harm_does_not_pass(name, trait, value):
    known = models()
    to, passed = opened(known, name, **{trait: value})
    assert trait not in passed
    assert updated(known, to, **{trait: value}) is None


STYLES = [
    "url(//x.y)",
    "URL(//x.y)",
    r"\75rl(//x.y)",
    "var(--jp-x)",
    "calc(100% + 99px)",
    "calc (1px)",
    "env(x)",
    "attr(x)",
    "image-set('//x.y' 1x)",
    "linear-gradient(red, blue)",
    "expression(alert(1))",
    "-10px",
    "0 0 0 -10px",
    "0 -.5px",
    "100000px",
    "1e9px",
    "0.1e9px",
    "12345678901px",
    "red; position: fixed",
    "red !important",
    "1px/**/",
    "@import",
    "\"a'",
    '"<b>"',
    "a" * 20_001,
    ["1px"],
    5,
]


@pytest.mark.parametrize("value", STYLES)
def test_a_style_stays_in_its_place_and_fetches_nothing(value):
    known = models()
    for name, model in traits.MODELS.items():
        if name[2] == "LayoutModel" or name[2].endswith("StyleModel"):
            names = [trait for trait, kind in model.traits.items() if trait != "_view_count"]
            _, passed = opened(known, name[2], **dict.fromkeys(names, value))
            assert not passed.keys() & set(names)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_nothing_is_shifted(side):
    assert side not in opened(models(), "LayoutModel", **{side: "10px"})[1]


def test_a_style_takes_no_longer_than_its_length():
    began = time.process_time()
    for piece in ("a", "1", "a ", "(", "#a", "'", '"', "rgb(", "1.", "a-", "\n", "1a", ".1"):
        for end in ("!", ""):
            opened(models(), "LayoutModel", width=piece * (20_000 // len(piece) - 1) + end)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "data", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"https://x.y", b"\x89PNG", b"MZ"]
)
def test_only_a_picture_is_one(data):
    known = models()
    to, passed = opened(known, "ImageModel", buffers=[data], paths=[["value"]])
    assert passed is not None
    assert updated(known, to, buffers=[data], paths=[["value"]]) is None


@pytest.mark.parametrize(
    "paths",
    [[["description"]], [["value", 0]], [["__proto__", "x"]], [[]], [5], "value", [["layout"]]],
)
def test_buffers_come_where_they_are_expected(paths):
    known = models()
    for name in ("ImageModel", "TextModel"):
        content = {
            "comm_id": identity(),
            "target_name": "jupyter.widget",
            "data": {"state": state(name), "buffer_paths": paths},
        }
        passed, buffers = known.passed("comm_open", content, [drawn("image/png")], CELL)
        assert ([], []) == (passed["data"]["buffer_paths"], buffers)


# References


def test_a_model_refers_only_to_those_that_passed():
    known, other = models(), models()
    foreign, _ = opened(other, "LayoutModel")
    box, passed = opened(
        known, "BoxModel", layout=reference(foreign), children=[reference(foreign)]
    )
    assert (None, []) == (passed["layout"], passed["children"])
    slider, _ = opened(known, "IntSliderModel")
    children = [reference(slider), reference(foreign), "IPY_MODEL_", 5, {"a": reference(slider)}]
    assert [reference(slider)] == updated(known, box, children=children)["children"]


def test_a_reference_fits_what_it_is_for():
    known = models()
    layout, _ = opened(known, "LayoutModel")
    style, _ = opened(known, "SliderStyleModel")
    box, _ = opened(known, "BoxModel")
    _, passed = opened(known, "IntSliderModel", layout=reference(style), style=reference(box))
    assert (None, None) == (passed["layout"], passed["style"])
    children = [reference(layout), reference(style)]
    assert [] == opened(known, "BoxModel", children=children)[1]["children"]


def test_what_is_closed_is_referred_to_no_more():
    known = models()
    slider, _ = opened(known, "IntSliderModel")
    known.passed("comm_close", {"comm_id": slider, "data": {}}, [], CELL)
    assert [] == opened(known, "BoxModel", children=[reference(slider)])[1]["children"]


def test_ids_in_the_page_are_nobody_elses():
    known = Models(FRAMED, "coder", "abc-")
    slider, _ = opened(known, "IntSliderModel")
    output, _ = opened(known, "OutputModel", msg_id=CELL)
    content = {"comm_id": identity(), "target_name": "jupyter.widget"}
    box = state("BoxModel", children=[reference(slider), reference(f"abc-{output}")])
    passed, _ = known.passed("comm_open", {**content, "data": {"state": box}}, [], CELL)

    assert f"abc-{content['comm_id']}" == passed["comm_id"]
    children = passed["data"]["state"]["children"]
    assert [reference(f"abc-{slider}"), reference(f"abc-{output}")] == children
    assert f"abc-{slider}" == known.view({"model_id": slider})["model_id"]
    assert f"abc-{slider}" == known.view({"model_id": f"abc-{slider}"})["model_id"]
    assert [f"abc-{output}"] == [content["comm_id"] for content in known.release(CELL)]
    assert slider == known.private(known.public(slider))


def test_text_that_looks_like_a_reference_is_text():
    _, passed = opened(models(), "TextModel", value="IPY_MODEL_abc", description="IPY_MODEL_abc")
    assert "IPY_MODEL_abc" == passed["value"]


def test_a_view_is_of_a_model_of_its_own():
    known = models()
    slider, _ = opened(known, "IntSliderModel")
    layout, _ = opened(known, "LayoutModel")
    said = {"model_id": slider, "version_major": "x", "more": FORBIDDEN}
    assert {"version_major": 2, "version_minor": 0, "model_id": slider} == known.view(said)
    for value in (
        {"model_id": layout},
        {"model_id": "abc"},
        {"model_id": [slider]},
        {},
        None,
        slider,
    ):
        assert known.view(value) is None


def test_nothing_is_shown_in_itself():
    """The page would make views without an end."""
    known = models()
    inner, _ = opened(known, "BoxModel", children=[])
    outer, _ = opened(known, "BoxModel", children=[reference(inner)])
    assert updated(known, inner, children=[reference(outer)]) is None
    assert updated(known, inner, children=[reference(inner)]) is None
    output, _ = opened(known, "OutputModel")
    view = {"output_type": "display_data", "data": {VIEW: {"model_id": outer}}, "metadata": {}}
    assert updated(known, output, outputs=[view])
    assert updated(known, inner, children=[reference(output)]) is None
    assert updated(known, output, outputs=[])
    assert updated(known, inner, children=[reference(output)])


def test_a_small_message_makes_no_more_views_than_a_page_bears():
    known = models()
    last, _ = opened(known, "BoxModel", children=[])
    for _ in range(60):
        last, passed = opened(known, "BoxModel", children=[reference(last)] * 2)
    assert "children" not in passed
    first, _ = opened(known, "BoxModel")
    last, _ = opened(known, "BoxModel", children=[reference(first)] * 40)
    for _ in range(2):
        last, passed = opened(known, "BoxModel", children=[reference(last)])
    leaf, _ = opened(known, "LabelModel")
    assert updated(known, first, children=[reference(leaf)] * 40)
    assert updated(known, first, children=[reference(leaf)] * 60) is None


def test_the_widgets_in_all_others_are_bounded():
    known = models()
    leaf, _ = opened(known, "LabelModel")
    for _ in range(20):
        box, passed = opened(known, "BoxModel", children=[reference(leaf)] * 1000)
        assert "children" in passed
    _, passed = opened(known, "BoxModel", children=[reference(leaf)])
    assert "children" not in passed
    updated(known, box, children=[])
    _, passed = opened(known, "BoxModel", children=[reference(leaf)])
    assert "children" in passed


def test_widgets_are_nested_no_deeper_than_a_page_bears():
    known = models()
    boxes = [opened(known, "BoxModel", children=[])[0] for _ in range(60)]
    passed = [
        updated(known, outer, children=[reference(inner)])
        for inner, outer in itertools.pairwise(boxes)
    ]
    assert 50 == passed.index(None)


# Links


LINKED = [
    ("HTMLModel", "value"),
    ("HTMLMathModel", "value"),
    ("TextModel", "description_allow_html"),
    ("TextModel", "_dom_classes"),
    ("ButtonModel", "icon"),
    ("ImageModel", "format"),
    ("ImageModel", "value"),
    ("ImageModel", "width"),
    ("LayoutModel", "width"),
    ("LabelStyleModel", "background"),
    ("IntSliderModel", "readout_format"),
    ("OutputModel", "msg_id"),
    ("OutputModel", "outputs"),
    ("BoxModel", "children"),
    ("BoxModel", "layout"),
    ("DropdownModel", "_options_labels"),
    ("TextModel", "_view_name"),
    ("TextModel", "constructor"),
]


@pytest.mark.parametrize("link", ["LinkModel", "DirectionalLinkModel"])
@pytest.mark.parametrize(("name", "trait"), LINKED)
def test_the_page_copies_nothing_past_what_looks_at_it(link, name, trait):
    known = models()
    text, _ = opened(known, "TextModel")
    other, _ = opened(known, name)
    third, _ = opened(known, name)
    ends = [reference(text), "value"], [reference(other), trait]
    for source, target in (ends, ends[::-1], ([reference(third), trait], ends[1])):
        assert opened(known, link, source=source, target=target)[1] is None
    fine, passed = opened(
        known, link, source=ends[0], target=[reference(opened(known, "LabelModel")[0]), "value"]
    )
    assert passed is not None
    assert updated(known, fine, target=ends[1]) is None
    assert updated(known, fine, source=ends[1]) is None
    assert updated(known, fine, source=ends[1], target=ends[0]) is None
    assert f"{link} ({CONTROLS} 2.0.0)" in known.take_refused()


def test_a_link_is_between_the_same_sort():
    known = models()
    text, _ = opened(known, "TextModel")
    slider, _ = opened(known, "IntSliderModel")
    ends = {"source": [reference(text), "value"], "target": [reference(slider), "value"]}
    assert opened(known, "LinkModel", **ends)[1] is None


@pytest.mark.parametrize("end", [None, [], ["value"], "x", [5, "value"], {"a": 1}, [["x"], ["y"]]])
def test_a_link_without_its_ends_is_refused(end):
    known = models()
    text, _ = opened(known, "TextModel")
    for ends in ({"source": end, "target": [reference(text), "value"]}, {"source": end}, {}):
        assert opened(known, "LinkModel", **ends)[1] is None


def test_links_make_no_circle():
    known = models()
    ends = [[reference(opened(known, "IntSliderModel")[0]), "value"] for _ in range(3)]
    for source, target, passes in [(0, 1, True), (1, 2, True), (2, 0, False), (1, 1, False)]:
        found = opened(known, "LinkModel", source=ends[source], target=ends[target])[1]
        assert passes == (found is not None)


def test_many_links_are_looked_at_in_time():
    known = models()
    ends = [[reference(opened(known, "IntSliderModel")[0]), "value"] for _ in range(500)]
    began = time.process_time()
    for source, target in itertools.pairwise(ends):
        assert opened(known, "LinkModel", source=source, target=target)[1]
    assert time.process_time() - began < 2


# Outputs


@pytest.mark.parametrize("message", ["other", "", None, 5, [CELL], "x" * 300])
def test_an_output_takes_only_what_its_workers_cells_show(message):
    known = models()
    to, passed = opened(known, "OutputModel", msg_id=message)
    assert "" == passed["msg_id"]
    assert "" == updated(known, to, msg_id=message)["msg_id"]
    assert CELL == updated(known, to, msg_id=CELL)["msg_id"]


def test_when_a_worker_has_answered_no_output_takes_what_the_cell_goes_on_to_show():
    known = models()
    to, _ = opened(known, "OutputModel", msg_id=CELL)
    assert [] == known.release("another")
    (released,) = known.release(CELL)
    data = {"method": "update", "state": {"msg_id": ""}, "buffer_paths": []}
    assert {"comm_id": to, "data": data} == released
    assert [] == known.release(CELL)


def test_an_output_is_not_shown_where_it_takes_what_is_shown():
    known = models()
    output, _ = opened(known, "OutputModel", msg_id=CELL)
    box, _ = opened(known, "BoxModel", children=[reference(output)])
    label, _ = opened(known, "LabelModel")
    assert known.view({"model_id": box}, CELL) is None
    assert known.view({"model_id": box}, "another")
    assert known.view({"model_id": label}, CELL)
    other, _ = opened(known, "OutputModel", msg_id="")
    assert known.view({"model_id": other}, CELL)
    updated(known, output, msg_id="")
    updated(known, other, msg_id=CELL)
    assert known.view({"model_id": output}, CELL) is None


def test_many_outputs_that_take_each_other_are_no_trouble():
    known = models()
    before, _ = opened(known, "OutputModel")
    for _ in range(200):
        output, _ = opened(known, "OutputModel", msg_id=CELL)
        known.view({"model_id": before}, CELL)
        updated(known, output, msg_id="")
        before = output
    assert known.view({"model_id": before})


def test_outputs_that_take_at_one_time_are_looked_at_in_time():
    known = models()
    labels = [opened(known, "LabelModel")[0] for _ in range(100)]
    taking = [opened(known, "OutputModel", msg_id=CELL)[1]["msg_id"] for _ in range(2000)]
    began = time.process_time()
    shown = [known.view({"model_id": label}, CELL) for label in labels]
    assert time.process_time() - began < 2
    assert all(shown)
    assert 100 == taking.count(CELL)


@pytest.mark.parametrize("rule", [FRAMED, INERT])
def test_what_is_in_an_output_is_looked_at_as_any_output(rule):
    known = models(rule)
    slider, _ = opened(known, "IntSliderModel")
    outputs = [
        {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}},
        {"output_type": "display_data", "data": {"text/html": FORBIDDEN, "text/plain": "a"}},
        {"output_type": "stream", "name": "x", "text": ["a\x1b[2J", "b"]},
        {"output_type": "execute_result", "data": {VIEW: {"model_id": slider}}},
        {"output_type": "display_data", "data": {VIEW: {"model_id": "abc"}, "text/plain": "b"}},
    ]
    script, html, stream, view, foreign = opened(known, "OutputModel", outputs=outputs)[1][
        "outputs"
    ]
    assert "Not shown: application/javascript" in script["data"]["text/html"]
    assert "onerror" not in html["data"]["text/html"].partition("<iframe")[0]
    assert {"output_type": "stream", "name": "stdout", "text": "ab"} == stream
    assert slider == view["data"][VIEW]["model_id"]
    assert VIEW not in foreign["data"]
    assert "Not shown" in foreign["data"]["text/html"]


def test_what_the_page_sent_of_an_output_does_not_come_back():
    """It holds frames that were made here, which would be made anew."""
    known = models()
    output, _ = opened(known, "OutputModel")
    assert updated(known, output, "echo_update", outputs=[]) is None


@pytest.mark.parametrize(
    "output",
    [
        None,
        {},
        {"output_type": []},
        {"output_type": "stream"},
        {"output_type": "stream", "text": [5]},
        {"output_type": "display_data", "data": []},
        {"output_type": "update_display_data", "data": {}},
        {"output_type": "pyout"},
    ],
)
def test_what_is_no_output_is_left_out(output):
    assert [] == opened(models(), "OutputModel", outputs=[output])[1]["outputs"]


# Whatever comes

SCRAPS = st.sampled_from(
    ["IPY_MODEL_1", "IPY_MODEL_2", "IPY_MODEL_ffff", FORBIDDEN, "value", "url(//x)", "png", CELL]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | SCRAPS
    | st.text(string.printable, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(SCRAPS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted({name for model in traits.MODELS.values() for name in model.traits}))
KEYS = st.sampled_from(sorted(traits.MODELS))
DISPLAYS = st.fixed_dictionaries(
    {"output_type": st.sampled_from(["display_data", "execute_result", "stream", "error", "x"])},
    optional={
        "data": st.dictionaries(
            st.sampled_from(["text/html", "text/plain", "image/png", VIEW, "text/latex"]),
            SOUPS | JSON | st.fixed_dictionaries({"model_id": st.sampled_from("123")}),
            max_size=3,
        )
        | JSON,
        "metadata": JSON,
        "text": JSON,
        "name": JSON,
        "ename": JSON,
        "traceback": JSON,
        "execution_count": JSON,
    },
)


@st.composite
def states(draw):
    key = draw(KEYS)
    values = draw(st.dictionaries(NAMES | st.text(max_size=5), JSON | SOUPS, max_size=6))
    values |= {
        name: draw(JSON | SOUPS)
        for name in draw(st.sets(st.sampled_from(sorted(traits.MODELS[key].traits)), max_size=4))
    }
    if draw(st.booleans()):
        values["outputs"] = draw(st.lists(DISPLAYS, max_size=3) | JSON)
    return state(key[2], key[1], key[0]) | values


@st.composite
def messages(draw):
    to = draw(st.sampled_from("1234"))
    kind = draw(st.sampled_from(["comm_open", "comm_open", "comm_msg", "comm_msg", "comm_close"]))
    data = {
        "state": draw(states() | JSON),
        "buffer_paths": draw(
            st.lists(st.lists(NAMES | st.integers(), max_size=2), max_size=3) | JSON
        ),
        "method": draw(st.sampled_from(["update", "echo_update", "custom"])),
    }
    content = {"comm_id": to, "target_name": "jupyter.widget", "data": draw(st.just(data) | JSON)}
    buffers = draw(st.lists(st.binary(max_size=9) | st.just(drawn("image/png")), max_size=3))
    return kind, content, buffers


def references(value):
    if isinstance(value, str):
        return {value[10:]} if value.startswith("IPY_MODEL_") else set()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(references, parts))


@settings(max_examples=100)
@given(st.lists(messages(), max_size=12), st.sampled_from([FRAMED, INERT]))
def test_whatever_comes_only_what_is_known_passes(said, rule):
    known, alive = Models(rule, "coder"), {}
    for kind, content, buffers in said:
        found = known.passed(kind, content, buffers, CELL)
        if found is None:
            continue
        passed, kept = found
        json.dumps(passed, allow_nan=False)
        to = passed["comm_id"]
        if kind == "comm_close":
            assert alive.pop(to, None)
            continue
        told = passed["data"]["state"]
        if kind == "comm_open":
            assert to not in alive
            key = told["_model_module"], told["_model_module_version"], told["_model_name"]
            alive[to] = traits.MODELS[key]
        model = alive[to]
        assert told.keys() - MADE_HERE <= model.traits.keys()
        assert [["value"]] * len(kept) == passed["data"]["buffer_paths"]
        for name, value in told.items():
            kind_of = model.traits.get(name)
            if kind_of is traits.HTML:
                check_harmless(value)
            elif kind_of in (traits.LAYOUT, traits.STYLE, traits.CHILDREN, traits.END):
                assert references(value) <= alive.keys()
            elif kind_of is traits.OUTPUTS:
                for output in value:
                    data = output.get("data", {})
                    assert data.get(VIEW, {"model_id": to})["model_id"] in alive
                    if rule == INERT and "<iframe" not in data.get("text/html", ""):
                        check_harmless(data.get("text/html", ""))
    assert all(name.isprintable() for name in known.take_refused())
