// The console: follows /console/stream and shows what it says. Everything a shop's data holds reaches the page as text
// (textContent), never as markup.
"use strict";

const SECONDS = 120;
const ROWS = 12;
const SILENT_MS = 10_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

const byId = (id) => document.getElementById(id);

/** An element with classes and children; strings become text. */
function make(tag, classes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayTime = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const number = (n) => (n >= 100 ? whole : fine).format(n);
const words = (name) => name.replaceAll("_", " ");

/** A moment: the time today, the day and time otherwise. */
function moment(at, classes = "push") {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return null;
  const today = date.toDateString() === new Date().toDateString();
  const time = make("time", classes, (today ? clockTime : dayTime).format(date));
  time.dateTime = date.toISOString();
  time.title = fullTime.format(date);
  return time;
}

/** Text that may be cut, whole when pointed at. */
function cut(classes, text) {
  const element = make("span", classes, text);
  element.title = text;
  return element;
}

const line = (n, ...parts) => make("div", `line${n}`, ...parts);
const hiddenText = (text) => make("span", "hidden", text);

/** How each kind of decision is shown. */
const views = {
  prices(p) {
    const change = p.old && p.new ? ((Number(p.new) - Number(p.old)) / Number(p.old)) * 100 : NaN;
    const up = change >= 0;
    const tag = Number.isFinite(change)
      ? make("span", `tag ${up ? "up" : "down"}`, hiddenText(up ? "up" : "down"), `${up ? "▲" : "▼"} ${fine.format(Math.abs(change))} %`)
      : null;
    return [
      line(1, cut("id", p.product), p.shadow ? make("span", "tag", "shadow") : null,
        make("span", "push", make("span", "was", hiddenText("from "), p.old), " ", hiddenText("to "), make("span", "price", p.new),
          p.currency ? ` ${p.currency}` : ""), tag),
      line(2, cut("cut", [p.reason, ...p.bounds.map((b) => `held by ${words(b)}`)].join(" · ")), moment(p.at)),
    ];
  },
  recommendations(r) {
    return [
      line(1, cut("id", r.user), cut("cut soft", words(r.trigger)), moment(r.at)),
      make("div", "chips", ...r.ids.map((id) => cut("chip", id))),
    ];
  },
  points(p) {
    const points = Number(p.points ?? 0);
    const sign = points > 0 ? "plus" : points < 0 ? "minus" : "";
    return [
      line(1, cut("id", p.user), p.tier ? make("span", "tag", p.tier) : null,
        make("span", `amount push ${sign}`, `${points > 0 ? "+" : points < 0 ? "−" : ""}${whole.format(Math.abs(points))}`)),
      line(2, cut("cut", [words(p.kind), p.note].filter(Boolean).join(" · ")),
        make("span", "push", `balance ${whole.format(Number(p.balance ?? 0))}`)),
    ];
  },
  boxes(b) {
    return [
      line(1, cut("id", b.user), b.period === null ? null : make("span", "tag", `box ${b.period}`), moment(b.at)),
      make("div", "chips", ...b.items.map((item) => {
        const chip = cut(item.exclusive ? "chip exclusive" : "chip", item.exclusive ? `★ ${item.id}` : item.id);
        if (item.exclusive) chip.append(hiddenText(" exclusive"));
        return chip;
      })),
    ];
  },
  emails(e) {
    return [
      line(1, cut("id", words(e.template)), cut("cut soft", e.to), moment(e.at)),
      line(2, cut("cut", e.because || e.user)),
    ];
  },
  dead(d) {
    const from = [d.topic, d.processor].filter(Boolean).join(" → ");
    return [
      line(1, cut("id", from || d.key || d.place), make("span", "tag bad", "not processed"), moment(d.at)),
      d.error ? line(2, cut("cut error", d.error)) : null,
      line(2, cut("cut raw", d.value)),
    ];
  },
};

const DEAD_LETTERS = "dead_letters";

/** The number of the newest decision shown, by kind. */
let shown = {};

/** Puts new rows, newest first, before those that are there. */
function addRows(kind, items, fresh) {
  const list = byId(kind);
  const news = items.filter((item) => item.n > (shown[kind] ?? 0)).slice(0, ROWS);
  shown[kind] = news[0]?.n ?? shown[kind];
  const rows = news.map((item) => {
    const row = make("li", fresh ? "fresh" : "");
    row.append(...views[kind](item).filter(Boolean));
    return row;
  });
  list.prepend(...rows);
  while (list.children.length > ROWS) list.lastElementChild.remove();
}

const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** Draws rates of the last two minutes, the newest at the right. */
function draw(id, label, rates) {
  const chart = byId(`${id}-chart`);
  if (!chart.firstChild) {
    chart.append(svg("path", { class: "area" }), svg("line", { class: "base", x1: 0, x2: SECONDS - 1, y1: 40, y2: 40 }), svg("path", { class: "line" }));
  }
  const peak = Math.max(...rates, 1);
  const points = rates.map((rate, i) => `${SECONDS - rates.length + i} ${(40 - (rate / peak) * 37).toFixed(2)}`);
  const path = points.length > 1 ? `M${points.join("L")}` : "";
  chart.querySelector(".line").setAttribute("d", path);
  chart.querySelector(".area").setAttribute("d", path && `${path}V40H${SECONDS - rates.length}Z`);
  const now = rates.at(-1) ?? 0;
  byId(id).textContent = number(now);
  byId(`${id}-peak`).textContent = `${number(Math.max(...rates, 0))} at most in two minutes`;
  chart.setAttribute("aria-label", `${label}: ${number(now)} now, ${number(Math.max(...rates, 0))} at most in the last two minutes`);
}

function showTotals(totals) {
  // Dead letters have a place of their own.
  const names = Object.keys(totals).filter((name) => name !== DEAD_LETTERS).sort();
  byId("totals").hidden = names.length === 0;
  byId("totals").replaceChildren(...names.map((name) => make("div", "", make("dt", "", words(name)), make("dd", "", whole.format(totals[name])))));
  const dead = totals[DEAD_LETTERS] ?? 0;
  byId("dead-count").textContent = whole.format(dead);
  byId("dead-tile").classList.toggle("bad", dead > 0);
}

function showWarnings(warnings) {
  byId("warnings-panel").hidden = warnings.length === 0;
  byId("warnings").replaceChildren(...warnings.map((w) => make("li", "", make("span", "tag up", words(w.kind)), ` ${w.what}. ${w.mend}.`)));
}

function showTasks(tasks) {
  const rows = tasks.map((task) => {
    const state = make("td", "", make("span", task.state === "running" ? "tag good" : "tag up", task.state));
    if (task.restored) {
      const progress = make("progress");
      [progress.value, progress.max] = task.restored;
      progress.setAttribute("aria-label", `${task.group} ${task.partition} restored`);
      state.append(progress);
    }
    const clock = make("td", "number", task.clock ? moment(task.clock, "") : "–");
    return make("tr", "", make("td", "", `${task.group} ${task.partition}`), state, make("td", "number", whole.format(task.lag)), clock);
  });
  byId("tasks").replaceChildren(...rows);
  const lag = tasks.reduce((sum, task) => sum + Math.max(task.lag, 0), 0);
  const running = tasks.filter((task) => task.state === "running").length;
  byId("lag").textContent = whole.format(lag);
  byId("lag-note").textContent = `records; ${running} of ${tasks.length} tasks run`;
  const clocks = tasks.map((task) => Date.parse(task.clock)).filter(Number.isFinite);
  byId("clock").hidden = clocks.length === 0;
  if (clocks.length) {
    const latest = new Date(Math.max(...clocks));
    byId("clock-time").textContent = fullTime.format(latest);
    byId("clock-time").dateTime = latest.toISOString();
  }
}

/** Says how things are; said again only when it changes, since it is read aloud. */
function say(state, text) {
  const status = byId("status");
  if (status.textContent === text) return;
  status.dataset.state = state;
  status.textContent = text;
}

let rates = [];

function show(news, whole_picture) {
  if (whole_picture) {
    rates = [];
    shown = {};
    for (const kind of Object.keys(views)) byId(kind).replaceChildren();
  }
  rates = rates.concat(news.rates).slice(-SECONDS);
  draw("events", "Events a second", rates.map((rate) => rate[0]));
  draw("decided", "Decisions a second", rates.map((rate) => rate[1]));
  for (const [kind, items] of Object.entries(news.lists)) {
    if (kind in views) addRows(kind, items, !whole_picture);
  }
  showTotals(news.totals);
  showTasks(news.tasks);
  showWarnings(news.warnings);
  byId("first").hidden = Object.keys(news.totals).length > 0 || rates.some((rate) => rate[0] > 0);
  if (news.ready) say("live", "Live");
  else say("restoring", news.reason ? `Not ready: ${news.reason}` : "Not ready");
}

/** Server-sent events of a response. Read by hand, since an EventSource can send no key. */
async function* eventsOf(response, alive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: "" };
      for (const row of block.split("\n")) {
        const colon = row.indexOf(":");
        if (colon > 0) fields[row.slice(0, colon)] = row.slice(colon + 1).replace(/^ /, "");
      }
      if (fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

const KEY = "tillflow.key";
let current = null;
let paused = false;

/** Follows the stream until it breaks; whether it is worth trying again. */
async function follow() {
  current = new AbortController();
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  let silence;
  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(() => current.abort(), SILENT_MS);
  };
  alive();
  try {
    const response = await fetch("console/stream", { headers, signal: current.signal, cache: "no-store" });
    if (response.status === 401 || response.status === 403) {
      const answer = await response.json().catch(() => ({}));
      ask(key ? (answer.error?.message ?? "The key is not the right one.") : "");
      return false;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    byId("ask").hidden = true;
    byId("main").hidden = false;
    for await (const [event, data] of eventsOf(response, alive)) {
      wait = FIRST_WAIT_MS;
      show(data, event === "picture");
    }
  } finally {
    clearTimeout(silence);
  }
  return true;
}

let wait = FIRST_WAIT_MS;

let turn = 0;

/** Follows the stream, again and again, until it is paused or another call takes over. */
async function run() {
  const mine = ++turn;
  while (mine === turn) {
    let again = true;
    try {
      again = await follow();
    } catch {
      // Broken off: said below, tried again.
    }
    if (!again || paused || mine !== turn) return;
    say("lost", "Connection lost, trying again");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

function ask(complaint) {
  say("waiting", "Needs a key");
  byId("main").hidden = true;
  byId("ask").hidden = false;
  if (complaint) byId("ask-reason").textContent = complaint;
  byId("key").focus();
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  run();
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Resume" : "Pause";
  if (paused) {
    say("waiting", "Paused");
    current?.abort();
  } else {
    say("waiting", "Connecting");
    run();
  }
});

const key = sessionStorage.getItem(KEY) ? " -H 'authorization: Bearer <server key>'" : "";
byId("first-command").textContent =
  `curl ${location.origin}/v1/events${key} -d '{"event_type": "product_viewed", "user_id": "u1", "product_id": "p1"}'`;

run();
