// The browser of rollouts. All text comes from models and data: it is only ever set as text, never read as HTML.
"use strict";
(() => {
  const PAGE = 10;
  const LINE = 80;
  const SHORT = 400;
  const NAMES = {
    policy: "Answers", pointwise: "Judge: is this response right?", pairwise: "Judge: which of two is right?",
    reflection: "Reflection: judge it, and solve again if it is wrong",
  };
  const MARKS = { correct: "✓", wrong: "✗" };
  const place = document.getElementById("browser");
  const families = JSON.parse(document.getElementById("rollouts").textContent).families;
  const inputs = Object.fromEntries(["task", "status", "step", "search"].map((k) => [k, place.querySelector(`[name=${k}]`)]));
  const list = place.querySelector(".families");
  const count = place.querySelector(".count");
  const [back, next] = place.querySelectorAll(".pager button");
  let page = 0;
  let found = families;

  function make(tag, kind, text, ...children) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== null && text !== undefined && text !== "") node.textContent = String(text);
    node.append(...children.filter(Boolean));
    return node;
  }

  const tone = (status) => (status === "correct" ? "good" : status === "wrong" ? "bad" : "neutral");
  const words = (status) => String(status).replaceAll("_", " ");

  function marks(record) {
    const node = make("span", "marks");
    record.responses.forEach((one) => node.append(make("span", tone(one.status), MARKS[one.status] || "○")));
    const right = record.responses.filter((one) => one.status === "correct").length;
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", `${right} of ${record.responses.length} right`);
    return node;
  }

  function response(one, number) {
    const head = [
      make("span", `badge ${tone(one.status)}`, words(one.status)), make("span", "hint", `${number}`),
      make("span", null, one.extracted === null ? "no box" : "boxed ", one.extracted === null ? null : make("code", null, one.extracted)),
      one.reward === 0 || one.reward === 1 || one.reward === null ? null : make("span", "hint", `reward ${one.reward}`),
      one.tokens === null ? null : make("span", "hint", `${one.tokens} tokens`),
    ];
    if (one.text.length <= LINE && !one.text.includes("\n")) return make("div", "response line-up", null, ...head, make("code", "said", one.text));
    if (one.text.length <= SHORT) return make("div", "response", null, make("div", "line-up", null, ...head), make("pre", null, one.text));
    return make("details", "response", null, make("summary", "line-up", null, ...head, make("span", "hint", `${one.text.slice(0, 80)} …`)), make("pre", null, one.text));
  }

  function pictures(record) {
    const node = make("div", "pictures");
    record.images.forEach((source, index) => {
      if (!source.startsWith("data:image/png;base64,")) return;
      const image = make("img");
      image.src = source;
      image.alt = `image ${index + 1} of ${record.images.length} of ${record.problem}`;
      node.append(image);
    });
    return node.childElementCount ? node : null;
  }

  function asked(record) {
    return make("div", null, null, pictures(record), make("pre", null, record.prompt),
      make("p", "note", null, "label ", make("code", null, record.label), ` · step ${record.step} · ${record.problem}`));
  }

  function child(record, matched) {
    const about = record.about.length ? `about answer ${record.about.join(" and ")}` : "";
    const right = record.responses.filter((one) => one.status === "correct").length;
    const summary = make("summary", "line-up", null, marks(record), make("span", null, "label ", make("code", null, record.label)),
      make("span", null, about), make("span", "hint", `${right} of ${record.responses.length} right · step ${record.step}`));
    const node = make("details", "child", null, summary);
    filled(node, () => [asked(record), ...record.responses.map((one, index) => response(one, index + 1))]);
    if (matched) node.classList.add("found");
    return node;
  }

  function filled(node, content) {
    node.addEventListener("toggle", () => {
      if (node.open && !node.dataset.filled) {
        node.dataset.filled = "yes";
        node.append(...content().filter(Boolean));
      }
    });
  }

  function family(one) {
    const root = one.records.find((record) => record.task === "policy");
    const shown = root || one.records[0];
    const made = ["pointwise", "pairwise", "reflection"].map((task) => {
      const some = one.records.filter((record) => record.task === task);
      return some.length ? `${some.length} ${task}` : "";
    }).filter(Boolean).join(", ");
    const title = root ? root.prompt : one.problem;
    const summary = make("summary", "line-up", null, make("code", "title", title.length > 90 ? `${title.slice(0, 90)} …` : title),
      root ? marks(root) : null, make("span", "hint", `step ${one.step}${made ? ` · ${made}` : ""}`));
    const node = make("details", "family", null, summary);
    filled(node, () => {
      const parts = [];
      if (root) parts.push(make("h4", null, "Problem"), asked(root), make("h4", null, `${NAMES.policy}: the ${root.more ? `first ${root.responses.length} of a group of ${root.responses.length + root.more}` : `whole group of ${root.responses.length}`}`), ...root.responses.map((r, i) => response(r, i + 1)));
      else parts.push(make("p", "note", "The group that these were made from was not kept."));
      const others = one.records.filter((record) => record.task !== "policy");
      [...new Set(others.map((record) => record.task))].forEach((task) => {
        parts.push(make("h4", null, NAMES[task] || task));
        others.filter((record) => record.task === task).forEach((record) => parts.push(child(record, one.hits.has(record) && isFiltered())));
      });
      return parts;
    });
    return node;
  }

  const isFiltered = () => Boolean(inputs.task.value || inputs.status.value || inputs.search.value.trim());

  function texts(record) {
    return [record.prompt, record.label, record.problem, ...record.responses.map((one) => one.text)].join("\n").toLowerCase();
  }

  function filter() {
    const task = inputs.task.value, status = inputs.status.value, step = inputs.step.value;
    const wanted = inputs.search.value.trim().toLowerCase();
    found = families.filter((one) => {
      if (step && one.stage !== step && String(one.step) !== step) return false;
      one.hits = new Set(one.records.filter((record) => (!task || record.task === task)
        && (!status || record.responses.some((r) => r.status === status))
        && (!wanted || texts(record).includes(wanted))));
      return one.hits.size > 0;
    });
    page = 0;
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(family));
    count.textContent = `${found.length} of ${families.length} problems${pages > 1 ? `, page ${page + 1} of ${pages}` : ""}`;
    back.disabled = page === 0;
    next.disabled = page >= pages - 1;
  }

  Object.values(inputs).forEach((input) => input.addEventListener("input", filter));
  back.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  place.hidden = false;
  filter();
  if (list.firstElementChild && window.innerWidth > 700) list.firstElementChild.open = true;
})();
