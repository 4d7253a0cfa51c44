"""
An MCP server without a library, that does what its arguments say besides serving its tools.

What it is told by notification it writes to stderr.
"""

import array
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time

HABITS = set(sys.argv[1:])
MODERN = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
BAD_TOOLS = [
    {"name": "no_schema", "description": "It has none."},
    {"name": "text_schema", "inputSchema": "none"},
    {"name": "array_schema", "inputSchema": {"type": "array"}},
    {"name": "bad_required", "inputSchema": {"type": "object", "required": [1]}},
    {"name": "bad_properties", "inputSchema": {"type": "object", "properties": []}},
    {"name": "two words", "inputSchema": SCHEMA},
    {"name": "n" * 200, "inputSchema": SCHEMA},
    {"name": "echo", "inputSchema": SCHEMA},
    {"inputSchema": SCHEMA},
    "tool",
]
waiting = []


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(number, *texts, **more):
    content = [{"type": "text", "text": text} for text in texts]
    send(id=number, result={"content": content, **more})


def say(text):
    print(text, file=sys.stderr, flush=True)


def tool_block(_number, _text, _meta):
    while True:
        time.sleep(1)


def tool_meet(number, _text, _meta):
    waiting.append(number)
    if len(waiting) == 2:
        for each in waiting:
            answer(each, "met")


def tool_die(_number, text, _meta):
    say("no luck today")
    os._exit(int(text))


def tool_die_safely(number, text, _meta):
    path, most = text.split("*")
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < int(most):
        os._exit(1)
    answer(number, "survived")


def tool_steps(_number, _text, meta):
    for step in range(1, 4):
        progress = {"progress": step, "total": 3, "message": f"step \033[31m{step}"}
        params = {"progressToken": meta["progressToken"], **progress}
        send(method="notifications/progress", params=params)


def tool_huge(number, text, _meta):
    order, size = text.split("*")
    result = json.dumps({"content": [{"type": "text", "text": "x" * int(size)}]})
    lines = {
        "first": f'{{"jsonrpc":"2.0","id":{number},"result":{result}}}',
        "last": f'{{"result":{result},"jsonrpc":"2.0","id":{number}}}',
        "hidden": f'{{"result":{result},"id":{number},"jsonrpc":"2.0", "more":[]}}',
    }
    print(lines[order], flush=True)


def tool_blocks(number, text, _meta):
    send(id=number, result={"content": [{"type": "text", "text": ""}] * int(text)})


def tool_ask(number, _text, _meta):
    params = {"message": "Your password?", "requestedSchema": SCHEMA}
    send(id="q1", method="elicitation/create", params=params)
    waiting.append(number)


def tool_chatter(number, text, _meta):
    for _ in range(int(text)):
        send(method="notifications/message", params={"level": "info", "data": "x" * 50})
    answer(number, "said")


def tool_nag(number, text, _meta):
    """Ask, and read no answer until there is such a file."""
    unread = array.array("i", [0])
    while unread[0] < 60_000:
        send(id="ping", method="ping")
        fcntl.ioctl(0, termios.FIONREAD, unread)
    for _ in range(2500):
        send(id="ping", method="ping")
    answer(number, "asked")
    while not os.path.exists(text):
        time.sleep(0.01)


def tool_deafen(_number, _text, _meta):
    os.close(1)
    os.open(os.devnull, os.O_WRONLY)


TOOLS = {
    "echo": lambda number, text, _: answer(number, text),
    "never": lambda *_: None,
    "block": tool_block,
    "meet": tool_meet,
    "die": tool_die,
    "die_safely": tool_die_safely,
    "steps": tool_steps,
    "huge": tool_huge,
    "blocks": tool_blocks,
    "environment": lambda number, *_: answer(number, json.dumps(dict(os.environ))),
    "ask": tool_ask,
    "chatter": tool_chatter,
    "nag": tool_nag,
    "deafen": tool_deafen,
    "refuse": lambda number, *_: send(
        id=number, error={"code": -32602, "message": "text is \033[31mmissing"}
    ),
    "nonsense": lambda number, *_: send(id=number, result={"content": "text"}),
    "question": lambda number, *_: send(
        id=number, result={"resultType": "input_required", "inputRequests": {}}
    ),
}


def initialize(number, params):
    if "modern" in HABITS:
        data = {"supported": ["2026-07-28"], "requested": params["protocolVersion"]}
        send(id=number, error={"code": -32022, "message": "too old", "data": data})
    elif "refuse" in HABITS:
        send(id=number, error={"code": -32600, "message": "not for you"})
    elif "strange" in HABITS:
        send(id=number, result={"protocolVersion": 7})
    else:
        version = "1999-01-01" if "ancient" in HABITS else "2025-06-18"
        about = {"name": "hostile", "version": "1.0"}
        more = {"capabilities": {"tools": {}}, "serverInfo": about}
        send(id=number, result={"protocolVersion": version, **more})


def discover(number, _params):
    if "modern" in HABITS:
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **MODERN}
        send(id=number, result=result)
    else:
        send(id=number, error={"code": -32601, "message": "unknown"})


def list_tools(number, params):
    if "endless-list" in HABITS:
        cursor = int(params.get("cursor", 0))
        names = [{"name": f"t{cursor}.{n}", "inputSchema": SCHEMA} for n in range(100)]
        send(id=number, result={"tools": names, "nextCursor": str(cursor + 1)})
    elif "no-list" in HABITS:
        send(id=number, result={"tools": "none"})
    else:
        listed = [
            {"name": name, "description": f"{name}.", "inputSchema": SCHEMA} for name in TOOLS
        ]
        listed[5]["annotations"] = {"idempotentHint": True}
        bad = BAD_TOOLS if "bad-tools" in HABITS else []
        tools = listed[:5] + bad + listed[5:]
        send(id=number, result={"tools": tools, **(MODERN if "modern" in HABITS else {})})


def call_tool(number, params):
    text = (params.get("arguments") or {}).get("text", "")
    TOOLS[params["name"]](number, text, params.get("_meta"))


METHODS = {
    "initialize": initialize,
    "server/discover": discover,
    "tools/list": list_tools,
    "tools/call": call_tool,
    "ping": lambda number, _: send(id=number, result={}),
}


def serve(message):
    method, number = message.get("method"), message.get("id")
    if method in METHODS:
        METHODS[method](number, message.get("params") or {})
    elif number == "q1":
        answer(waiting.pop(), json.dumps(message.get("error")))
    elif method is not None and number is None:
        say(f"{method} {json.dumps(message.get('params'))}")


def main():
    if "die" in HABITS:
        say("no luck today")
        sys.exit(3)
    if "hang" in HABITS:
        time.sleep(1000)
    if "deaf" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "daemon" in HABITS:
        shell = "setsid sleep 1000 & setsid setsid sleep 1000 &"
        subprocess.run(["sh", "-c", shell], stdin=subprocess.DEVNULL, check=True)
    if "noise" in HABITS:
        print("Welcome!\n\n{not json}\n[1, 2]\n\x1b[31mred", flush=True)
    if "flood" in HABITS:
        for number in range(60):
            sys.stderr.write(f"{number} ".ljust(2**20, "x") + "\n")
        say("the end of the flood")
    for line in sys.stdin:
        serve(json.loads(line))
    while "deaf" in HABITS:
        time.sleep(1)
    for habit in HABITS:
        if habit.startswith("farewell="):
            with open(habit.removeprefix("farewell="), "w") as file:
                file.write("goodbye")


if __name__ == "__main__":
    main()
