"use strict";
// Texts of the data set reach the page through textContent only: they are never read as markup.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = String(text);
    return element;
  }

  // Text of the data set: its direction is its own and does not leak out.
  function quoted(tag, className, text) {
    const element = make(tag, className, text);
    element.dir = "auto";
    return element;
  }

  // --- theme -----------------------------------------------------------------------------------------------------
  const themes = [["", "Theme: as the system"], ["light", "Theme: light"], ["dark", "Theme: dark"]];
  const themeButton = byId("theme");
  let theme = 0;
  themeButton.hidden = false;
  themeButton.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    if (themes[theme][0]) document.documentElement.dataset.theme = themes[theme][0];
    else delete document.documentElement.dataset.theme;
    themeButton.textContent = themes[theme][1];
  });

  // --- sorting ---------------------------------------------------------------------------------------------------
  function sortKey(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    if (cell.classList.contains("none")) return null;
    const number = Number(cell.textContent.replace(/,/g, ""));
    return cell.textContent.trim() !== "" && Number.isFinite(number) ? number : cell.textContent;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sortBy(table, header, column) {
    const numeric = header.classList.contains("number");
    const now = header.getAttribute("aria-sort");
    const next = now === "descending" ? "ascending" : now === "ascending" ? "descending"
      : numeric ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const keyed = Array.from(body.rows, (row) => [sortKey(row, column), row]);
    keyed.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
    body.append(...keyed.map((pair) => pair[1]));  // rows without a value stay last either way
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => sortBy(table, header, column));
    });
  }

  // --- examples --------------------------------------------------------------------------------------------------
  const rowSelect = byId("row"), metricSelect = byId("metric"), filter = byId("filter");
  const search = byId("search"), beside = byId("beside"), list = byId("list"), detail = byId("detail");
  const baseOf = (row) => data.bases[row];
  const isBase = (row) => data.bases.includes(row);
  let current = -1;
  if (!data.questions.length) return;

  function option(select, value, label) {
    const element = make("option", "", label);
    element.value = value;
    select.append(element);
  }

  data.names.forEach((name, index) => option(rowSelect, index, isBase(index) ? name + " (baseline)" : name));
  data.quality.forEach(([metric, label]) => option(metricSelect, metric, label));
  const given = data.given.findIndex((is) => is);
  rowSelect.value = String(Math.max(0, given));
  if (data.main) metricSelect.value = data.main;
  if (data.bases.every((base) => base === null)) {
    filter.closest("label").hidden = true;
    beside.closest("label").hidden = true;
  }

  const scales = new Map(data.quality.map(([metric, , scale]) => [metric, scale]));
  const points = (metric, value) => (value === undefined || value === null ? "–" : (scales.get(metric) * value).toFixed(1));
  function score(question, row, metric) {
    const line = row === null ? null : question.rows[row];
    const value = line ? line.m[metric] : undefined;
    return value === undefined ? null : value;
  }

  // What a search looks through; made once a question and pipeline.
  const haystacks = new Map();
  function haystack(question, row) {
    const key = question.id + "\u0000" + row;
    if (!haystacks.has(key)) {
      const line = question.rows[row];
      const parts = [question.id, question.q, ...question.refs];
      for (const passage of question.passages) parts.push(passage.title, passage.text);
      const base = baseOf(row);
      for (const shown of [line, base === null ? null : question.rows[base]]) {
        if (shown) parts.push(shown.a || "", shown.x || "");
      }
      haystacks.set(key, parts.join("\n").toLowerCase());
    }
    return haystacks.get(key);
  }

  function wanted(question, row, metric, needle) {
    const own = score(question, row, metric), other = score(question, baseOf(row), metric);
    const known = own !== null && other !== null;
    if (filter.value === "hurt" && !(known && own < other)) return false;
    if (filter.value === "helped" && !(known && own > other)) return false;
    if (filter.value === "wrong" && !(known && own < 0.5 && other < 0.5)) return false;
    return !needle || haystack(question, row).includes(needle);
  }

  function badge(question, row, metric) {
    const own = score(question, row, metric), other = score(question, baseOf(row), metric);
    if (own === null) return make("span", "badge", "–");
    if (other === null || row === baseOf(row)) return make("span", "badge", points(metric, own));
    const difference = own - other;
    const kind = difference < 0 ? "worse" : difference > 0 ? "better" : "";
    const sign = difference > 0 ? "▲ +" : difference < 0 ? "▼ −" : "= ";
    return make("span", "badge " + kind, sign + (scales.get(metric) * Math.abs(difference)).toFixed(0));
  }

  function refresh() {
    const row = Number(rowSelect.value), metric = metricSelect.value;
    const needle = search.value.trim().toLowerCase();
    const shown = [];
    data.questions.forEach((question, index) => {
      if (wanted(question, row, metric, needle)) shown.push(index);
    });
    list.replaceChildren(...shown.map((index) => {
      const question = data.questions[index];
      const item = make("li");
      const button = make("button", "pick");
      button.type = "button";
      button.dataset.index = index;
      button.append(quoted("span", "ask", question.q), badge(question, row, metric));
      item.append(button);
      return item;
    }));
    byId("count").textContent = shown.length === 1 ? "1 question" : shown.length + " questions";
    if (!shown.includes(current)) current = shown.length ? shown[0] : -1;
    show(current);
  }

  function show(index) {
    current = index;
    for (const button of list.querySelectorAll("button")) {
      const on = Number(button.dataset.index) === index;
      if (on) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    if (index < 0) {
      detail.replaceChildren(make("p", "muted", "No question fits. Choose another filter or search."));
      return;
    }
    const question = data.questions[index];
    const row = Number(rowSelect.value);
    const base = baseOf(row);
    const pair = make("div", "pair");
    pair.append(panel(question, row, true));
    if (base !== null && base !== row) pair.append(panel(question, base, beside.checked));
    detail.replaceChildren(ask(question), pair);
  }

  function ask(question) {
    const head = make("div", "question");
    head.append(make("p", "muted", question.id), quoted("h3", "", question.q));
    const answers = make("p", "refs");
    answers.append(make("span", "muted", question.refs.length > 1 ? "references: " : "reference: "));
    question.refs.forEach((reference, index) => {
      if (index) answers.append(" · ");
      answers.append(quoted("bdi", "ref", reference === "" ? "(no answer in the passages)" : reference));
    });
    if (!question.refs.length) answers.append("none");
    head.append(answers);
    return head;
  }

  function panel(question, row, passages) {
    const line = question.rows[row];
    const box = make("div", "panel");
    box.append(make("h4", "", data.names[row] + (isBase(row) ? " (baseline)" : "")));
    if (!line) {
      box.append(make("p", "muted", "No record of this question."));
      return box;
    }
    if (line.e) box.append(quoted("p", "failed", "failed: " + line.e));
    box.append(quoted("p", "answer", line.a === null ? "(nothing was generated)" : line.a === "" ? "(empty)" : line.a));
    box.append(numbers(question, row, line));
    if (line.s.length) box.append(steps(line));
    if (passages) box.append(contextOf(question, line));
    return box;
  }

  function numbers(question, row, line) {
    const values = make("dl", "scores");
    const add = (label, value, className) => {
      const pair = make("div", className);
      pair.append(make("dt", "", label), make("dd", "", value));
      values.append(pair);
    };
    for (const [metric, label] of data.quality) {
      add(label, points(metric, line.m[metric]), metric === metricSelect.value ? "chosen" : "");
    }
    for (const label of Object.keys(line.c)) add(label, line.c[label], "");
    return values;
  }

  function steps(line) {
    const table = make("table", "steps");
    const head = table.createTHead().insertRow();
    for (const label of ["step", "status", "tokens", "time"]) {
      const cell = make("th", label === "tokens" || label === "time" ? "" : "name", label);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const [name, status, before, after, seconds, remark] of line.s) {
      const row = body.insertRow();
      const title = make("th", "", name);
      title.scope = "row";
      const state = make("td", "name " + (status === "ok" ? "" : "odd"), status);
      if (remark) state.append(quoted("span", "sub", remark));
      row.append(title, state, make("td", "", before + " → " + after), make("td", "", seconds));
    }
    const scroll = make("div", "scroll");
    scroll.append(table);
    return scroll;
  }

  function contextOf(question, line) {
    const box = make("div", "passages");
    if (line.x !== undefined) {
      box.append(make("h5", "", "Context, as the compressor wrote it"), quoted("div", "text written", line.x));
    }
    if (line.soft) box.append(make("p", "remark", line.soft + " soft tokens stand for the bright text."));
    if (!line.p.length) box.append(make("p", "muted", "No passages."));
    else box.append(make("h5", "", line.x === undefined ? "Passages" : "Passages, what it read is bright"));
    for (const index of line.p) box.append(passageOf(question.passages[index], line.k[index] || [], line.kn[index] || 0));
    return box;
  }

  function passageOf(passage, kept, count) {
    const box = make("div", "passage");
    const head = make("p", "source");
    head.append(quoted("bdi", "title", passage.title || passage.id));
    const share = passage.n ? Math.round((100 * count) / passage.n) : 0;
    const amount = count === 0 ? "dropped" : count >= passage.n ? "kept" : "kept " + (share || "< 1") + " %";
    head.append(make("span", "share " + (count ? "" : "gone"), amount));
    box.append(head, marked(passage, kept));
    return box;
  }

  // The text cut wherever something begins or ends.
  function marked(passage, kept) {
    const text = passage.text;
    const box = quoted("div", "text");
    const cuts = new Set([0, text.length]);
    for (const [start, end] of [...kept, ...passage.rel]) cuts.add(start).add(end);
    const gaps = new Map(passage.gaps);
    for (const place of gaps.keys()) cuts.add(place);
    const places = [...cuts].filter((place) => place <= text.length).sort((a, b) => a - b);
    const within = (spans, start) => spans.some((span) => span[0] <= start && start < span[1]);
    places.forEach((start, index) => {
      if (gaps.has(start)) {
        box.append(make("span", "gap", " … " + gaps.get(start).toLocaleString("en") + " characters not shown … "));
      }
      if (index + 1 >= places.length) return;
      const bright = within(kept, start);
      const element = make(bright ? "mark" : "span", bright ? "kept" : "dropped", text.slice(start, places[index + 1]));
      if (within(passage.rel, start)) {
        element.classList.add("relevant");
        element.title = "marked as relevant";
      }
      box.append(element);
    });
    return box;
  }

  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    show(Number(button.dataset.index));
    if (window.matchMedia("(max-width: 760px)").matches) detail.scrollIntoView({ block: "start" });
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = Array.from(list.querySelectorAll("button"));
    const next = buttons[buttons.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    next.focus();
    show(Number(next.dataset.index));
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const control of [rowSelect, metricSelect, filter]) control.addEventListener("change", refresh);
  beside.addEventListener("change", () => show(current));
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 120);
  });
  byId("browser").hidden = false;
  refresh();
})();
