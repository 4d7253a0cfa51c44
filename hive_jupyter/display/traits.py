"""
The widgets of ipywidgets' own that may be shown, and what each of their traits may hold.

That a value is of its type is more than tidiness: what a view cannot use makes it fail, and the
page shows the failure, with the value in it, as HTML.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BASE, CONTROLS, OUTPUT = (
    ("@jupyter-widgets/base", "2.0.0"),
    ("@jupyter-widgets/controls", "2.0.0"),
    ("@jupyter-widgets/output", "1.0.0"),
)

_LONGEST_TEXT = 1_000_000
_LONGEST_LABEL = 10_000
_LONGEST_STYLE = 20_000
_MOST_ITEMS = 10_000
_MOST_ROWS = 1000
_LARGEST = sys.float_info.max


@dataclass(frozen=True, eq=False)
class Kind:
    """
    What a trait may hold.

    Args:
        allows: tells whether a value may pass as it is.
        link: the page may copy a value (jslink) between traits whose word here is the same; "":
            not at all.
    """

    allows: Callable[[object], bool]
    link: str = ""


@dataclass(frozen=True)
class Model:
    """
    A widget that may be shown.

    Args:
        view: its view's module, the version of that, and the view's name, which may be None.
        traits: what may pass of its state.
    """

    view: tuple[str, str, str | None]
    traits: Mapping[str, Kind]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_label(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_LABEL


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # compared, not converted: an int may be larger than any float
    return -_LARGEST <= value <= _LARGEST


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _are_rows(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_ROWS


def _like(pattern: str, most: int = _LONGEST_LABEL) -> Callable[[object], bool]:
    expected = re.compile(pattern, re.ASCII | re.VERBOSE)
    return lambda value: (
        isinstance(value, str) and len(value) <= most and expected.fullmatch(value) is not None
    )


def _one_of(*choices: object) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (str, bool, type(None))) and value in choices


def _or_none(allows: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or allows(value)


def _list_of(allows: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) <= _MOST_ITEMS and all(map(allows, value))
    )


def _is_moment(value: object) -> bool:
    """A date, a time or both, as ipywidgets writes them."""
    return (
        isinstance(value, dict) and value.keys() <= _PARTS and all(map(_is_number, value.values()))
    )


_PARTS = {"year", "month", "date", "hours", "minutes", "seconds", "milliseconds"}

# No function but those of grids and colours, nothing negative, and nothing that is huge: what is
# shown of a widget stays where its place is. A part that is taken is never taken apart again.
_STYLE = _like(
    r"""\s*+ (?: (?:
          (?: rgba? | hsla? | repeat | minmax | fit-content ) \(
        | \#[0-9a-fA-F]{3,8}+ (?!\w)
        | (?: \d{1,5}+ (?: \.\d{0,15}+ )? | \.\d{1,15}+ ) (?: [a-zA-Z]{1,4}+ | % )? (?![\w.])
        | [a-zA-Z] [\w-]*+ (?!\()
        | "[\w.\s-]*+" | '[\w.\s-]*+'
        | [,/)\[\]]
    ) \s*+ )*+""",
    _LONGEST_STYLE,
)
# A line of a grid is counted from its end where it is negative, and is no length.
_LINES = _like(r"\s*+ (?: (?: -?\d{1,4}+ (?![\w.]) | [a-zA-Z][\w-]*+ (?!\() | / ) \s*+ )*+")
_COLOUR = _like(r"\#[0-9a-fA-F]{3,8} | [a-zA-Z]{1,30} | (?: rgb | hsl )a?\( [\d.,%\s]{1,60} \)")
# As https://d3js.org/d3-format has it; a width has at most two digits, as it is filled up.
_FORMAT = _like(
    r"(?: [\w\ .*_-]? [<>=^] )? [+\-(\ ]? [$\#]? 0? \d{0,2} ,? (?: \.\d{1,2} )? ~? [a-zA-Z%]?"
)

# Such text may be read as a formula, where it is shown or where it is copied to.
TEXT = Kind(_is_text, link="text")
TEXT_OR_NONE = Kind(_or_none(_is_text), link="text")
_LABELS = Kind(_list_of(_is_label))
_FLAG = Kind(_one_of(True, False), link="flag")
_FLAG_OR_NONE = Kind(_one_of(True, False, None))
_NUMBER = Kind(_is_number, link="number")
_NUMBER_OR_NONE = Kind(_or_none(_is_number))
_NUMBERS = Kind(_list_of(_is_number), link="numbers")
_COUNT = Kind(_or_none(_is_index))
_INDEX = Kind(_or_none(_is_index), link="number")
_INDICES = Kind(_list_of(_is_index), link="numbers")
_ROWS = Kind(_or_none(_are_rows))
_CSS = Kind(_or_none(_STYLE))
_GRID_LINES = Kind(_or_none(_LINES))
_COLOURED = Kind(_or_none(_COLOUR), link="colour")
_COLOURS = Kind(_list_of(_COLOUR))
_MOMENT = Kind(_or_none(_is_moment))
_STEP = Kind(lambda value: value in ("any", None) or _is_number(value))
_READOUT = Kind(_FORMAT)
_SIDE = Kind(_like(r"(?: \d{1,5} (?: px | % | em )? )?"))
_PICTURE_FORMAT = Kind(_one_of("png", "jpeg", "jpg", "gif", "webp"))
# A word becomes a class's name: one of a font of icons, and none of JupyterLab's.
_ICON = Kind(_like(r"[a-z0-9-]{0,50}"))
_ICON_WORDS = Kind(_like(r"[a-z0-9-\ ]{0,200}"))
_ICONS = Kind(_list_of(_like(r"[a-z0-9-]{0,50} (?: \ fa-[a-z0-9-]{1,50} ){0,5}")))
_ORIENTATION = Kind(_one_of("horizontal", "vertical"))
_BEHAVIOUR = Kind(_one_of("drag-tap", "drag-snap", "tap", "drag", "snap"))
_BOX_STYLE = Kind(_one_of("success", "info", "warning", "danger", "", None))
_BUTTON_STYLE = Kind(_one_of("primary", "success", "info", "warning", "danger", ""))
# These have traits because ipywidgets sends them, and may hold what does nothing.
_NOTHING = Kind(_one_of(None))
_NO_FILES = Kind(lambda value: value == [])

# Those whose values do not pass as they are: `widgets` makes them anew.
HTML, CLASSES, NO_HTML = Kind(_is_text), Kind(_LABELS.allows), Kind(_FLAG.allows)
LAYOUT, STYLE, CHILDREN, END = (Kind(lambda _: False) for _ in range(4))
CAPTURE, OUTPUTS, PICTURE = (Kind(lambda _: False) for _ in range(3))


def _words(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_WIDGET = {
    "_dom_classes": CLASSES,
    "_view_count": _COUNT,
    "layout": LAYOUT,
    "tabbable": _FLAG_OR_NONE,
    "tooltip": TEXT_OR_NONE,
}
_DESCRIBED = {
    **_WIDGET,
    "description": TEXT,
    "description_allow_html": NO_HTML,
    "style": STYLE,
}
_INPUT = {**_DESCRIBED, "disabled": _FLAG}
_STRING = {**_DESCRIBED, "placeholder": TEXT_OR_NONE, "value": TEXT}
_TEXT = {**_STRING, "continuous_update": _FLAG, "disabled": _FLAG}
_BOUNDS = _words(_NUMBER, "max min")
_NUMBER_BOX = {**_INPUT, "continuous_update": _FLAG, "step": _NUMBER_OR_NONE, "value": _NUMBER}
_SLIDING = {
    **_words(_FLAG, "continuous_update readout"),
    "behavior": _BEHAVIOUR,
    "orientation": _ORIENTATION,
}
_SLIDER = {
    **_INPUT,
    **_SLIDING,
    **_BOUNDS,
    "readout_format": _READOUT,
    "step": _NUMBER_OR_NONE,
    "value": _NUMBER,
}
_PROGRESS = {
    **_DESCRIBED,
    **_BOUNDS,
    "bar_style": _BOX_STYLE,
    "orientation": _ORIENTATION,
    "value": _NUMBER,
}
_SELECTION = {**_INPUT, "_options_labels": _LABELS, "index": _INDEX}
_BUTTON = {**_WIDGET, "description": TEXT, "disabled": _FLAG, "style": STYLE}
_BOX = {**_WIDGET, "box_style": _BOX_STYLE, "children": CHILDREN}
_CONTAINER = {**_BOX, "selected_index": _INDEX, "titles": _LABELS}
_PICKER = {**_INPUT, **_words(_MOMENT, "max min value")}
_TAGS = {
    **_DESCRIBED,
    "allow_duplicates": _FLAG,
    "placeholder": TEXT_OR_NONE,
    "allowed_tags": _LABELS,
    "value": _LABELS,
}
_NUMBER_TAGS = {
    **_TAGS,
    **_words(_NUMBER_OR_NONE, "max min"),
    "allowed_tags": _NUMBERS,
    "format": _READOUT,
    "tag_style": _BUTTON_STYLE,
    "value": _NUMBERS,
}
_FONT = _words(_CSS, "font_family font_size font_style font_variant font_weight text_decoration")
_DESCRIPTION_STYLE = {"_view_count": _COUNT, "description_width": _CSS}
_TEXT_STYLE = {
    **_DESCRIPTION_STYLE,
    "background": _CSS,
    "font_size": _CSS,
    "text_color": _COLOURED,
}
_LINK = {"_view_count": _COUNT, "source": END, "target": END}
_LAYOUT = {
    "_view_count": _COUNT,
    **_words(
        _CSS,
        "align_content align_items align_self border_bottom border_left border_right border_top "
        "display flex flex_flow grid_auto_columns grid_auto_flow grid_auto_rows grid_gap "
        "grid_template_areas grid_template_columns grid_template_rows height justify_content "
        "justify_items margin max_height max_width min_height min_width object_fit "
        "object_position overflow padding visibility width",
    ),
    **_words(_GRID_LINES, "grid_area grid_column grid_row order"),
    # they would shift it away from its place
    **_words(_NOTHING, "bottom left right top"),
}

_STYLES: dict[str, dict[str, Kind]] = {
    "ButtonStyle": {
        **_FONT,
        "_view_count": _COUNT,
        "button_color": _COLOURED,
        "text_color": _COLOURED,
    },
    "CheckboxStyle": {**_DESCRIPTION_STYLE, "background": _CSS},
    "DescriptionStyle": _DESCRIPTION_STYLE,
    "HTMLMathStyle": _TEXT_STYLE,
    "HTMLStyle": _TEXT_STYLE,
    "LabelStyle": {**_TEXT_STYLE, **_FONT},
    "ProgressStyle": {**_DESCRIPTION_STYLE, "bar_color": _COLOURED},
    "SliderStyle": {**_DESCRIPTION_STYLE, "handle_color": _COLOURED},
    "TextStyle": _TEXT_STYLE,
    "ToggleButtonStyle": {**_DESCRIPTION_STYLE, **_FONT, "text_color": _COLOURED},
    "ToggleButtonsStyle": {**_DESCRIPTION_STYLE, **_words(_CSS, "button_width font_weight")},
}
_CONTROLS: dict[str, dict[str, Kind]] = {
    "Accordion": _CONTAINER,
    "BoundedFloatText": {**_NUMBER_BOX, **_BOUNDS},
    "BoundedIntText": {**_NUMBER_BOX, **_BOUNDS},
    "Box": _BOX,
    "Button": {**_BUTTON, "button_style": _BUTTON_STYLE, "icon": _ICON_WORDS},
    "Checkbox": {**_INPUT, "indent": _FLAG, "value": _FLAG},
    "ColorPicker": {**_INPUT, "concise": _FLAG, "value": _COLOURED},
    "ColorsInput": {**_TAGS, "allowed_tags": _COLOURS, "value": _COLOURS},
    "Combobox": {**_TEXT, "ensure_option": _FLAG, "options": _LABELS},
    "DatePicker": {**_PICKER, "step": _STEP},
    "Datetime": _PICKER,
    "Dropdown": _SELECTION,
    "FileUpload": {
        **_INPUT,
        **_words(TEXT, "accept error"),
        "button_style": _BUTTON_STYLE,
        "icon": _ICON,
        "multiple": _FLAG,
        "value": _NO_FILES,
    },
    "FloatLogSlider": {**_SLIDER, "base": _NUMBER},
    "FloatProgress": _PROGRESS,
    "FloatRangeSlider": {**_SLIDER, "value": _NUMBERS},
    "FloatSlider": _SLIDER,
    "FloatText": _NUMBER_BOX,
    "FloatsInput": _NUMBER_TAGS,
    "GridBox": _BOX,
    "HBox": _BOX,
    "HTML": {**_STRING, "value": HTML},
    "HTMLMath": {**_STRING, "value": HTML},
    "Image": {
        **_WIDGET,
        **_words(_SIDE, "height width"),
        "format": _PICTURE_FORMAT,
        "value": PICTURE,
    },
    "IntProgress": _PROGRESS,
    "IntRangeSlider": {**_SLIDER, "value": _NUMBERS},
    "IntSlider": _SLIDER,
    "IntText": _NUMBER_BOX,
    "IntsInput": _NUMBER_TAGS,
    "Label": _STRING,
    "NaiveDatetime": _PICKER,
    "Password": _TEXT,
    "Play": {
        **_INPUT,
        **_BOUNDS,
        **_words(_FLAG, "playing repeat show_repeat"),
        **_words(_NUMBER, "interval step value"),
    },
    "RadioButtons": {**_SELECTION, "orientation": _ORIENTATION},
    "Select": {**_SELECTION, "rows": _ROWS},
    "SelectMultiple": {**_SELECTION, "index": _INDICES, "rows": _ROWS},
    "SelectionRangeSlider": {**_SELECTION, **_SLIDING, "index": _INDICES},
    "SelectionSlider": {**_SELECTION, **_SLIDING},
    "Stack": _CONTAINER,
    "Tab": _CONTAINER,
    "TagsInput": {**_TAGS, "tag_style": _BUTTON_STYLE},
    "Text": _TEXT,
    "Textarea": {**_TEXT, "rows": _ROWS},
    "Time": {**_PICKER, "step": _STEP},
    "ToggleButton": {
        **_INPUT,
        "button_style": _BUTTON_STYLE,
        "icon": _ICON,
        "value": _FLAG,
    },
    "ToggleButtons": {
        **_SELECTION,
        "button_style": _BUTTON_STYLE,
        "icons": _ICONS,
        "tooltips": _LABELS,
    },
    "VBox": _BOX,
    "Valid": {**_INPUT, "readout": TEXT, "value": _FLAG},
}
# Named as their model is, but for these.
_VIEWS = {
    "BoundedFloatText": "FloatText",
    "BoundedIntText": "IntText",
    "FloatProgress": "Progress",
    "IntProgress": "Progress",
    "NaiveDatetime": "Datetime",
}

# By module, version and name.
MODELS: Mapping[tuple[str, str, str], Model] = {
    (*BASE, "LayoutModel"): Model((*BASE, "LayoutView"), _LAYOUT),
    (*OUTPUT, "OutputModel"): Model(
        (*OUTPUT, "OutputView"), {**_WIDGET, "msg_id": CAPTURE, "outputs": OUTPUTS}
    ),
    **{
        (*CONTROLS, f"{name}Model"): Model((*BASE, "StyleView"), traits)
        for name, traits in _STYLES.items()
    },
    **{
        (*CONTROLS, f"{name}Model"): Model((*CONTROLS, f"{_VIEWS.get(name, name)}View"), traits)
        for name, traits in _CONTROLS.items()
    },
    **{
        (*CONTROLS, f"{name}Model"): Model((*CONTROLS, None), _LINK)
        for name in ("Link", "DirectionalLink")
    },
}
