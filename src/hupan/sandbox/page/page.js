"use strict";
// Everything shown is built as text nodes: what a client sent is never read as markup.

const words = {
  zh: {
    sandbox: "沙箱", reset: "全部重置", requests: "请求", choose: "选择一条请求，查看解码后的内容和原始字节。",
    waiting: "还没有请求。把客户端的地址改为本机，请求会立即显示在这里。", filter: "筛选", clear: "清空",
    outbox: "发件箱", nothing: "还没有消息。", ended: "已过期", open: "打开链接", captchas: "图形验证码", nocaptcha: "还没有图形验证码。",
    clock: "时钟", expiry: "下一个到期：", freeze: "暂停", unfreeze: "继续", hour: "+1 小时", day: "+1 天", week: "+7 天",
    toexpiry: "跳到下一个到期", advance: "前进（秒数、P7D、PT90S）", moment: "跳到（年-月-日 时:分）", go: "执行",
    faults: "故障", nofault: "没有故障。", match: "路径（可用 *）或接口名", kind: "故障", times: "次数（空为不限）", probability: "概率 0–1",
    seconds: "秒", httpstatus: "HTTP 状态", code: "code", msg: "msg", add: "添加", remove: "移除", always: "不限次数", nomatch: "没有匹配本模块的接口",
    snapshots: "快照", name: "名称", save: "保存", restore: "恢复", forget: "删除", people: "测试用户", phone: "手机号",
    email: "邮箱", password: "密码", token: "令牌", note: "说明", magic: "固定结果的号码与邮箱", frozen: "已暂停", none: "无",
    request: "请求", answer: "响应", warnings: "提示", changed: "改动", copied: "已复制", copy: "复制为", copytoken: "复制",
    bytes: "字节", empty: "空", junk: "无法解码", notours: "被请求但不属于本模块（返回 404，不转发）：", other: "English",
    wiped: "已重置", kept: "已保存", back: "已恢复", lost: "与服务器的连接已断开", select: "请手动复制下面的文字",
    kinds: {
      delay: "延迟若干秒后再响应", status: "返回指定的 HTTP 状态，没有正常内容", refusal: "以指定的 code 和 msg 拒绝，不执行操作",
      drop: "执行操作，但在响应中途断开连接", truncate: "执行操作，只发送一半响应", "bad-protobuf": "执行操作，发送无法解析的字节",
      "unknown-fields": "附加未来版本可能出现的未知字段", "dead-token": "当作令牌已失效",
    },
  },
  en: {
    sandbox: "sandbox", reset: "Reset everything", requests: "Requests", choose: "Choose a request to see it decoded, beside its bytes.",
    waiting: "No request yet. Point a client at this address; what it says shows up here at once.", filter: "Filter", clear: "Clear",
    outbox: "Outbox", nothing: "Nothing was sent yet.", ended: "over", open: "Open link", captchas: "Captchas", nocaptcha: "No captcha was asked for yet.",
    clock: "Clock", expiry: "Next to end:", freeze: "Stop", unfreeze: "Go on", hour: "+1 hour", day: "+1 day", week: "+7 days",
    toexpiry: "To the next end", advance: "Go on by (seconds, P7D, PT90S)", moment: "Go to (year-month-day hour:minute)", go: "Go",
    faults: "Faults", nofault: "No faults.", match: "Path (with *) or name of an endpoint", kind: "Fault", times: "Times (empty: always)", probability: "Probability 0–1",
    seconds: "Seconds", httpstatus: "HTTP status", code: "code", msg: "msg", add: "Add", remove: "Remove", always: "always", nomatch: "matches no endpoint of this module",
    snapshots: "Snapshots", name: "Name", save: "Save", restore: "Restore", forget: "Forget", people: "People", phone: "Phone",
    email: "E-mail", password: "Password", token: "Token", note: "Note", magic: "Numbers and addresses with a fixed branch", frozen: "stopped", none: "none",
    request: "Request", answer: "Answer", warnings: "Warnings", changed: "Changed", copied: "Copied", copy: "Copy as", copytoken: "Copy",
    bytes: "bytes", empty: "empty", junk: "cannot be decoded", notours: "Asked for, but not of this module (404, never forwarded):", other: "中文",
    wiped: "Everything is as at the start", kept: "Saved", back: "Restored", lost: "The server does not answer", select: "Copy the text below by hand",
    kinds: {},
  },
};

const most = 500;
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let shown = [];
let chosen = null;
let era = null;
let kinds = {};
let zone = "UTC";
let gone = false;
let refreshing = Promise.resolve();
const element = (id) => document.getElementById(id);
const say = (word) => words[language][word];

function make(tag, text, ...inside) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...inside);
  return made;
}

function styled(className, made) {
  made.className = className;
  return made;
}

function button(text, act, key) {
  const made = make("button", text);
  made.type = "button";
  if (key) made.dataset.key = key;
  made.addEventListener("click", act);
  return made;
}

function tell(text, bad = false) {
  element("status").textContent = text;
  element("status").classList.toggle("bad", bad);
}

function moment(seconds, long = true) {
  const day = long ? { year: "numeric", month: "2-digit", day: "2-digit" } : {};
  return new Intl.DateTimeFormat("sv-SE", {
    timeZone: zone, ...day, hour: "2-digit", minute: "2-digit", second: "2-digit",
  }).format(seconds * 1000);
}

// A list is drawn anew only when it changed, and the button that had the focus keeps it: the page
// asks every second, and a keyboard user must not lose the place each time.
const drawn = new Map();
function fill(id, data, build) {
  const now = JSON.stringify([language, zone, data]);
  if (drawn.get(id) === now) return;
  drawn.set(id, now);
  const inside = document.activeElement;
  const key = element(id).contains(inside) ? inside.dataset.key : null;
  element(id).replaceChildren(...build());
  if (key) [...element(id).querySelectorAll("[data-key]")].find((one) => one.dataset.key === key)?.focus();
}

async function call(path, options = {}) {
  const answer = await fetch(`/__dev/${path}`, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

const post = (path, body) => call(path, { method: "POST", body: JSON.stringify(body) });

// A failure of what a person did is told; what went well is seen.
function guarded(act) {
  return async (event) => {
    event?.preventDefault();
    try {
      tell((await act()) || "");
      await refresh();
    } catch (error) {
      tell(error instanceof TypeError ? say("lost") : error.message, true);
    }
  };
}

// Without a secure context (a page from another machine) there is no clipboard.
async function copy(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    tell(say("copied"));
  } catch {
    tell(say("select"));
  }
  if (!place) return;
  place.hidden = false;
  place.textContent = text;
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = `Hupan ${say("sandbox")}`;
  for (const one of document.querySelectorAll("[data-say]")) one.textContent = say(one.dataset.say);
  element("language").textContent = say("other");
  element("language").lang = language === "zh" ? "en" : "zh-CN";
}

function spaced(hex) {
  return (hex.match(/.{1,2}/g) ?? []).join(" ");
}

function side(title, part) {
  const decoded = part.decoded === null ? say("junk") : JSON.stringify(part.decoded, null, 2);
  const size = `${part.hex.length / 2} ${say("bytes")}`;
  const text = make("pre", decoded);
  const bytes = styled("hex", make("pre", spaced(part.hex) || say("empty")));
  // What can be scrolled can be scrolled by keyboard.
  for (const one of [text, bytes]) one.tabIndex = 0;
  return make("div", null,
    make("h3", null, make("b", title), ` ${part.format} · ${size}`),
    styled("both", make("div", null, text, bytes)));
}

function showDetail() {
  const one = shown.find((entry) => entry.id === chosen);
  fill("detail", one ?? shown.length > 0, () => {
    if (!one) return [make("p", say(shown.length ? "choose" : "waiting"))];
    const place = make("pre", "");
    place.hidden = true;
    place.id = "copy";
    place.tabIndex = 0;
    const copies = styled("row", make("p", null, `${say("copy")} `));
    for (const [kind, name] of [["curl", "curl"], ["sdk", "SDK"], ["pytest", "pytest"]]) {
      copies.append(button(name, () => copy(one.copy[kind], place), kind));
    }
    const outcome = `${one.status}${one.code === null ? "" : ` · ${one.code} ${one.msg}`}`;
    const parts = [
      make("h3", null, make("b", `${one.method} ${one.path}${one.query ? `?${one.query}` : ""}`)),
      styled("dim", make("p", [moment(one.at), one.host, one.row, `HTTP ${outcome}`, `${one.ms} ms`, one.fault, one.identity].filter(Boolean).join(" · "))),
    ];
    if (one.token) parts.push(styled("dim", make("p", null, "token ", make("code", one.token))));
    for (const name of ["warnings", "changed"]) {
      if (one[name].length) parts.push(styled(name === "warnings" ? "warn" : "", make("p", `${say(name)}: ${one[name].join("; ")}`)));
    }
    return [...parts, side(say("request"), one.request), side(say("answer"), one.answer), copies, place];
  });
}

function showRequests() {
  const wanted = element("filter").value.trim().toLowerCase();
  const rows = shown.filter((one) =>
    !wanted || `${one.method} ${one.path} ${one.row} ${one.code} ${one.msg}`.toLowerCase().includes(wanted)).reverse();
  fill("requests", [rows.map((one) => one.id), chosen, era], () => rows.map((one) => {
    const outcome = one.code ?? one.status;
    const row = button(null, () => {
      chosen = one.id;
      showRequests();
      showDetail();
    }, `request ${one.id}`);
    row.append(
      styled("dim", make("span", moment(one.at, false))),
      styled("what", make("span", `${one.method} ${one.path}`)),
      styled(one.code === 1 ? "fine" : "refused", make("span", `${outcome}${one.code === 1 ? "" : ` ${one.msg}`}`)));
    if (one.warnings.length) row.append(styled("warn", make("span", `⚠ ${one.warnings.join("; ")}`)));
    for (const mark of [one.fault, one.identity]) if (mark) row.append(styled("warn", make("span", `[${mark}]`)));
    row.setAttribute("aria-pressed", String(one.id === chosen));
    return make("li", null, row);
  }));
}

async function refreshRequests() {
  let told = await call(`requests?after=${shown.at(-1)?.id ?? 0}`);
  if (told.era !== era) {
    // After a reset the numbers begin anew.
    told = await call("requests");
    era = told.era;
    shown = [];
    chosen = null;
  }
  shown = [...shown, ...told.requests].slice(-most);
  showRequests();
  showDetail();
  const paths = Object.entries(told.counts).map(([path, count]) => `${path} ×${count}`);
  element("unimplemented").hidden = !paths.length;
  element("unimplemented").textContent = `${say("notours")} ${paths.join(", ")}`;
}

function showLetters(messages) {
  fill("outbox", messages, () => messages.length ? messages.map((one) => {
    const line = make("li", null, styled("dim", make("span", `${moment(one.at)} · ${one.channel} · ${one.to} `)));
    if (one.code) line.append(styled("codeword", make("span", one.code)), " ");
    if (one.ended) line.append(styled("warn", make("span", `${say("ended")} `)));
    line.append(make("br", null), one.text);
    if (one.link) {
      const link = make("a", say("open"));
      link.href = one.link;
      link.rel = "noreferrer";
      link.target = "_blank";
      link.dataset.key = `link ${one.id}`;
      line.append(" ", link);
    }
    return line;
  }) : [styled("dim", make("li", say("nothing")))]);
}

function showCaptchas(captchas) {
  fill("captchas", captchas, () => captchas.length ? captchas.slice(0, 20).map((one) => make("li", null,
    styled("codeword", make("span", one.solution)), " ", styled("dim", make("span", `${moment(one.at)} · ${one.id}`))))
    : [styled("dim", make("li", say("nocaptcha")))]);
}

function showClock(clock) {
  zone = clock.zone;
  const text = `${clock.text}${clock.frozen ? ` (${say("frozen")})` : ""}`;
  element("now").textContent = text;
  element("clock").textContent = `${text} · ${zone}`;
  element("expiry").textContent = `${say("expiry")} ${clock.next_expiry ? moment(clock.next_expiry) : say("none")}`;
  element("freeze").textContent = say(clock.frozen ? "unfreeze" : "freeze");
  element("freeze").dataset.frozen = clock.frozen;
}

function showFaults(faults) {
  fill("faults", faults, () => faults.length ? faults.map((one) => {
    const more = { delay: `${one.seconds} s`, status: one.status, refusal: `${one.code} ${one.msg}` }[one.fault] ?? "";
    const often = [one.times ? `× ${one.times}` : say("always"), one.probability < 1 ? `p ${one.probability}` : ""];
    return make("li", null,
      make("code", one.match), ` ${[one.fault, more, ...often].filter(Boolean).join(" · ")} `,
      styled("dim", make("span", `${one.matches.length ? one.matches.slice(0, 3).join(", ") + (one.matches.length > 3 ? " …" : "") : say("nomatch")} `)),
      styled("small", button(say("remove"), guarded(() => call(`faults?id=${one.id}`, { method: "DELETE" }).then(() => "")), `fault ${one.id}`)));
  }) : [styled("dim", make("li", say("nofault")))]);
}

function showKinds() {
  fill("kind", kinds, () => Object.keys(kinds).map((one) => make("option", one)));
  const kind = element("kind").value;
  element("what").textContent = say("kinds")[kind] ?? (kinds[kind] ?? "").replaceAll("`", "");
  element("what").className = "dim broad";
  for (const one of document.querySelectorAll("[data-for]")) {
    one.hidden = one.dataset.for !== kind;
    // A hidden field that is not filled in well would keep the form from being sent, silently.
    one.querySelector("input").disabled = one.hidden;
  }
}

function showSnapshots(snapshots) {
  fill("snapshots", snapshots, () => snapshots.map((one) => {
    const line = make("li", null, make("code", one), " ",
      styled("small", button(say("restore"), guarded(() => post("snapshots", { restore: one }).then(({ ms }) => `${say("back")}: ${one}, ${ms} ms`)), `restore ${one}`)));
    if (one !== "fresh") {
      line.append(" ", styled("small", button(say("forget"), guarded(() => post("snapshots", { forget: one }).then(() => "")), `forget ${one}`)));
    }
    return line;
  }));
}

async function refresh() {
  // One at a time: two that overlap would show the same request twice.
  refreshing = refreshing.then(refreshAll, refreshAll);
  await refreshing;
}

async function refreshAll() {
  showClock(await call("clock"));
  await refreshRequests();
  showLetters((await call("outbox")).messages);
  showCaptchas((await call("captchas")).captchas);
  const told = await call("faults");
  kinds = told.kinds;
  showFaults(told.faults);
  const kind = element("kind").value;
  showKinds();
  if (kind && element("kind").value !== kind) {
    element("kind").value = kind;
    showKinds();
  }
  showSnapshots((await call("snapshots")).snapshots);
}

async function showPeople() {
  const { people, magic } = await call("people");
  fill("people", people, () => people.map((one) => {
    const row = make("tr", null, ...["id", "phone", "email", "password"].map((key) => make("td", String(one[key]))));
    const act = styled("small", button(say("copytoken"), () => copy(one.token), `token ${one.id}`));
    act.setAttribute("aria-label", `${say("copytoken")} ${say("token")} ${one.id}`);
    row.append(make("td", null, `${one.token} `, act), make("td", one.note));
    return row;
  }));
  fill("magic", magic, () => magic.map((one) => make("tr", null,
    ...["phone", "email", "note"].map((key) => make("td", one[key])))));
}

element("language").addEventListener("click", guarded(async () => {
  language = language === "zh" ? "en" : "zh";
  translate();
  await showPeople();
}));
element("reset").addEventListener("click", guarded(async () => {
  const { ms } = await post("reset", {});
  return `${say("wiped")} (${ms} ms)`;
}));
element("clear").addEventListener("click", guarded(async () => {
  await call("requests", { method: "DELETE" });
}));
element("filter").addEventListener("input", showRequests);
element("requests").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...element("requests").querySelectorAll("button")];
  all[all.indexOf(document.activeElement) + step]?.focus();
});
element("freeze").addEventListener("click", guarded(async () => {
  await post("clock", { freeze: element("freeze").dataset.frozen !== "true" });
}));
for (const one of document.querySelectorAll("[data-advance]")) {
  one.addEventListener("click", guarded(async () => {
    await post("clock", { advance: one.dataset.advance });
  }));
}
element("move").addEventListener("submit", guarded(async () => {
  const span = element("span").value.trim();
  await post("clock", { advance: /^-?\d+$/.test(span) ? Number(span) : span });
}));
element("set").addEventListener("submit", guarded(async () => {
  await post("clock", { set: element("moment").value.trim() });
}));
element("kind").addEventListener("change", showKinds);
element("fault").addEventListener("submit", guarded(async () => {
  const kind = element("kind").value;
  const fault = { match: element("match").value.trim(), fault: kind, probability: element("probability").valueAsNumber };
  const times = element("times").valueAsNumber;
  if (times) fault.times = times;
  if (kind === "delay") fault.seconds = element("seconds").valueAsNumber;
  if (kind === "status") fault.status = element("httpstatus").valueAsNumber;
  if (kind === "refusal") Object.assign(fault, { code: element("code").valueAsNumber, msg: element("msg").value });
  await post("faults", fault);
}));
element("snapshot").addEventListener("submit", guarded(async () => {
  const name = element("snapshot-name").value;
  const { ms } = await post("snapshots", { save: name });
  element("snapshot-name").value = "";
  return `${say("kept")}: ${name} (${ms} ms)`;
}));

async function poll() {
  try {
    await refresh();
    if (gone) {
      gone = false;
      tell("");
    }
  } catch {
    gone = true;
    tell(say("lost"), true);
  }
  setTimeout(poll, document.hidden ? 5000 : 1000);
}

translate();
showPeople().catch(() => {});
poll();
