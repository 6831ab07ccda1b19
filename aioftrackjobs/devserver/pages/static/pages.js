// Keeps pages up to date. Without it, all of them work, and are as they were when they were loaded.
"use strict";

const find = (query, root = document) => root.querySelector(query);
const byId = (id) => document.getElementById(id);
const clockOffset = Date.parse(document.body.dataset.now) - Date.now();

// ---- Times: "3 min" is counted on in the browser. ----

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function length(seconds) {
  const [each, unit] = UNITS.find(([each]) => seconds >= each) || UNITS[3];
  return `${Math.floor(seconds / each)} ${unit}`;
}

function tick() {
  const now = Date.now() + clockOffset;
  for (const time of document.querySelectorAll("time")) {
    time.at ??= Date.parse(time.dateTime);
    const text = length(Math.abs(now - time.at) / 1000);
    if (time.firstChild.data !== text) time.firstChild.data = text;
  }
}

// ---- Changing what is shown, but not what is the same: focus and selections stay. ----

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

const isSameKind = (one, other) => one.nodeName === other.nodeName && one.id === other.id
  && (one.classList?.[0] === other.classList?.[0]);

function morph(old, now) {
  if (old.nodeName !== now.nodeName) { old.replaceWith(now); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return;
  }
  if (old.nodeName === "TIME") delete old.at;
  for (const { name } of [...old.attributes]) {
    if (!now.hasAttribute(name) && !isUsers(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (old.getAttribute(name) !== value && !isUsers(old, name)) old.setAttribute(name, value);
  }
  let next = old.firstChild;
  for (const node of [...now.childNodes]) {
    let same = next;
    while (same && !isSameKind(same, node)) same = same.nextSibling;
    if (!same) { old.insertBefore(node, next); continue; }
    while (next !== same) next = remove(next);
    next = same.nextSibling;
    morph(same, node);
  }
  while (next) next = remove(next);
}

function remove(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Whether it is the user who decides about an attribute. */
function isUsers(element, name) {
  return (name === "open" && element.nodeName === "DETAILS")
    || (name === "value" && element.nodeName === "INPUT" && element.type !== "hidden");
}

/** Show the parts of a page in the place of those with the same id; lists only if it has these. */
function showParts(page, hasLists = false) {
  for (const part of page.querySelectorAll("[data-part]")) {
    const old = byId(part.id);
    if (part.dataset.part === "list" && !hasLists) continue;
    if (part.id === "job" && !old) openPanel(part);
    else if (part.id === "rows") { old.replaceWith(part); connect(); markOpen(); }
    else if (old) old.replaceWith(part);
  }
}

/** Return a page; null if there is none, which is said. */
async function load(url, options = {}) {
  const response = await fetch(url, { ...options, headers: { accept: "text/html" } }).catch(() => null);
  if (!response) { say("off", "The server does not respond"); return null; }
  if (response.status === 401) { location.reload(); return null; }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  page.address = response.url;
  return page;
}

// ---- The panel with one Job beside the list. ----

let opener = null;

function openPanel(article) {
  const panel = byId("panel");
  if (!panel) { byId("main").prepend(article); return; }
  panel.replaceChildren(article);
  panel.hidden = false;
  document.body.classList.add("has-panel");
  markOpen();
}

function markOpen() {
  find(".job.is-shown")?.classList.remove("is-shown");
  const open = byId("panel")?.hidden === false && byId("job")?.dataset.job;
  if (open) byId(`job-${open}`)?.classList.add("is-shown");
}

function closePanel() {
  const panel = byId("panel");
  if (!panel || panel.hidden) return;
  panel.hidden = true;
  panel.replaceChildren();
  document.body.classList.remove("has-panel");
  markOpen();
  if (opener?.isConnected) opener.focus();
}

async function showJob(link) {
  const page = await load(link.href);
  if (!page) return;
  byId("panel").replaceChildren();
  showParts(page);
  opener = link.closest("li")?.querySelector(".what") || link;
  const target = link.hash ? find(link.hash, byId("panel")) : null;
  (target || find(".close", byId("panel")))?.focus();
  target?.scrollIntoView({ block: "nearest" });
}

async function refreshPanel() {
  const job = byId("job"), panel = byId("panel");
  if (!job?.dataset.job || !panel || panel.hidden) return;
  const page = await load(`/pages/jobs/${encodeURIComponent(job.dataset.job)}`);
  const next = page && find("#job", page);
  if (next && byId("job") === job) morph(job, next);
}

// ---- Updates from the server. ----

let source = null, retry = null, applied = Promise.resolve();

function say(state, text) {
  const live = byId("live");
  if (!live) return;
  live.hidden = false;
  live.dataset.state = state;
  if (live.textContent !== text) live.textContent = text;
}

function connect() {
  source?.close();
  clearTimeout(retry);
  const list = find("[data-stream]");
  if (!list || document.hidden) return;
  let url = list.dataset.stream;
  if (list.dataset.position) url = url.replace(/since=[^&]*/, `since=${list.dataset.position}`);
  const own = source = new EventSource(url);
  own.onopen = () => say("on", "Live");
  own.onmessage = (event) => {
    list.dataset.position = event.lastEventId;
    applied = applied.then(() => apply(list, JSON.parse(event.data)));
  };
  own.onerror = async () => {
    if (own.readyState !== EventSource.CLOSED) { say("off", "Reconnecting"); return; }
    say("off", "Not live");
    retry = setTimeout(connect, 2000);
    const response = await fetch("/pages/status").catch(() => null);
    if (response?.status === 401) say("off", "Logged out: load the page again");
    else if (response?.status === 503) say("off", "Too many pages are open");
  };
}

async function apply(list, update) {
  for (const html of update.parts) {
    const part = parse(html);
    if (byId(part.id)) morph(byId(part.id), part);
  }
  const kept = new Set();
  let count = 0;
  for (const html of update.rows) {
    const row = parse(html);
    kept.add(row.id);
    place(list, row);
    // Many rows are shown in pieces, so that the page can be used meanwhile.
    if (++count % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
    if (!list.isConnected) return;
  }
  for (const id of update.gone) byId(id)?.remove();
  if (update.is_all) for (const row of [...list.children]) if (!kept.has(row.id)) row.remove();
  while (list.children.length > Number(list.dataset.most)) list.lastElementChild.remove();
  const open = byId("job")?.dataset.job;
  const isNew = kept.has(`job-${open}`) || update.gone.includes(`job-${open}`);
  if (open && (update.is_all || isNew)) refreshPanel();
}

function place(list, row) {
  const old = byId(row.id);
  if (old) {
    if (!old.classList.contains(row.classList[1])) announce(row);
    if (old.classList.contains("is-shown")) row.classList.add("is-shown");
    morph(old, row);
    return;
  }
  let low = 0, high = list.children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list.children[middle].dataset.order < row.dataset.order) high = middle;
    else low = middle + 1;
  }
  list.insertBefore(row, list.children[low] || null);
}

function announce(row) {
  const state = find(".dot", row)?.textContent;
  const title = find(".title", row)?.textContent;
  if (title && state !== "running") byId("say").textContent = `${title}: ${state}`;
}

// ---- Links, forms and keys. ----

let filtered = 0;

async function filter(url) {
  const own = ++filtered;
  const page = await load(url);
  if (!page || own !== filtered) return;
  showParts(page, true);
  const empty = find(".empty", page);
  if (empty) morph(find(".empty"), empty);
  history.replaceState(null, "", page.address);
}

async function submit(form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  form.inert = true;
  const page = await load(form.getAttribute("action"), { method: "POST", body });
  form.inert = false;
  if (!page) return;
  showParts(page);
  find("[role=alert]", byId("main"))?.focus();
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const link = event.target.closest("a");
  if (!link) return;
  const action = "panel" in link.dataset && byId("panel") ? () => showJob(link)
    : "filter" in link.dataset ? () => { byId("rows") && filterBy(link); }
    : "close" in link.dataset && byId("panel") ? closePanel : null;
  if (!action) return;
  event.preventDefault();
  action();
});

function filterBy(link) {
  const form = find("[data-find]"), status = new URL(link.href).searchParams.get("status");
  if (!form) { filter(link.href); return; }
  find("[name=status]", form)?.remove();
  if (status) {
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name: "status", value: status });
    form.prepend(field);
  }
  if (!new URL(link.href).search) form.q.value = form.user.value = "";
  filter(link.href);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if ("find" in form.dataset) filter(`/?${new URLSearchParams(new FormData(form))}`);
  else if ("swap" in form.dataset) submit(form, event.submitter);
  else return;
  event.preventDefault();
});

let typing = null;
document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-find], [data-auto]");
  if ("submit" in event.target.dataset) event.target.form.requestSubmit();
  if (!form) return;
  clearTimeout(typing);
  typing = setTimeout(() => form.requestSubmit(), event.target.type === "search" ? 200 : 0);
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    if (isTyping && !event.target.closest(".panel")) event.target.blur();
    else closePanel();
  } else if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "/" && find("input[type=search]")) {
    event.preventDefault();
    find("input[type=search]").select();
  } else if (["ArrowDown", "ArrowUp", "j", "k"].includes(event.key) && byId("rows")) {
    const row = document.activeElement.closest("#rows > li");
    const isDown = event.key === "ArrowDown" || event.key === "j";
    if (!row && event.key.startsWith("Arrow") && event.target !== document.body) return;
    const next = row ? (isDown ? row.nextElementSibling : row.previousElementSibling) : byId("rows").firstElementChild;
    if (!next) return;
    event.preventDefault();
    find(".what, summary", next)?.focus();
    next.scrollIntoView({ block: "nearest" });
  }
});

document.addEventListener("visibilitychange", connect);
setInterval(tick, 1000);
tick();
connect();
