"use strict";
// Tables sort by a click on a column's head and filter by text; figures can be saved; films have a slider. The page
// is whole without.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const number = (text) => {
    const found = text.replace(/\u2212/g, "-").match(/[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
    return found ? parseFloat(found[0]) : NaN;
  };
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const filled = rows.filter((row) => texts.get(row) !== "–");
    const numeric = filled.length > 0 && filled.every((row) => !Number.isNaN(number(texts.get(row))));
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const empty = (row) => (texts.get(row) === "–" ? 1 : 0);
      const compare = (a, b) => numeric
        ? number(texts.get(a)) - number(texts.get(b))
        : texts.get(a).localeCompare(texts.get(b), "en", { numeric: true });
      const sorted = rows.slice().sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : (down ? -1 : 1) * compare(a, b)));
      for (const row of sorted) row.classList.remove("rule");
      body.append(...sorted);
    });
  });
  if (rows.length < 4) continue;
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "such as relu";
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  label.append("Filter rows ", input);
  const bar = document.createElement("p");
  bar.className = "tools";
  bar.append(label, " ", count);
  table.parentElement.before(bar);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    count.textContent = words.length ? shown + " of " + rows.length : "";
  });
}
for (const figure of document.querySelectorAll("figure[id]")) {
  const link = document.createElement("a");
  link.href = figure.querySelector("img").src;
  link.download = figure.id + ".svg";
  link.textContent = "Save this figure (SVG)";
  const line = document.createElement("p");
  line.className = "tools";
  line.append(link);
  figure.append(line);
}
for (const film of document.querySelectorAll(".film")) {
  const frames = Array.from(film.querySelectorAll(".frame"));
  if (frames.length < 2) continue;
  const names = frames.map((frame) => frame.querySelector("p").textContent.trim());
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = "0";
  slider.max = String(frames.length - 1);
  slider.step = "1";
  slider.value = "0";
  const label = document.createElement("label");
  label.append("smooth ", slider, " sharp");
  slider.setAttribute("aria-label", film.querySelector("h3").textContent.trim() + ": width σ of the smoothing");
  const now = document.createElement("output");
  const play = document.createElement("button");
  play.type = "button";
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const show = (place) => {
    slider.value = String(place);
    slider.setAttribute("aria-valuetext", names[place]);
    now.textContent = names[place];
    frames.forEach((frame, other) => frame.classList.toggle("now", other === place));
  };
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === frames.length - 1) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      show(next);
      if (next === frames.length - 1) stop();
    }, 900);
  });
  const bar = document.createElement("div");
  bar.className = "tools dial";
  bar.append(play, label, now);
  film.querySelector(".frames").before(bar);
  film.classList.add("live");
  stop();
  show(0);
}
