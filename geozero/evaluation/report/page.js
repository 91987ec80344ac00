"use strict";
/* Text enters this page only as text nodes and attribute values; nothing is ever parsed as HTML. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 24; // gallery items drawn at a time
  const PER_BLOCK = /* IMAGES_PER_BLOCK */ 100;
  const TASKS = /* TASK_TITLES */ {};
  const OUTCOMES = { fixed: "wrong → right", broken: "right → wrong", rose: "reward rose", fell: "reward fell" };
  const LEVEL = 0.05; // a smaller difference in reward counts as none

  const make = (tag, attributes, ...children) => {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value != null) node.setAttribute(name, value);
    node.append(...children.filter((child) => child != null));
    return node;
  };

  /* Tables: the parts of a score fold away */
  for (const button of document.querySelectorAll("button.more")) {
    const rows = document.getElementById(button.dataset.rows);
    button.hidden = false;
    rows.hidden = true;
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", rows.id);
    button.addEventListener("click", () => {
      rows.hidden = !rows.hidden;
      button.setAttribute("aria-expanded", String(!rows.hidden));
    });
  }

  /* Curves: the numbers under the pointer */
  const digits = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(+value.toPrecision(3)));
  for (const figure of document.querySelectorAll(".chart.live")) {
    const data = JSON.parse(figure.dataset.chart);
    const plot = figure.querySelector("svg");
    const cursor = plot.querySelector(".cursor");
    const shown = [...figure.querySelectorAll(".legend b")];
    const last = shown.map((node) => node.textContent);
    const step = figure.querySelector(".step");
    plot.addEventListener("pointermove", (event) => {
      const frame = plot.getBoundingClientRect();
      const across = ((event.clientX - frame.left) / frame.width) * plot.viewBox.baseVal.width;
      const share = Math.min(1, Math.max(0, (across - data.left) / data.width));
      const x = data.x[0] + share * (data.x[1] - data.x[0]);
      const near = data.series.map((points) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
      const at = data.left + (data.x[1] > data.x[0] ? (near[0][0] - data.x[0]) / (data.x[1] - data.x[0]) : 0.5) * data.width;
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.classList.add("on");
      step.textContent = `step ${near[0][0]}`;
      near.forEach((point, i) => (shown[i].textContent = digits(point[1])));
    });
    plot.addEventListener("pointerleave", () => {
      cursor.classList.remove("on");
      step.textContent = "";
      shown.forEach((node, i) => (node.textContent = last[i]));
    });
  }

  /* Gallery */
  const holder = document.getElementById("gallery-items");
  if (!holder) return;
  const items = JSON.parse(holder.textContent);
  const blocks = [];
  const showImage = (node, index) => {
    const block = Math.floor(index / PER_BLOCK);
    if (block > 0 && document.readyState === "loading") {
      // only the first block stands before this script; the others are still being read
      document.addEventListener("DOMContentLoaded", () => showImage(node, index), { once: true });
      return;
    }
    blocks[block] ??= JSON.parse(document.getElementById(`gallery-images-${block}`).textContent);
    node.setAttribute("href", `data:image/jpeg;base64,${blocks[block][index % PER_BLOCK]}`);
  };
  const gain = (item) => (item.after?.reward == null || item.before?.reward == null ? 0 : item.after.reward - item.before.reward);
  const outcome = (item) => {
    const was = item.before?.right, is = item.after?.right;
    if (was != null && is != null && was !== is) return is ? "fixed" : "broken";
    return gain(item) > LEVEL ? "rose" : gain(item) < -LEVEL ? "fell" : "";
  };
  const matches = {
    right: (item) => item.after?.right === true,
    wrong: (item) => item.after?.right === false,
    "was-right": (item) => item.before?.right === true,
    "was-wrong": (item) => item.before?.right === false,
    fixed: (item) => outcome(item) === "fixed",
    broken: (item) => outcome(item) === "broken",
    rose: (item) => gain(item) > LEVEL,
    fell: (item) => gain(item) < -LEVEL,
    changed: (item) => item.before != null && item.after != null && item.before.answer !== item.after.answer,
  };

  const drawShot = (item) => {
    if (item.image == null) return make("div", { class: "shot" }, make("p", {}, "The image could not be read."));
    const frame = make("svg:svg", { viewBox: `0 0 ${item.width} ${item.height}`, role: "img", "aria-label": `Image of sample ${item.id}` });
    const pixels = make("svg:image", { width: item.width, height: item.height, preserveAspectRatio: "none" });
    showImage(pixels, item.image);
    frame.append(pixels);
    const named = [["truth", item], ["before", item.before], ["after", item.after]];
    for (const [name, [x1, y1, x2, y2]] of named.flatMap(([name, part]) => (part?.boxes || []).map((box) => [name, box]))) {
      const place = { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.max(Math.abs(x2 - x1), 0.5), height: Math.max(Math.abs(y2 - y1), 0.5) };
      frame.append(make("svg:rect", { class: name === "truth" ? "halo wide" : "halo", ...place }), make("svg:rect", { class: name, ...place }));
    }
    return make("button", { class: "shot", type: "button", "aria-label": "Look closer" }, frame);
  };

  const drawAnswer = (title, tone, output, whole) => {
    const block = make("div", { class: `answer-block ${tone}` });
    if (!output) {
      block.append(make("h5", {}, make("b", {}, title)), make("p", { class: "none" }, "no answer recorded"));
      return block;
    }
    const verdict = output.right == null ? null : make("span", { class: output.right ? "right" : "wrong" }, output.right ? "✓ right" : "✗ wrong");
    const reward = output.reward == null ? "" : `reward ${output.reward.toFixed(2)}`;
    block.append(make("h5", {}, make("b", {}, title), make("span", {}, verdict, verdict && reward ? " · " : "", reward)));
    block.append(output.answer ? make("p", { class: "answer-text" }, output.answer) : make("p", { class: "answer-text none" }, "no answer"));
    const pixels = output.boxes.map((box) => `[${box.map((v) => Math.round(v)).join(", ")}]`);
    if (pixels.length) block.append(make("p", { class: "small" }, `in pixels ${pixels.join(", ")}`));
    const same = output.thought && !output.raw && output.answer.startsWith(output.thought); // the completion is its own answer
    if (same) block.append(make("p", { class: "none" }, "no complete answer block: the whole completion counts as the answer"));
    else block.append(output.thought ? make("p", { class: "thought" }, output.thought) : make("p", { class: "none" }, "no thought"));
    if (whole && output.raw) block.append(make("details", {}, make("summary", {}, "raw completion"), make("pre", {}, output.raw)));
    return block;
  };

  const drawText = (item) => {
    const kind = outcome(item);
    return make("div", {},
      make("p", { class: "chips" }, make("span", {}, TASKS[item.task] || item.task), make("span", {}, item.source), make("span", {}, item.split),
        kind ? make("span", { class: `out ${kind}` }, OUTCOMES[kind]) : null),
      make("p", { class: "question" }, item.question),
      make("p", { class: "truth-line" }, make("span", {}, item.boxes.length ? "Truth, in pixels" : "Truth"), make("b", {}, item.answer)));
  };
  const drawPair = (item, whole) => make("div", { class: "pair" },
    form.dataset.before ? drawAnswer(item.before?.who || form.dataset.before, "before", item.before, whole) : "",
    drawAnswer(item.after?.who || form.dataset.after, "after", item.after, whole));

  const form = document.querySelector(".filters");
  const list = document.querySelector(".items");
  const more = document.querySelector(".load");
  const count = document.querySelector(".count");
  let found = items, drawn = 0;

  const drawMore = () => {
    for (const item of found.slice(drawn, drawn + PAGE)) {
      const card = make("article", { class: "item" }, drawShot(item), drawText(item), drawPair(item, false));
      card.querySelector("button.shot")?.addEventListener("click", () => open(item));
      list.append(card);
    }
    drawn = Math.min(found.length, drawn + PAGE);
    more.hidden = drawn >= found.length;
    const of = found.length === items.length ? "" : ` (of ${items.length.toLocaleString("en")})`;
    count.textContent = found.length ? `Showing ${drawn.toLocaleString("en")} of ${found.length.toLocaleString("en")}${of}` : `No sample matches these filters${of}`;
  };
  const filter = () => {
    const chosen = Object.fromEntries(new FormData(form));
    const text = chosen.text.trim().toLowerCase();
    const texts = (item) => [item.id, item.question, item.answer, item.before?.answer, item.before?.thought, item.after?.answer, item.after?.thought];
    found = items.filter((item) =>
      ["task", "source", "split"].every((key) => !chosen[key] || item[key] === chosen[key]) &&
      (!chosen.outcome || matches[chosen.outcome](item)) &&
      (!text || texts(item).some((part) => part && part.toLowerCase().includes(text))));
    if (chosen.order) found = [...found].sort((a, b) => (chosen.order === "gain" ? gain(b) - gain(a) : gain(a) - gain(b)));
    list.replaceChildren();
    drawn = 0;
    drawMore();
  };
  let waiting = 0;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, event.target.name === "text" ? 160 : 0);
  });
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", drawMore);

  /* One sample, large; the address remembers it */
  const dialog = document.querySelector("dialog");
  let current = null;
  const open = (item) => {
    current = item;
    const index = found.indexOf(item);
    const move = (by, label) => {
      const target = index < 0 ? undefined : found[index + by];
      const button = make("button", { type: "button", disabled: target ? null : "" }, label);
      if (target) button.addEventListener("click", () => open(target));
      return button;
    };
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const bar = make("div", { class: "bar" }, make("span", {}, item.id), move(-1, "Previous"), move(1, "Next"), close);
    const right = make("div", {}, drawText(item), drawPair(item, true));
    dialog.replaceChildren(bar, make("div", { class: "body" }, drawShot(item), right));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    history.replaceState(null, "", `#sample=${encodeURIComponent(item.id)}`);
  };
  dialog.addEventListener("close", () => history.replaceState(null, "", "#gallery"));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const target = by && found[found.indexOf(current) + by];
    if (target) open(target);
  });

  drawMore();
  const linked = location.hash.match(/^#sample=(.+)$/);
  const target = linked && items.find((item) => encodeURIComponent(item.id) === linked[1]);
  if (target) open(target);
})();
