"use strict";
/* Text enters this page only as text nodes and attribute values; nothing is ever parsed as HTML. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 24; // samples drawn at a time
  const IMAGES_PER_BLOCK = /* IMAGES_PER_BLOCK */ 100;
  const TEXTS_PER_BLOCK = /* TEXTS_PER_BLOCK */ 200;
  const TASKS = /* TASK_TITLES */ {};
  const LEVEL = 0.05; // a smaller difference in reward counts as none
  const FILTERS = ["task", "source", "split", "kind", "truth", "flag", "outcome", "order", "text", "said"];
  const $ = (selector, inside = document) => inside.querySelector(selector);
  const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (tag, attributes, ...children) => {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value != null) node.setAttribute(name, value);
    node.append(...children.filter((child) => child != null));
    return node;
  };
  document.documentElement.classList.add("js");

  /* Tables: sorted by a click on a column's head, unfolded, downloaded */
  const number = (cell) => (cell?.dataset.value === undefined ? NaN : +cell.dataset.value);
  const sort = (table, column, head) => {
    const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of $$("thead th", table)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      const by = (a, b) => {
        const x = a.cells[column], y = b.cells[column], m = number(x), n = number(y);
        if (!isNaN(m) || !isNaN(n)) return isNaN(m) ? 1 : isNaN(n) ? -1 : down * (m - n);
        return -down * (x?.textContent || "").localeCompare(y?.textContent || "");
      };
      body.append(...rows.sort(by));
    }
  };
  // Each number in a cell of its own, as programs read it: an interval becomes two columns, other small print one
  const INTERVAL = /^([+-]?[\d.]+)(?:–| to )([+-]?[\d.]+)(?:, )?/;
  const csv = (table) => {
    const quoted = (text) => {
      if (/^[=+@\t\r-]/.test(text) && isNaN(+text)) text = `'${text}`; // a spreadsheet would run it
      return `"${text.replaceAll('"', '""')}"`;
    };
    const text = (cell) => cell.textContent.trim().replaceAll("−", "-").replace(/^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$/, (number) => number.replaceAll(",", ""));
    const parts = (cell) => {
      const small = $("small", cell), own = (small?.parentElement ?? cell).cloneNode(true);
      for (const node of $$("small, svg", own)) node.remove();
      const [found, low, high] = (small && INTERVAL.exec(text(small))) || ["", "", ""];
      return [text(own).replace(/^–$/, ""), low, high, small ? text(small).slice(found.length) : ""];
    };
    const rows = [...table.tBodies].flatMap((body) => {
      const group = $(".group th", body)?.textContent ?? "";
      return [...body.rows].filter((row) => !row.classList.contains("group")).map((row) => [group, [...row.cells].map(parts)]);
    });
    const heads = $$("thead th", table).map(parts);
    const used = heads.map((_, column) => [0, 1, 2, 3].filter((part) => !part || rows.some(([, cells]) => cells[column][part])));
    const names = heads.flatMap(([name, , , small], column) => {
      const label = small && !/interval/.test(small) ? `${name} (${small})` : name;
      return used[column].map((part) => [label, `${label} low`, `${label} high`, `${label} note`][part]);
    });
    const lines = [["", ...names], ...rows.map(([group, cells]) => [group, ...cells.flatMap((own, column) => used[column].map((part) => own[part]))])];
    return lines.map((line) => line.map(quoted).join(",")).join("\r\n");
  };
  const enliven = (inside) => {
    for (const tools of $$(".tools", inside)) {
      const table = $("table", tools.previousElementSibling), more = $(".more", tools);
      tools.hidden = false;
      const text = more?.textContent;
      more?.addEventListener("click", () => {
        const all = table.classList.toggle("all");
        more.setAttribute("aria-expanded", String(all));
        more.textContent = all ? "Show fewer rows" : text;
      });
      $(".csv", tools).addEventListener("click", () => {
        const address = URL.createObjectURL(new Blob(["\ufeff", csv(table)], { type: "text/csv" }));
        make("a", { href: address, download: `${table.caption.textContent.replace(/[^\w]+/g, "-").toLowerCase()}.csv` }).click();
        setTimeout(() => URL.revokeObjectURL(address), 1000);
      });
      $$("thead th", table).forEach((head, column) => {
        const button = make("button", { type: "button", class: "sort" });
        button.append(...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => sort(table, column, head));
      });
    }
  };
  enliven(document);

  /* The address: which models are compared, what the samples are filtered by */
  const params = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const remember = (changes) => {
    const next = params();
    for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
    next.delete("view");
    history.replaceState(null, "", `#${next}`);
  };

  /* Two models */
  const models = $("form.models");
  const chosen = () => (models ? [+models.elements.first.value, +models.elements.second.value] : [-1, 0]);
  const compare = () => {
    const [first, second] = chosen(), [a, b] = [first, second].sort((x, y) => x - y);
    const template = document.getElementById(`pair-${a}-${b}`), place = $(".comparison");
    place.replaceChildren(template ? template.content.cloneNode(true) : make("p", { class: "answer" }, a === b ? "Choose two different models." : "These two were not compared."));
    enliven(place);
  };
  models?.addEventListener("input", () => {
    remember({ pair: chosen().join("-") });
    compare();
    filter();
  });

  /* Curves: the numbers under the pointer */
  const digits = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(+value.toPrecision(3)));
  for (const figure of $$(".chart.live")) {
    const data = JSON.parse(figure.dataset.chart), plot = $("svg", figure), cursor = $(".cursor", plot);
    const shown = $$(".legend b", figure), last = shown.map((node) => node.textContent), step = $(".step", figure);
    plot.addEventListener("pointermove", (event) => {
      const frame = plot.getBoundingClientRect();
      const across = ((event.clientX - frame.left) / frame.width) * plot.viewBox.baseVal.width;
      const share = Math.min(1, Math.max(0, (across - data.left) / data.width));
      const x = data.x[0] + share * (data.x[1] - data.x[0]);
      const near = data.series.map((points) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
      const at = data.left + (data.x[1] > data.x[0] ? (near[0][0] - data.x[0]) / (data.x[1] - data.x[0]) : 0.5) * data.width;
      for (const end of ["x1", "x2"]) cursor.setAttribute(end, at);
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

  /* Samples: columns are read at once, texts and images when they are shown */
  const form = $(".filters"), list = $(".items"), more = $(".load"), count = $(".count"), dialog = $("dialog");
  let items = null, found = [], drawn = 0, current = null;
  const blocks = {};
  const block = (name, index, size) => {
    const key = `${name}-${Math.floor(index / size)}`;
    blocks[key] ??= JSON.parse(document.getElementById(`gallery-${key}`).textContent);
    return blocks[key][index % size];
  };
  const texts = (item) => block("texts", item.number, TEXTS_PER_BLOCK);
  const names = models ? [...models.elements.first.options].map((option) => option.text) : ["the model"];
  const plain = (text) => text.trim().toLowerCase().replace(/[^\w\s]/g, "").replace(/\s+/g, " ");
  const sides = (item) => chosen().map((model) => item.out[model]);
  const gain = (item) => {
    const [was, is] = sides(item);
    return was?.[1] == null || is?.[1] == null ? 0 : is[1] - was[1];
  };
  const outcome = (item) => {
    const [was, is] = sides(item).map((side) => side?.[0] ?? null);
    return was === null || is === null || was === is ? "" : is ? "fixed" : "broken";
  };
  const answers = (item) => chosen().map((model) => texts(item).out[model]?.[0]);
  const OUTCOMES = {
    fixed: [() => "wrong → right", (item) => outcome(item) === "fixed"],
    broken: [() => "right → wrong", (item) => outcome(item) === "broken"],
    right: [(a, b) => `right, ${b}`, (item) => sides(item)[1]?.[0] === true],
    wrong: [(a, b) => `wrong, ${b}`, (item) => sides(item)[1]?.[0] === false],
    "was-right": [(a) => `right, ${a}`, (item) => sides(item)[0]?.[0] === true],
    "was-wrong": [(a) => `wrong, ${a}`, (item) => sides(item)[0]?.[0] === false],
    rose: [() => "reward rose", (item) => gain(item) > LEVEL],
    fell: [() => "reward fell", (item) => gain(item) < -LEVEL],
    changed: [() => "answers differ", (item) => answers(item)[0] !== undefined && answers(item)[1] !== undefined && answers(item)[0] !== answers(item)[1]],
  };

  const drawShot = (item, text) => {
    if (item.image == null) return make("div", { class: "shot" }, make("p", {}, "The image could not be read."));
    const [width, height] = item.size;
    const frame = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Image of sample ${item.id}` });
    const address = form.dataset.images ? `${form.dataset.images}${item.image}.jpg` : `data:image/jpeg;base64,${block("images", item.image, IMAGES_PER_BLOCK)}`;
    frame.append(make("svg:image", { width, height, preserveAspectRatio: "none", href: address }));
    const [first, second] = chosen();
    const boxes = [["truth", text.boxes], ["before", text.out[first]?.[3]], ["after", text.out[second]?.[3]]];
    for (const [name, [x1, y1, x2, y2]] of boxes.flatMap(([name, own]) => (own || []).map((box) => [name, box]))) {
      const place = { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.max(Math.abs(x2 - x1), 0.5), height: Math.max(Math.abs(y2 - y1), 0.5) };
      frame.append(make("svg:rect", { class: name === "truth" ? "halo wide" : "halo", ...place }), make("svg:rect", { class: name, ...place }));
    }
    return make("button", { class: "shot", type: "button", "aria-label": `Look closer at sample ${item.id}` }, frame);
  };
  const pixels = (boxes) => boxes.map((box) => `[${box.map((v) => Math.round(v)).join(", ")}]`).join(", ");
  const drawAnswer = (title, tone, output, shown, whole) => {
    const part = make("div", { class: `answer-block ${tone}` });
    if (!output) {
      part.append(make("h4", {}, make("b", {}, title)), make("p", { class: "none" }, "no answer recorded"));
      return part;
    }
    const [right, reward, flags] = output, [answer, thought, raw, boxes] = shown;
    const verdict = right == null ? null : make("span", { class: right ? "right" : "wrong" }, right ? "✓ right" : "✗ wrong");
    const said = [reward == null ? "" : `reward ${reward.toFixed(2)}`, ...flags].filter(Boolean).join(" · ");
    part.append(make("h4", {}, make("b", {}, title), make("span", {}, verdict, verdict && said ? " · " : "", said)));
    part.append(answer ? make("p", { class: "answer-text" }, answer) : make("p", { class: "answer-text none" }, "no answer"));
    if (boxes.length) part.append(make("p", { class: "small" }, `in pixels ${pixels(boxes)}`));
    if (thought === null) part.append(make("p", { class: "none" }, "no complete answer block: the whole completion counts as the answer"));
    else part.append(thought ? make("p", { class: "thought" }, thought) : make("p", { class: "none" }, "no thought"));
    if (whole && raw) part.append(make("details", {}, make("summary", {}, "raw completion"), make("pre", {}, raw)));
    return part;
  };
  const drawText = (item, text) => {
    const kind = outcome(item), truth = text.boxes.length ? pixels(text.boxes) : text.answer;
    const chips = [TASKS[item.task] || item.task, item.source, item.split, item.kind].filter(Boolean).map((chip) => make("span", {}, chip));
    return make("div", {},
      make("p", { class: "chips" }, ...chips, kind ? make("span", { class: `out ${kind}` }, OUTCOMES[kind][0]()) : null),
      make("p", { class: "question" }, text.question),
      make("p", { class: "truth-line" }, make("span", {}, text.boxes.length ? "Truth, in pixels" : "Truth"), make("b", {}, truth)),
      text.boxes.length && text.answer !== truth ? make("p", { class: "small" }, `as it stands in the data: ${text.answer}`) : null);
  };
  const drawPair = (item, text, whole) => {
    const tones = ["before", "after"], parts = chosen().map((model, i) => (model < 0 ? null : drawAnswer(names[model], tones[i], item.out[model], text.out[model], whole)));
    return make("div", { class: "pair" }, ...parts);
  };
  const drawMore = () => {
    for (const item of found.slice(drawn, drawn + PAGE)) {
      const text = texts(item), card = make("article", { class: "item" }, drawShot(item, text), drawText(item, text), drawPair(item, text, false));
      $("button.shot", card)?.addEventListener("click", () => open(item));
      list.append(card);
    }
    drawn = Math.min(found.length, drawn + PAGE);
    more.hidden = drawn >= found.length;
    const of = found.length === items.length ? "" : ` (of ${items.length.toLocaleString("en")})`;
    count.textContent = found.length ? `Showing ${drawn.toLocaleString("en")} of ${found.length.toLocaleString("en")}${of}` : `No sample matches these filters${of}`;
  };
  const filter = () => {
    if (!items) return;
    const shown = chosen().map((model) => names[model]);
    $(".name-first").textContent = shown[0] || "";
    $(".name-second").textContent = shown[1] || "";
    const select = form.elements.outcome, kept = select.value;
    select.replaceChildren(make("option", { value: "" }, "all"));
    for (const [value, [title]] of Object.entries(OUTCOMES)) if (chosen()[0] >= 0 || ["right", "wrong"].includes(value)) select.append(make("option", { value }, title(...shown)));
    select.value = kept;
    const by = Object.fromEntries(FILTERS.map((name) => [name, form.elements[name]?.value || ""]));
    $(".said").hidden = !by.said;
    const text = by.text.trim().toLowerCase();
    const classes = new Set(by.said ? items.map((item) => plain(item.truth)) : []);
    const said = (item) => {
      const answer = plain(answers(item)[1] || "");
      return by.said === "(other)" ? !classes.has(answer) : answer === plain(by.said);
    };
    const same = (item, name) => !by[name] || item[name] === by[name] || (name === "truth" && plain(item.truth) === plain(by.truth));
    found = items.filter((item) =>
      ["task", "source", "split", "kind", "truth"].every((name) => same(item, name)) &&
      (!by.flag || sides(item).some((side) => side?.[2].includes(by.flag))) &&
      (!by.outcome || OUTCOMES[by.outcome][1](item)) &&
      (!by.said || said(item)) &&
      (!text || JSON.stringify([item.id, texts(item)]).toLowerCase().includes(JSON.stringify(text).slice(1, -1))));
    if (by.order) found = [...found].sort((a, b) => (by.order === "gain" ? gain(b) - gain(a) : gain(a) - gain(b)));
    list.replaceChildren();
    drawn = 0;
    drawMore();
  };
  const start = () => {
    if (items || !form) return;
    items = JSON.parse(document.getElementById("gallery-index").textContent);
    items.forEach((item, number) => (item.number = number));
    let waiting = 0;
    form.addEventListener("input", (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        remember(Object.fromEntries(FILTERS.map((name) => [name, form.elements[name]?.value || ""])));
        filter();
      }, event.target.name === "text" ? 160 : 0);
    });
    form.addEventListener("reset", () => setTimeout(() => form.dispatchEvent(new Event("input"))));
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", drawMore);
  };

  /* One sample, large */
  const open = (item) => {
    current = item;
    const index = found.indexOf(item), text = texts(item);
    const move = (by, label) => {
      const target = index < 0 ? undefined : found[index + by];
      const button = make("button", { type: "button", disabled: target ? null : "" }, label);
      if (target) button.addEventListener("click", () => open(target));
      return button;
    };
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const bar = make("div", { class: "bar" }, make("span", {}, item.id), move(-1, "Previous"), move(1, "Next"), close);
    dialog.replaceChildren(bar, make("div", { class: "body" }, drawShot(item, text), make("div", {}, drawText(item, text), drawPair(item, text, true))));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    remember({ sample: item.id });
  };
  dialog.addEventListener("close", () => remember({ sample: "" }));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], target = by && found[found.indexOf(current) + by];
    if (target) open(target);
  });

  /* Follow the address, now and when it changes */
  const follow = () => {
    const given = params(), ids = location.hash.slice(1);
    const section = given.size ? (given.get("view") || given.get("sample") ? "gallery" : "") : ids;
    const [first, second] = (given.get("pair") || "").split("-").map(Number);
    const known = (value) => Number.isInteger(value) && value >= 0 && value < names.length;
    const pair = chosen().join();
    if (models && known(first) && known(second)) [models.elements.first.value, models.elements.second.value] = [first, second];
    if (models && known(Number(given.get("model") ?? NaN))) {
      const model = given.get("model");
      if (models.elements.first.value === model) models.elements.first.value = models.elements.second.value;
      models.elements.second.value = model;
    }
    if (chosen().join() !== pair) compare();
    const target = section && document.getElementById(section);
    for (let around = target; around; around = around.parentElement) if (around.tagName === "DETAILS") around.open = true;
    if (form && given.size) {
      start();
      filter();
      for (const name of FILTERS) {
        const field = form.elements[name], value = given.get(name) || "";
        if (!field) continue;
        const option = field.options && [...field.options].find((one) => one.value === value || plain(one.value) === plain(value));
        field.value = field.options ? option?.value ?? "" : value;
      }
      filter();
      const item = given.get("sample") && items.find((one) => one.id === given.get("sample"));
      if (item) open(item);
    }
    if (given.get("view")) remember({});
    target?.scrollIntoView();
  };
  $("#gallery")?.addEventListener("toggle", () => {
    if (!form || items || !$("#gallery").open) return;
    start();
    filter();
  });
  addEventListener("hashchange", follow);
  // texts and images stand behind this script: what is in the address waits for them
  if (location.hash) document.readyState === "loading" ? addEventListener("DOMContentLoaded", follow, { once: true }) : follow();
})();
