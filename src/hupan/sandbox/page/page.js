"use strict";
// Everything shown is built as text nodes: what a client sent is never read as markup.

const words = {
  zh: {
    sandbox: "沙箱", reset: "重置", requests: "请求", choose: "选择一条请求查看详情", outbox: "发件箱",
    clock: "时钟", expiry: "下一个到期：", freeze: "暂停", unfreeze: "继续", toexpiry: "跳到下一个到期",
    faults: "故障", match: "路径", kind: "故障", times: "次数", add: "添加", remove: "移除",
    snapshots: "快照", name: "名称", save: "保存", restore: "恢复", people: "测试用户", phone: "手机号",
    email: "邮箱", password: "密码", note: "说明", magic: "特殊号码与邮箱", frozen: "已暂停", none: "无",
    request: "请求", answer: "响应", warnings: "提示", changed: "改动", copied: "已复制", copy: "复制",
    notours: "被请求但不属于本模块的接口：", other: "English", wiped: "已重置", lost: "与服务器的连接已断开",
  },
  en: {
    sandbox: "sandbox", reset: "Reset", requests: "Requests", choose: "Choose a request to see it whole", outbox: "Outbox",
    clock: "Clock", expiry: "Next to end:", freeze: "Stop", unfreeze: "Go on", toexpiry: "To the next end",
    faults: "Faults", match: "Path", kind: "Fault", times: "Times", add: "Add", remove: "Remove",
    snapshots: "Snapshots", name: "Name", save: "Save", restore: "Restore", people: "People", phone: "Phone",
    email: "E-mail", password: "Password", note: "Note", magic: "Numbers and addresses with a fixed branch", frozen: "stopped", none: "none",
    request: "Request", answer: "Answer", warnings: "Warnings", changed: "Changed", copied: "Copied", copy: "Copy as",
    notours: "Asked for, but not of this module:", other: "中文", wiped: "Reset", lost: "The server does not answer",
  },
};

let language = navigator.language.startsWith("zh") ? "zh" : "en";
let shown = [];
let chosen = null;
const element = (id) => document.getElementById(id);
const say = (word) => words[language][word];

function make(tag, text, ...inside) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  made.append(...inside);
  return made;
}

function button(text, act) {
  const made = make("button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function tell(text) {
  element("status").textContent = text;
}

async function call(path, options = {}) {
  const answer = await fetch(`/__dev/${path}`, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

const post = (path, body) => call(path, { method: "POST", body: JSON.stringify(body) });

// A failure of what a person did is told; a poll that fails tells that the server is gone.
function guarded(act) {
  return async (event) => {
    event?.preventDefault();
    try {
      await act();
      await refresh();
    } catch (error) {
      tell(error.message);
    }
  };
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-say]")) one.textContent = say(one.dataset.say);
  element("language").textContent = say("other");
}

function spaced(hex) {
  return (hex.match(/.{1,2}/g) ?? []).join(" ");
}

function side(title, part) {
  const decoded = part.decoded === null ? "?" : JSON.stringify(part.decoded, null, 2);
  return make("div", null,
    make("h3", `${title}${part.format ? ` · ${part.format}` : ""}`),
    make("div", null, make("pre", decoded), make("pre", spaced(part.hex))));
}

function showDetail() {
  const one = shown.find((entry) => entry.id === chosen);
  if (!one) {
    element("detail").replaceChildren(make("p", say("choose")));
    return;
  }
  const copies = make("p", `${say("copy")} `);
  copies.className = "row";
  for (const kind of ["curl", "sdk", "pytest"]) {
    copies.append(button(kind, async () => {
      await navigator.clipboard.writeText(one.copy[kind]);
      tell(say("copied"));
    }));
  }
  const parts = [make("h3", `${one.method} ${one.path}${one.query ? `?${one.query}` : ""}`), copies];
  for (const name of ["warnings", "changed"]) {
    if (one[name].length) parts.push(make("p", `${say(name)}: ${one[name].join("; ")}`));
  }
  parts.push(side(say("request"), one.request), side(say("answer"), one.answer));
  element("detail").replaceChildren(...parts);
}

function showRequests() {
  const rows = [...shown].reverse().map((one) => {
    const outcome = one.code ?? one.status;
    const row = button(`${one.method} ${one.path} → ${outcome}${one.code === 1 ? "" : ` ${one.msg}`}`, () => {
      chosen = one.id;
      showRequests();
      showDetail();
    });
    row.className = one.code === 1 ? "fine" : "refused";
    if (one.warnings.length) row.append(make("span", ` ! ${one.warnings.length}`));
    if (one.fault) row.append(make("span", ` [${one.fault}]`));
    row.setAttribute("aria-pressed", String(one.id === chosen));
    return make("li", null, row);
  });
  element("requests").replaceChildren(...rows);
}

async function refreshRequests() {
  const last = shown.at(-1)?.id ?? 0;
  let told = await call(`requests?after=${last}`);
  if (told.requests.length) {
    shown = [...shown, ...told.requests].slice(-500);
    showRequests();
  } else if (last) {
    // After a reset the numbers begin anew.
    told = await call("requests");
    if ((told.requests.at(-1)?.id ?? 0) < last) {
      shown = told.requests;
      chosen = null;
      showRequests();
      showDetail();
    }
  }
  element("unimplemented").textContent = told.unimplemented.length
    ? `${say("notours")} ${told.unimplemented.join(", ")}` : "";
}

async function refresh() {
  await refreshRequests();
  const { messages } = await call("outbox");
  element("outbox").replaceChildren(...messages.map((one) => make("li", null,
    make("strong", one.code || one.purpose), make("span", ` ${one.to} `), make("span", one.text))));
  const clock = await call("clock");
  element("now").textContent = `${clock.text}${clock.frozen ? ` (${say("frozen")})` : ""}`;
  element("expiry").textContent = clock.next_expiry ? new Date(clock.next_expiry * 1000).toLocaleString(document.documentElement.lang) : say("none");
  element("freeze").textContent = say(clock.frozen ? "unfreeze" : "freeze");
  element("freeze").dataset.frozen = clock.frozen;
  const { faults, kinds } = await call("faults");
  element("faults").replaceChildren(...faults.map((one) => make("li",
    `${one.match}: ${one.fault}${one.times ? ` × ${one.times}` : ""} `,
    button(say("remove"), guarded(() => call(`faults?id=${one.id}`, { method: "DELETE" }))))));
  if (!element("kind").options.length) {
    element("kind").append(...Object.keys(kinds).map((one) => {
      const option = make("option", one);
      option.title = kinds[one];
      return option;
    }));
  }
  const { snapshots } = await call("snapshots");
  element("snapshots").replaceChildren(...snapshots.map((one) => make("li", `${one} `,
    button(say("restore"), guarded(() => post("snapshots", { restore: one }))))));
}

async function showPeople() {
  const { people, magic } = await call("people");
  element("people").replaceChildren(...people.map((one) => make("tr", null,
    ...["id", "phone", "email", "password", "token", "note"].map((key) => make("td", String(one[key]))))));
  element("magic").replaceChildren(...magic.map((one) => make("li", `${one.phone} · ${one.email}: ${one.note}`)));
}

element("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  translate();
  showRequests();
  showDetail();
  guarded(async () => {})();
});
element("reset").addEventListener("click", guarded(async () => {
  await post("reset", {});
  shown = [];
  chosen = null;
  showRequests();
  showDetail();
  tell(say("wiped"));
}));
element("freeze").addEventListener("click", guarded(() =>
  post("clock", { freeze: element("freeze").dataset.frozen !== "true" })));
for (const one of document.querySelectorAll("[data-advance]")) {
  one.addEventListener("click", guarded(() => post("clock", { advance: one.dataset.advance })));
}
element("fault").addEventListener("submit", guarded(() => {
  const times = element("times").valueAsNumber;
  return post("faults", {
    match: element("match").value, fault: element("kind").value, ...(times ? { times } : {}),
  });
}));
element("snapshot").addEventListener("submit", guarded(() =>
  post("snapshots", { save: element("snapshot-name").value })));

async function poll() {
  try {
    await refresh();
  } catch {
    tell(say("lost"));
  }
  setTimeout(poll, 1000);
}

translate();
showPeople().catch((error) => tell(error.message));
poll();
