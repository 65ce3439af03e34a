"use strict";
// The secret stands behind the "#", which browsers send to nobody; it leaves in a body only.
const words = {
  zh: {
    "undo-phone": ["撤销手机号更改", "恢复原来绑定的手机号，让所有设备下线，并清除登录密码（可通过验证码重新设置）。", "撤销更改"],
    "undo-email": ["撤销邮箱更改", "恢复原来绑定的邮箱，让所有设备下线，并清除登录密码（可通过验证码重新设置）。", "撤销更改"],
    setup: ["设置登录密码", "请为您的账号设置一个密码。", "保存"],
    password: "新密码", done: "已完成。", failed: "网络错误，请重试。",
  },
  en: {
    "undo-phone": ["Undo the change of number", "Bind the former number again, log out every device and drop the password; a code sets a new one.", "Undo"],
    "undo-email": ["Undo the change of address", "Bind the former address again, log out every device and drop the password; a code sets a new one.", "Undo"],
    setup: ["Choose a password", "Choose a password for your account.", "Save"],
    password: "New password", done: "Done.", failed: "The network failed; try again.",
  },
};
const language = navigator.language.startsWith("zh") ? "zh" : "en";
const say = words[language];
const element = (id) => document.getElementById(id);
document.documentElement.lang = language;

async function call(more) {
  const secret = location.hash.slice(1);
  const answer = await fetch("/account/link", {
    method: "POST",
    body: JSON.stringify({ secret, ...more }),
  });
  const told = await answer.json();
  if (told.code !== 1) throw new Error(told.msg);
  return told.data;
}

function show(text) {
  element("text").textContent = text;
}

async function start() {
  const { kind } = await call({ look: true });
  const [title, text, button] = say[kind];
  element("title").textContent = title;
  element("button").textContent = button;
  show(text);
  if (kind === "setup") {
    element("password-label").hidden = false;
    element("password-label").firstElementChild.textContent = say.password;
  }
  element("form").hidden = false;
  element("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    element("button").disabled = true;
    try {
      await call({ password: element("password").value });
      element("form").hidden = true;
      show(say.done);
    } catch (error) {
      show(error instanceof TypeError ? say.failed : error.message);
    }
    element("button").disabled = false;
  });
}

start().catch((error) => {
  element("title").textContent = "Hupan";
  show(error instanceof TypeError ? say.failed : error.message);
});
