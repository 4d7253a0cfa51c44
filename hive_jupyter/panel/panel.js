// The panel of Hive for Jupyter. The kernel sends plain values (see board.py), first all of them and
// then what changes; this draws them. All text reaches the page as text, never as HTML.

const SECOND = 1000;
// A card that has just appeared or moved under somebody's pointer takes no yes.
const SETTLED = 1000;
const LOOKS = 200;
// So long the kernel may take to say that it has heard, and between two questions to a silent one.
const PATIENCE = 2500;
const LONGEST_PAUSE = 60 * SECOND;
const SAMPLES = 60;
// A first yes is forgotten when no second one follows.
const SECOND_YES = 30 * SECOND;
const CURVE = { width: 60, height: 18 };

const STATES = {
  cold: "not started",
  starting: "starting",
  idle: "ready",
  busy: "busy",
  dead: "ended",
  resting: "resting",
};
// What a worker's own button does, by its state; the rest is behind the dots.
const NEXT = {
  cold: ["start", "Start"],
  starting: ["interrupt", "Interrupt"],
  idle: ["restart", "Restart…"],
  busy: ["interrupt", "Interrupt"],
  dead: ["start", "Start"],
  resting: ["start", "Try now"],
};

function render({ model, el }) {
  const panel = new Panel(model);
  el.append(panel.root);
  panel.open();
  return () => panel.close();
}

export default { render };

// --- the page ---

/** Make an element; strings among its children become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
}

/** Set an element's text where it is another one, so that focus and selection stay. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a text that is read out, also where it is the same as before. */
function say(element, text) {
  element.textContent = "";
  if (text) requestAnimationFrame(() => put(element, text));
}

function show(element, isShown) {
  element.hidden = !isShown;
}

function curve(label) {
  const names = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(names, "svg");
  svg.setAttribute("width", CURVE.width);
  svg.setAttribute("height", CURVE.height);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.append(document.createElementNS(names, "polyline"));
  return svg;
}

function draw(svg, samples, most) {
  const step = CURVE.width / (SAMPLES - 1);
  const height = CURVE.height - 2;
  const from = SAMPLES - samples.length;
  const points = samples.map((value, place) => {
    const y = 1 + height * (1 - Math.min(1, value / most));
    return `${((from + place) * step).toFixed(1)},${y.toFixed(1)}`;
  });
  svg.firstChild.setAttribute("points", points.join(" "));
}

// --- words ---

function two(number) {
  return String(number).padStart(2, "0");
}

/** Seconds as a clock shows them: 0:42, 1:02:03. */
function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = two(whole % 60);
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

function timeOfDay(moment) {
  return new Date(moment * SECOND).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function count(number, one, many) {
  return number === 1 ? `1 ${one}` : `${number} ${many}`;
}

function now() {
  return Date.now() / SECOND;
}

// --- a worker ---

class WorkerRow {
  constructor(name, ask) {
    this.name = name;
    this.ask = ask;
    this.samples = { cpu: [], memory: [] };
    this.dot = make("span", { class: "hive-dot", "aria-hidden": "true" });
    this.state = make("span");
    this.now = make("td", { class: "hive-now" });
    this.cpu = curve(`Processor time of ${name}`);
    this.memory = curve(`Memory of ${name}`);
    this.holds = make("span", { class: "hive-quiet" });
    this.p50 = make("td");
    this.counts = make("td");
    this.restarts = make("td");
    this.next = button("", (event) => this.do(event, NEXT[this.values.state][0]));
    this.more = button("⋯", () => this.unfold(this.below.hidden), {
      class: "hive-plain",
      "aria-expanded": "false",
      "aria-label": `More about ${name}`,
    });
    this.row = make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      make("td", { class: "hive-state" }, this.dot, this.state),
      this.now,
      make("td", { class: "hive-wide" }, this.cpu),
      make("td", {}, this.memory, " ", this.holds),
      this.p50,
      this.counts,
      this.restarts,
      make("td", { class: "hive-actions" }, this.next, " ", this.more),
    );
    this.p50.className = this.restarts.className = "hive-wide";
    this.facts = make("div", { class: "hive-quiet" });
    this.error = make("div", { class: "hive-error" });
    this.said = make("div", { role: "status" });
    this.question = make("div", { class: "hive-question" });
    this.logs = button("Logs", () => this.toggleLog(), { "aria-expanded": "false" });
    this.log = make("pre", { tabindex: "0", "aria-label": `Log of ${name}` });
    show(this.log, false);
    show(this.question, false);
    this.below = make(
      "tr",
      { class: "hive-below" },
      make(
        "td",
        { colspan: "9" },
        this.facts,
        this.error,
        make(
          "div",
          { class: "hive-buttons" },
          button("Restart…", (event) => this.do(event, "restart")),
          button("Stop…", (event) => this.do(event, "stop")),
          this.logs,
        ),
        this.question,
        this.said,
        this.log,
      ),
    );
    show(this.below, false);
  }

  unfold(isOpen) {
    show(this.below, isOpen);
    this.more.setAttribute("aria-expanded", String(isOpen));
  }

  /** Do what loses nothing at once; ask before what does. */
  do(event, what) {
    const loses = what === "stop" || what === "restart";
    if (!loses || !this.values.pid) {
      this.ask({ do: what, worker: this.name });
      return;
    }
    const asked = event.currentTarget;
    const word = what === "stop" ? "Stop" : "Restart";
    const close = () => {
      show(this.question, false);
      asked.focus();
    };
    const yes = button(`${word} ${this.name}`, () => {
      this.ask({ do: what, worker: this.name });
      close();
    });
    const no = button("Keep it", close);
    this.question.replaceChildren("Its variables are lost. ", yes, " ", no);
    this.unfold(true);
    show(this.question, true);
    no.focus();
  }

  toggleLog() {
    if (this.log.hidden) this.ask({ do: "logs", worker: this.name });
    else this.showLog(false);
  }

  showLog(isOpen) {
    show(this.log, isOpen);
    this.logs.setAttribute("aria-expanded", String(isOpen));
  }

  hear(message) {
    if (message.kind === "log") {
      put(this.log, message.text);
      this.showLog(true);
    } else {
      say(this.said, message.text);
      this.said.classList.toggle("hive-error", Boolean(message.failed));
      if (message.text) this.unfold(true);
    }
  }

  update(values) {
    this.values = { ...this.values, ...values };
    const { state, error } = this.values;
    this.dot.dataset.state = state;
    put(this.counts, `${this.values.ok} / ${this.values.failed}`);
    put(this.restarts, String(this.values.restarts));
    put(this.p50, this.values.p50 || "–");
    put(this.next, NEXT[state][1]);
    const of = this.values.limit ? ` of ${this.values.limit}` : "";
    put(this.holds, this.values.holds ? `${this.values.holds}${of}` : "");
    put(this.error, error ? `Last error: ${error}` : "");
    this.row.classList.toggle("hive-failed", Boolean(error) && state !== "busy");
    this.tick();
  }

  /** What passes with the time. */
  tick() {
    const { state, since, retry_at: retryAt, queue, pid, started } = this.values;
    let words = STATES[state] ?? state;
    if (state === "busy" && since) words += ` ${clock(now() - since)}`;
    if (state === "resting" && retryAt) words += ` ${clock(retryAt - now())}`;
    if (queue) words += `, ${queue} waiting`;
    put(this.state, words);
    const code = state === "busy" ? this.values.now : "";
    const idle = state === "resting" || state === "dead" ? this.values.error : "";
    put(this.now, code || idle);
    this.now.title = code || idle;
    this.now.classList.toggle("hive-code", Boolean(code));
    const facts = [`sandbox ${this.values.sandbox}`, this.values.kernel];
    if (pid) facts.push(`process ${pid}`);
    if (started) facts.push(`up for ${clock(now() - started)}`);
    if (this.values.drift) facts.push(`changed here since it started: ${this.values.drift}`);
    put(this.facts, facts.join(" · "));
  }

  sample() {
    if (!this.values.pid) {
      if (!this.samples.cpu.length) return;
      this.samples = { cpu: [], memory: [] };
    } else {
      for (const name of ["cpu", "memory"]) {
        this.samples[name].push(this.values[name] ?? 0);
        if (this.samples[name].length > SAMPLES) this.samples[name].shift();
      }
    }
    const percent = Math.round(100 * (this.values.cpu ?? 0));
    this.cpu.setAttribute("aria-label", `Processor time of ${this.name}: ${percent} %`);
    this.memory.setAttribute("aria-label", `Memory of ${this.name}: ${this.values.holds}`);
    draw(this.cpu, this.samples.cpu, Math.max(1, ...this.samples.cpu));
    draw(this.memory, this.samples.memory, 1.2 * Math.max(1, ...this.samples.memory));
  }
}

// --- a job ---

const ENDS = {
  ok: "done",
  error: "failed",
  timeout: "out of time",
  died: "its worker died",
  instructions: "not run",
  cancelled: "cancelled",
};
// The dot of a worker in a like state.
const DOTS = { running: "busy", queued: "cold", ok: "idle", cancelled: "cold" };

class JobRow {
  constructor(id, ask) {
    this.id = id;
    this.values = {};
    this.dot = make("span", { class: "hive-dot", "aria-hidden": "true" });
    this.state = make("span");
    this.bar = make("progress", { max: "100", "aria-label": `Progress of job ${id}` });
    this.said = make("span", { class: "hive-quiet" });
    this.worker = make("td", { class: "hive-wide" });
    this.code = make("td", { class: "hive-now hive-code" });
    this.answer = make("span", { class: "hive-error", role: "status" });
    this.cancel = button("Cancel", () => ask({ do: "cancel", job: id }), { "aria-label": `Cancel job ${id}` });
    this.more = button("Show output", () => this.toggle(ask), {
      class: "hive-plain",
      "aria-expanded": "false",
      "aria-label": `Show output of job ${id}`,
    });
    this.output = make("pre", { tabindex: "0", "aria-label": `Output of job ${id}` });
    this.row = make(
      "tr",
      {},
      make("th", { scope: "row" }, `Job ${id}`),
      make("td", { class: "hive-state" }, this.dot, this.state),
      this.worker,
      this.code,
      make("td", { class: "hive-progress" }, this.bar, this.said),
      make("td", { class: "hive-actions" }, this.answer, " ", this.cancel, " ", this.more),
    );
    this.below = make("tr", { class: "hive-below" }, make("td", { colspan: "6" }, this.output));
    show(this.below, false);
  }

  get isOver() {
    return this.values.state in ENDS;
  }

  toggle(ask) {
    if (this.below.hidden) ask({ do: "output", job: this.id });
    else this.unfold(false);
  }

  unfold(isOpen) {
    show(this.below, isOpen);
    this.more.setAttribute("aria-expanded", String(isOpen));
    put(this.more, isOpen ? "Hide output" : "Show output");
  }

  hear(message) {
    if (message.kind === "output") {
      put(this.output, message.text);
      this.unfold(true);
    } else {
      say(this.answer, message.text);
    }
  }

  update(values) {
    this.values = { ...this.values, ...values };
    const { state, worker, code, progress, percent } = this.values;
    this.dot.dataset.state = DOTS[state] ?? "dead";
    put(this.worker, worker);
    put(this.code, code);
    this.code.title = code;
    put(this.said, progress);
    this.said.title = progress;
    show(this.bar, percent !== null && !this.isOver);
    this.bar.value = percent ?? 0;
    if (this.isOver && this.cancel.contains(document.activeElement)) this.more.focus();
    show(this.cancel, !this.isOver);
    this.tick();
  }

  tick() {
    const { state, asked, took } = this.values;
    put(this.state, this.isOver ? `${ENDS[state]}, ${took}` : `${state} ${clock(now() - asked)}`);
  }
}

// --- a request ---

/** What became of a request, in a sentence. */
function became({ kind, state, commit, reason, answered }) {
  const when = answered ? `, ${timeOfDay(answered)}` : "";
  const why = reason ? `: ${reason}` : "";
  const nothing = kind === "commit" ? " Nothing was committed." : "";
  switch (state) {
    case "committed":
      return `Committed ${commit.slice(0, 12)}${when}.`;
    case "denied":
      return `Denied${when}${why}.${nothing}`;
    case "expired":
      return `Expired${why || " unanswered"}.${nothing}`;
    case "superseded":
      return `Superseded${why}.${nothing}`;
    case "approved":
      return `Approved${when}, and not carried out yet.`;
    case "spent":
      return `Approved${when}.`;
    default:
      return `Void${why}.${nothing}`;
  }
}

function patchOf(lines) {
  const shown = lines.map(([kind, text]) => make("span", { "data-kind": kind }, text || " "));
  return make("pre", { tabindex: "0", "aria-label": "Changes" }, ...shown);
}

class Card {
  constructor(values, ask, announce) {
    this.values = {};
    this.ask = ask;
    this.announce = announce;
    this.files = [];
    this.moved = performance.now();
    this.top = null;
    this.confirming = null;
    this.isSent = false;
    this.bar = make("i");
    this.timer = make("span", { class: "hive-quiet", role: "timer" });
    this.outcome = make("div", { class: "hive-outcome", tabindex: "-1" });
    // What the page itself has to say, and what the kernel has answered, which stays.
    this.said = make("div", { class: "hive-error", role: "alert" });
    this.answer = make("div", { class: "hive-outcome", role: "alert" });
    this.foot = make("div", { class: "hive-foot" });
    this.root = make("div", { class: "hive-card", role: "group" });
    this.build(values);
    this.update(values);
  }

  build(values) {
    const isCommit = values.kind === "commit";
    const [subject, ...rest] = (values.message || values.title).split("\n");
    this.root.setAttribute("aria-label", `Request ${values.id}: ${subject.slice(0, 100)}`);
    this.label = isCommit ? "Approve and commit" : "Approve the call";
    this.approve = button(this.label, (event) => this.yes(event), {
      class: "hive-yes",
    });
    // Enter that is held down is one yes
    this.approve.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
    this.reason = make("input", { type: "text", "aria-label": "Why, for who asked", placeholder: "Why?" });
    this.refusal = make(
      "span",
      { class: "hive-refusal" },
      this.reason,
      " ",
      button("Deny", (event) => this.no(event)),
      " ",
      button("Keep it", () => this.refuse(false), { class: "hive-plain" }),
    );
    this.deny = button("Deny…", () => this.refuse(true));
    this.foot.append(
      this.deny,
      this.refusal,
      make("span", { class: "hive-grow" }),
      make("span", { class: "hive-quiet" }, "also: ", make("code", {}, `%hive approve ${values.id}`)),
      this.approve,
    );
    show(this.refusal, false);
    this.reason.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) this.no(event);
      if (event.key === "Escape") this.refuse(false);
    });
    this.marks = make(
      "ul",
      { class: "hive-marks", "aria-label": "Look closely at" },
      ...(values.marks ?? []).map((mark) => make("li", {}, mark)),
    );
    show(this.marks, Boolean(values.marks?.length));
    this.root.append(
      make("div", { class: "hive-time", "aria-hidden": "true" }, this.bar),
      make(
        "div",
        { class: "hive-top" },
        make("code", {}, values.id),
        make("span", {}, isCommit ? `commit to ${values.place}` : "call of a tool"),
        make("span", { class: "hive-grow" }),
        this.timer,
      ),
      make("div", { class: "hive-subject" }, subject),
    );
    if (rest.join("").trim()) this.root.append(make("div", { class: "hive-message" }, rest.join("\n").trim()));
    this.root.append(
      make("div", { class: "hive-facts" }, this.summary(values)),
      this.marks,
      make("details", { class: "hive-all" }, make("summary", {}, "All that your yes would cover"),
        make("pre", { tabindex: "0" }, (values.text ?? []).join("\n"))),
    );
    if (!isCommit) this.root.lastChild.open = true;
    (values.files ?? []).forEach((file, number) => this.addFile(file, number, values.id));
    if (values.problem) this.root.append(make("div", { class: "hive-error" }, values.problem));
    this.root.append(this.said, this.foot, this.outcome, this.answer);
  }

  summary(values) {
    const line = make("span", {}, `asked by ${values.by}, ${timeOfDay(values.asked)}`);
    if (values.files?.length) {
      const sum = (name) => values.files.reduce((total, file) => total + (file[name] ?? 0), 0);
      line.append(
        ` · ${count(values.files.length, "file", "files")} `,
        make("span", { class: "hive-plus" }, `+${sum("added")}`),
        " ",
        make("span", { class: "hive-minus" }, `−${sum("removed")}`),
      );
    }
    if (values.digest) line.append(" · digest ", make("code", {}, values.digest.slice(0, 8)));
    return line;
  }

  addFile(file, number, id) {
    const numbers = file.added === null ? ["binary"] : [
      make("span", { class: "hive-plus" }, `+${file.added}`),
      " ",
      make("span", { class: "hive-minus" }, `−${file.removed}`),
    ];
    const hint = make("span", { class: "hive-mark" });
    const isSeen = file.patch !== null;
    const root = make(
      "details",
      { class: "hive-file" },
      make("summary", {}, make("span", {}, file.name), " ", ...numbers, ` ${file.what} `, hint),
    );
    const entry = { root, hint, isSeen, isTooLarge: file.is_too_large, isAsked: false };
    if (isSeen) {
      root.append(patchOf(file.patch));
      root.open = true;
    } else if (file.is_too_large) {
      put(hint, `${file.size}: too much for a notebook. In a terminal: jupyter hive approve ${id}`);
    } else {
      put(hint, `${count(file.lines, "line", "lines")}: open this before you approve`);
      root.addEventListener("toggle", () => {
        if (!root.open || entry.isSeen || entry.isAsked || !this.isPending) return;
        entry.isAsked = true;
        this.ask({ do: "open", request: this.values.id, file: number });
      });
    }
    this.files.push(entry);
    this.root.append(root);
  }

  get isPending() {
    return this.values.state === "pending";
  }

  get unseen() {
    return this.files.filter((file) => !file.isSeen).length;
  }

  /** Why no yes is taken just now; "" where one is. */
  get obstacle() {
    if (!this.values.digest) return "Its content cannot be shown, so it cannot be approved.";
    if (this.files.some((file) => file.isTooLarge)) return "Answer this one in a terminal.";
    if (this.unseen) return `Open ${count(this.unseen, "file", "files")} first.`;
    return "";
  }

  update(values) {
    const before = this.values.state;
    this.values = { ...this.values, ...values };
    this.root.classList.toggle("hive-decided", !this.isPending);
    // what is approved and not carried out can still be denied
    const hadFocus = this.foot.contains(document.activeElement);
    show(this.foot, this.isPending || this.values.state === "approved");
    show(this.approve, this.isPending);
    this.renew();
    if (!this.isPending) {
      put(this.outcome, became(this.values));
      for (const file of this.files) if (!file.isSeen) put(file.hint, "not looked at");
      if (hadFocus && before === "pending") this.outcome.focus();
      if (before === "pending") {
        put(this.said, "");
        this.announce(`Request ${this.values.id}: ${became(this.values)}`);
      }
    }
    this.tick();
  }

  renew() {
    const { obstacle } = this;
    this.approve.setAttribute("aria-disabled", String(Boolean(obstacle)));
    this.approve.title = obstacle;
  }

  tick() {
    if (!this.isPending || !this.values.expires) {
      put(this.timer, "");
      this.bar.style.width = "0";
      return;
    }
    const left = this.values.expires - now();
    put(this.timer, `${clock(left)} left`);
    const whole = this.values.expires - this.values.asked;
    this.bar.style.width = `${Math.max(0, Math.min(100, (100 * left) / whole))}%`;
  }

  /** Take note of where it is; what moves takes no yes for a while. */
  watch() {
    const { top, left } = this.approve.getBoundingClientRect();
    if (this.top !== top || this.left !== left) {
      [this.top, this.left, this.moved] = [top, left, performance.now()];
    }
    if (this.confirming && performance.now() - this.confirming > SECOND_YES) this.calmDown();
  }

  calmDown() {
    this.confirming = null;
    put(this.approve, this.label);
    put(this.said, "");
  }

  yes(event) {
    if (!event.isTrusted || !this.isPending) return;
    if (this.isSent) return;
    this.watch();
    if (this.obstacle) {
      say(this.said, this.obstacle);
      return;
    }
    if (performance.now() - this.moved < SETTLED) {
      if (!this.confirming) say(this.said, "This has just moved. Look again, then click.");
      return;
    }
    if (this.values.marks.length && !this.confirming) {
      this.confirming = this.moved = performance.now();
      put(this.approve, "Approve all the same");
      say(this.said, `Look closely at: ${this.values.marks.join("; ")}`);
      return;
    }
    this.calmDown();
    this.isSent = true;
    put(this.approve, "Under way …");
    this.ask({ do: "approve", request: this.values.id, digest: this.values.digest });
  }

  refuse(isOpen) {
    show(this.refusal, isOpen);
    show(this.deny, !isOpen);
    (isOpen ? this.reason : this.deny).focus();
  }

  no(event) {
    if (!event.isTrusted || !this.isPending) return;
    this.ask({ do: "deny", request: this.values.id, reason: this.reason.value });
  }

  hear(message) {
    if (message.kind === "patch") {
      const file = this.files[message.file];
      if (!file || file.isSeen) return;
      file.root.append(patchOf(message.patch));
      file.isSeen = true;
      put(file.hint, "");
      this.renew();
      return;
    }
    if (message.text) say(this.answer, message.text);
    this.answer.classList.toggle("hive-error", Boolean(message.failed));
    if (message.failed) this.giveUp(message);
  }

  /** Let a wish that came to nothing be wished again. */
  giveUp(message) {
    if (message.do === "approve") {
      this.isSent = false;
      put(this.approve, this.label);
    }
    if (message.do === "open" && this.files[message.file]) this.files[message.file].isAsked = false;
  }
}

// --- the whole ---

class Panel {
  constructor(model) {
    this.model = model;
    this.view = Math.random().toString(36).slice(2);
    this.rows = new Map();
    this.jobs = new Map();
    this.cards = new Map();
    this.lines = new Map();
    this.waiting = new Map();
    this.news = [];
    this.key = 0;
    this.number = null;
    this.isLive = true;
    this.pause = PATIENCE;
    this.hear = (message) => this.take(message);
    this.build();
  }

  build() {
    this.spoken = make("div", { class: "hive-hidden", role: "status", "aria-live": "polite" });
    this.counts = make("span", { class: "hive-quiet" });
    this.waits = make("span", { class: "hive-quiet" });
    this.sandbox = make("span", { class: "hive-quiet" });
    this.notice = make("div", { class: "hive-notice", role: "alert" });
    this.still = make("pre", { class: "hive-still" });
    this.doctor = make("pre", { tabindex: "0", "aria-label": "What the doctor found" });
    const titles = ["Worker", "State", "Now", "CPU", "Memory", "p50", "OK / failed", "Restarts", ""];
    const wide = new Set(["CPU", "p50", "Restarts"]);
    const heads = titles.map((title) =>
      make("th", { scope: "col", class: wide.has(title) ? "hive-wide" : null }, title || make("span", { class: "hive-hidden" }, "Actions")),
    );
    this.body = make("tbody");
    this.table = make("table", { "aria-label": "Workers" }, make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.notes = make("ul", { class: "hive-notes" });
    this.jobsTitle = make("div", { class: "hive-section", role: "heading", "aria-level": "3" }, "Jobs");
    this.jobsBody = make("tbody");
    this.jobsTable = make("div", { class: "hive-scroll" }, make("table", { "aria-label": "Jobs" }, this.jobsBody));
    this.requestsTitle = make("div", { class: "hive-section", role: "heading", "aria-level": "3" }, "Waiting for your decision");
    this.requests = make("div");
    this.decidedTitle = make("div", { class: "hive-section", role: "heading", "aria-level": "3" }, "Decided");
    this.decided = make("div", { class: "hive-done" });
    this.main = make(
      "div",
      {},
      make("div", { class: "hive-scroll" }, this.table),
      this.notes,
      this.jobsTitle,
      this.jobsTable,
      this.requestsTitle,
      this.requests,
      this.decidedTitle,
      this.decided,
    );
    this.root = make(
      "div",
      { class: "hive-panel", role: "region", "aria-label": "Hive" },
      make(
        "div",
        { class: "hive-header" },
        make("b", {}, "Hive"),
        this.counts,
        this.waits,
        make("span", { class: "hive-grow" }),
        this.sandbox,
        button("Doctor", () => this.examine(), { class: "hive-plain" }),
      ),
      this.notice,
      this.doctor,
      this.still,
      this.main,
      this.spoken,
    );
    for (const part of [this.notice, this.doctor, this.still, this.main]) show(part, false);
  }

  open() {
    this.model.on("msg:custom", this.hear);
    this.model.on("comm_live_update", () => this.lookAgain());
    this.timers = [
      setInterval(() => this.tick(), SECOND),
      setInterval(() => this.cards.forEach((card) => card.isPending && card.watch()), LOOKS),
    ];
    this.ask({ do: "look" });
  }

  close() {
    this.ask({ do: "leave" });
    this.model.off("msg:custom", this.hear);
    this.model.off("comm_live_update");
    this.timers.forEach(clearInterval);
    clearTimeout(this.again);
    this.waiting.forEach(({ timer }) => clearTimeout(timer));
  }

  /** The way to the kernel may have changed: see whether anybody answers. */
  lookAgain() {
    clearTimeout(this.again);
    this.ask({ do: "look" });
  }

  /** Ask a silent kernel again, less and less often: a word can be lost, or wait behind a cell. */
  lookLater() {
    clearTimeout(this.again);
    this.again = setTimeout(() => this.lookAgain(), this.pause);
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
  }

  /** Send a wish; where nobody says that it was heard, say so. */
  ask(message) {
    const key = `${(this.key += 1)}`;
    this.waiting.set(key, { message, timer: setTimeout(() => this.miss(key), PATIENCE) });
    try {
      this.model.send({ ...message, key, view: this.view });
    } catch {
      this.miss(key);
    }
  }

  /** What is shown goes on, or stands still and says so. */
  live(isLive) {
    this.isLive = isLive;
    this.main.classList.toggle("hive-old", !isLive);
  }

  miss(key) {
    if (!this.waiting.has(key)) return;
    const { message, timer } = this.waiting.get(key);
    clearTimeout(timer);
    this.waiting.delete(key);
    this.cards.get(message.request)?.giveUp(message);
    this.live(false);
    this.lookLater();
    if (this.number === null) {
      const { text } = this.model.get("still");
      put(this.still, text);
      show(this.still, true);
    }
    const instead = message.request
      ? `In a terminal: jupyter hive approve ${message.request}. In a cell, when the running one has ended: %hive approve ${message.request}`
      : "In a terminal: jupyter hive";
    put(
      this.notice,
      this.number === null
        ? "No kernel answers, so this is how it was when the panel was made. To see it live: %hive panel"
        : `The kernel does not hear: it has ended, or this front-end passes clicks on only when the running cell has ended. What you see is old. ${instead}`,
    );
    show(this.notice, true);
  }

  examine() {
    if (!this.doctor.hidden) {
      show(this.doctor, false);
      return;
    }
    put(this.doctor, "Trying out what confines workers here …");
    show(this.doctor, true);
    this.ask({ do: "doctor" });
  }

  /** Have all that happens at once read out together. */
  announce(text) {
    if (this.news.push(text) > 1) return;
    setTimeout(() => {
      say(this.spoken, this.news.join(" "));
      this.news = [];
    }, 100);
  }

  take(message) {
    if (message.kind === "ended") {
      this.live(false);
      put(this.notice, "This hive is closed. What you see is old.");
      show(this.notice, true);
    } else if (message.kind !== "change" && message.view !== this.view) {
      // an answer to another view of this panel
    } else if (message.kind === "heard") {
      clearTimeout(this.waiting.get(message.key)?.timer);
      this.waiting.delete(message.key);
      clearTimeout(this.again);
      this.pause = PATIENCE;
      if (!this.isLive || message.do !== "look") show(this.notice, false);
      this.live(true);
    } else if (message.kind === "all") {
      this.renew(message);
    } else if (message.kind === "change") {
      if (this.number === null || message.number <= this.number) return;
      if (message.number > this.number + 1) {
        this.ask({ do: "look" });
        return;
      }
      this.number = message.number;
      this.update(message);
    } else if (message.kind === "doctor") {
      put(this.doctor, message.text);
    } else {
      this.pass(message);
    }
  }

  pass(message) {
    const whose = this.jobs.get(message.job) ?? this.rows.get(message.of) ?? this.cards.get(message.of);
    if (whose) whose.hear(message);
    else if (message.text) {
      put(this.notice, message.text);
      show(this.notice, true);
    }
  }

  /** Draw all of a board anew. */
  renew({ number, board }) {
    this.number = number;
    for (const part of [this.rows, this.jobs, this.cards, this.lines]) part.clear();
    for (const part of [this.body, this.jobsBody, this.requests, this.decided]) part.replaceChildren();
    show(this.still, false);
    show(this.main, true);
    this.update(board);
  }

  update({ workers = {}, jobs = {}, requests = {}, notes, sandbox, no_workers: gone = [], no_jobs: past = [], no_requests: old = [] }) {
    for (const [name, values] of Object.entries(workers)) this.updateWorker(name, values);
    for (const name of gone) {
      const row = this.rows.get(name);
      row?.row.remove();
      row?.below.remove();
      this.rows.delete(name);
    }
    for (const [id, values] of Object.entries(jobs)) this.updateJob(id, values);
    for (const id of past) {
      const row = this.jobs.get(id);
      row?.row.remove();
      row?.below.remove();
      this.jobs.delete(id);
    }
    const inOrder = Object.entries(requests).sort(([, one], [, other]) => (one.asked ?? 0) - (other.asked ?? 0));
    for (const [id, values] of inOrder) this.updateRequest(id, values);
    for (const id of old) {
      (this.cards.get(id)?.root ?? this.lines.get(id)?.line)?.remove();
      this.cards.delete(id);
      this.lines.delete(id);
    }
    if (notes) this.notes.replaceChildren(...notes.map((note) => make("li", {}, note)));
    if (sandbox) put(this.sandbox, `sandbox: ${sandbox}`);
    this.summarise();
  }

  updateWorker(name, values) {
    let row = this.rows.get(name);
    if (!row) {
      row = new WorkerRow(name, (message) => this.ask(message));
      this.rows.set(name, row);
      const after = [...this.rows.keys()].sort();
      const next = this.rows.get(after[after.indexOf(name) + 1]);
      this.body.insertBefore(row.row, next?.row ?? null);
      row.row.after(row.below);
    }
    row.update(values);
  }

  updateJob(id, values) {
    let row = this.jobs.get(id);
    if (!row) {
      row = new JobRow(id, (message) => this.ask(message));
      this.jobs.set(id, row);
      // the latest first
      this.jobsBody.prepend(row.row, row.below);
    }
    row.update(values);
  }

  updateRequest(id, values) {
    const card = this.cards.get(id);
    if (card && values.files && card.isPending) {
      // what could not be shown can be shown now
      const made = this.makeCard({ ...card.values, problem: "", ...values });
      card.root.replaceWith(made.root);
    } else if (card) {
      card.update(values);
    } else if (values.state === "pending") {
      this.requests.append(this.makeCard(values).root);
      this.announce(`Request ${id} waits for you: ${values.title}`);
    } else {
      this.updateDecided(id, values);
    }
  }

  makeCard(values) {
    const ask = (message) => this.ask(message);
    const card = new Card(values, ask, (text) => this.announce(text));
    this.cards.set(values.id, card);
    return card;
  }

  updateDecided(id, changed) {
    const before = this.lines.get(id);
    const values = { ...before?.values, ...changed };
    const line = make("div", {}, make("code", {}, id), ` ${values.title}: ${became(values)}`);
    if (before) before.line.replaceWith(line);
    else this.decided.prepend(line);
    this.lines.set(id, { values, line });
  }

  summarise() {
    const pending = [...this.cards.values()].filter((card) => card.isPending).length;
    put(this.counts, count(this.rows.size, "worker", "workers"));
    put(this.waits, pending ? `${count(pending, "request waits", "requests wait")} for you` : "");
    this.waits.classList.toggle("hive-mark", pending > 0);
    show(this.jobsTitle, this.jobs.size > 0);
    show(this.jobsTable, this.jobs.size > 0);
    show(this.requestsTitle, this.cards.size > 0);
    show(this.decidedTitle, this.decided.childElementCount > 0);
  }

  tick() {
    if (!this.isLive) return;
    for (const row of this.rows.values()) {
      row.tick();
      row.sample();
    }
    for (const job of this.jobs.values()) if (!job.isOver) job.tick();
    for (const card of this.cards.values()) card.tick();
  }
}
