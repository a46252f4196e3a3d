"use strict";
/* History: points over nights, each in a panel, one alone with its steps, or all together as one line. */
(function () {
  const { h, replace, select, checkbox, counted } = shardbench.dom;
  const PANELS = 12; // at once; the table below lists all
  const DRAWN = 0.002; // smaller steps, of computed times, are in the table alone
  const HEIGHT = 210; // of a line of panels, in CSS pixels
  const WIDE = 420; // least width of a panel
  const ORDERS = [["worst", "worst now first"], ["steps", "most steps first"], ["newest", "newest step first"], ["long", "most nights first"], ["label", "by name"]];

  function show(root, query, site) {
    const data = site.data.history;
    const rows = site.rows;
    const filters = h("div");
    const controls = h("div", { class: "controls" });
    const note = h("p", { class: "quiet" });
    const body = h("div");
    const list = h("div");
    root.append(filters, controls, note, body, list);
    const bar = shardbench.filterBar(filters, site);
    const latency = rows.column("latency_s");
    const all = data.points.map((_, place) => shardbench.series(data, rows, place));
    let shown = [];
    const worst = (each) => Math.max(0, ...each.told.map((told) => (told.ratio > 1 ? told.ratio : told.kind.includes("broken") ? Infinity : 0)));
    const newest = (each) => (each.steps.length ? each.nights[each.steps.at(-1).at] : -1);
    const columns = [
      { name: "label", title: "point", show: (each) => shardbench.fullLabel(rows, each.last, each.machine), value: (each) => shardbench.fullLabel(rows, each.last, each.machine), href: link },
      { name: "source", title: "source", show: (each) => `● ${each.source}`, value: (each) => each.source, cell: (each) => shardbench.badge(each.source) },
      { name: "nights", title: data.by_date ? "days" : "nights", numeric: true, show: (each) => String(each.days.length), value: (each) => each.days.length },
      { name: "last", title: "last", show: (each) => each.days.at(-1), value: (each) => each.days.at(-1) },
      { name: "time", title: latency?.title || "latency", numeric: true, show: (each) => latency?.print(each.times.at(-1)) || "", value: (each) => each.times.at(-1) },
      { name: "steps", title: "steps", numeric: true, show: (each) => String(each.steps.length), value: (each) => each.steps.length },
      { name: "newest_step", title: "newest step", show: (each) => (each.steps.length ? each.days[each.steps.at(-1).at] : ""), value: (each) => (each.steps.length ? each.days[each.steps.at(-1).at] : null) },
      { name: "step_ratio", title: "new/old", numeric: true, show: (each) => shardbench.ratioText(each.steps.at(-1)?.ratio), value: (each) => each.steps.at(-1)?.ratio ?? null },
      { name: "told", title: "said of the last night", show: (each) => each.told.map((told) => told.kind).join(", "), value: (each) => each.told.map((told) => told.kind).join(", ") },
      { name: "point_id", title: "point_id", show: (each) => rows.at("point_id", each.last) || "", value: (each) => rows.at("point_id", each.last) },
    ];
    function link(each) {
      return site.link("history", { point_id: rows.at("point_id", each.last) ?? shardbench.EMPTY });
    }
    const table = shardbench.table(list, { columns, noun: "point", order: { get: () => site.query.get("sort"), set: (order) => site.set({ sort: order }, true) },
      open: (each) => (location.hash = link(each)), csv: { name: "histories.csv", text: () => answersCsv(shown, rows) } });

    function update(now) {
      bar.update(now);
      const steppedOnly = now.get("changed") === "yes";
      const chosen = shardbench.historiesOf(data, bar.selection(now)).map((place) => all[place]);
      const left = chosen.filter((each) => !steppedOnly || each.steps.length);
      const order = now.get("order") || "worst";
      shown = ordered(left, order);
      if (now.get("sort")) shown = shardbench.sortItems(shown, columns, now.get("sort"));
      const pages = Math.max(1, Math.ceil(shown.length / PANELS));
      const page = Math.min(pages, Math.max(1, Number(now.get("page")) || 1));
      const together = now.get("view") === "together" && shown.length > 1;
      drawControls({ pages, page, order, together, steppedOnly });
      const once = shown.filter((each) => each.days.length < 2).length;
      replace(note, counted(shown.length, "point"), once ? `, ${once.toLocaleString("en-US")} of them answered on one ${data.by_date ? "day" : "night"} alone` : "",
        ". Latency of each night (median of its processes) with its 95% interval; a hollow symbol is not valid, a cross no answer; a vertical line is a step of 0.2% or more, which two nights confirm if it is measured.");
      table.update(shown);
      if (!shown.length) replace(body, h("p", { class: "empty" }, steppedOnly && chosen.length ? "None of these points has a step." : "No point is left; remove a filter."));
      else if (shown.length === 1) drawOne(body, shown[0], site, data);
      else if (together) drawTogether(body, shown, data);
      else drawPanels(body, shown.slice((page - 1) * PANELS, page * PANELS), site);
    }

    function ordered(found, order) {
      const by = { worst: (each) => -worst(each), steps: (each) => -each.steps.length, newest: (each) => -newest(each), long: (each) => -each.days.length }[order];
      if (!by) return [...found].sort((a, b) => shardbench.compare(a.label, b.label));
      return found.map((each) => [by(each), each]).sort((a, b) => (a[0] === b[0] ? 0 : a[0] < b[0] ? -1 : 1)).map(([, each]) => each);
    }

    function drawControls({ pages, page, order, together, steppedOnly }) {
      const focused = controls.contains(document.activeElement) ? [...controls.querySelectorAll("select,input")].indexOf(document.activeElement) : -1;
      replace(controls, select("view", [["", "each point"], ["together", "together, as one line"]], together ? "together" : "", (value) => site.set({ view: value || null })),
        select("order", ORDERS, order, (value) => site.set({ order: value, page: null, sort: null })),
        checkbox("with steps alone", steppedOnly, (on) => site.set({ changed: on ? "yes" : null, page: null })),
        pages > 1 && !together && select("panels", Array.from({ length: pages }, (_, place) => [String(place + 1), `${place + 1} of ${pages}`]), String(page), (value) => site.set({ page: value === "1" ? null : value })));
      if (focused >= 0) [...controls.querySelectorAll("select,input")][focused]?.focus();
    }
    update(query);
    return update;
  }

  /* plotly's traces of one history on the axes `number`: the line, and its valid and other answers. */
  function traces(each, rows, number) {
    const color = shardbench.sourceColor(each.source);
    const symbol = shardbench.SYMBOLS[each.source];
    const places = each.times.map((_, place) => place).filter((place) => each.times[place] !== null);
    const failed = each.times.map((_, place) => place).filter((place) => each.times[place] === null);
    const invalid = (place) => rows.at("outcome", each.rows[place]) !== "valid";
    const scale = rows.column("latency_s")?.scale ?? 1;
    const bars = { type: "data", symmetric: false, color, thickness: 1, width: 0,
      array: places.map((place) => (each.high[place] === null ? 0 : scale * (each.high[place] - each.times[place]))),
      arrayminus: places.map((place) => (each.low[place] === null ? 0 : scale * (each.times[place] - each.low[place]))) };
    const text = places.map((place) => hover(each, rows, place));
    const known = shardbench.median(each.times);
    const crosses = failed.length > 0 && { type: "scatter", mode: "markers", x: failed.map((place) => each.days[place]), y: failed.map(() => scale * (Number.isFinite(known) ? known : 1)), xaxis: `x${number}`, yaxis: `y${number}`,
      text: failed.map((place) => shardbench.plain(`${each.days[place]}: ${rows.show("outcome", each.rows[place])}`)), hovertemplate: "%{text}<extra></extra>", marker: { symbol: "x", size: 8, color: cssOf("--bad") }, customdata: failed.map((place) => each.rows[place]) };
    return [crosses, { type: "scatter", mode: "lines+markers", x: places.map((place) => each.days[place]), y: places.map((place) => scale * each.times[place]), error_y: bars, text, hovertemplate: "%{text}<extra></extra>",
      line: { color, width: 1.2 }, marker: { color, size: 6, symbol: places.map((place) => symbol + (invalid(place) ? "-open" : "")) }, xaxis: `x${number}`, yaxis: `y${number}`, customdata: places.map((place) => each.rows[place]) }].filter(Boolean);
  }

  const cssOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* From half a day before the first night to half a day after the last, so that all panels have the same axis. */
  function span(days) {
    const at = (day, shift) => new Date(Date.parse(`${day}T00:00Z`) + shift * 43200000).toISOString().slice(0, 16).replace("T", " ");
    return Number.isNaN(Date.parse(days[0])) ? undefined : [at(days[0], -1), at(days.at(-1), 1)];
  }


  function hover(each, rows, place) {
    const latency = rows.column("latency_s");
    const step = each.steps.find((found) => found.at === place);
    const lines = [each.days[place], `${latency.print(each.times[place])} ${latency.unit || "s"}`,
      each.low[place] !== null && `${latency.print(each.low[place])} to ${latency.print(each.high[place])}`, each.processes[place] > 1 && `${each.processes[place]} processes`,
      step && `step: ${shardbench.ratioText(step.ratio)} times as long`, ...(step ? step.changed : [])];
    return lines.filter(Boolean).map(shardbench.plain).join("<br>");
  }

  /* The ends of the axis of times: all intervals, and never so near that noise fills it. */
  function heights(each, rows) {
    const scale = rows.column("latency_s")?.scale ?? 1;
    const known = [...each.times, ...each.low, ...each.high].filter((value) => value !== null);
    if (!known.length) return undefined;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const spare = Math.max(0.08 * (high - low), (0.06 * high - (high - low)) / 2);
    return [scale * (low - spare), scale * (high + spare)];
  }

  /* Lines at the steps of a history. */
  function stepShapes(each, number) {
    const color = (step) => cssOf(step.ratio > 1 ? "--bad" : "--good");
    return each.steps.filter((step) => Math.abs(Math.log(step.ratio)) >= DRAWN).map((step) => ({ type: "line", xref: `x${number}`, yref: `y${number} domain`, x0: each.days[step.at], x1: each.days[step.at], y0: 0, y1: 1, line: { color: color(step), width: 1.5, dash: "dot" } }));
  }

  async function drawPanels(body, panels, site) {
    let chart = body.querySelector(".chart.nights");
    if (!chart) replace(body, (chart = h("div", { class: "chart nights", role: "img", "aria-label": "Latency of each point over nights; the table below lists all points" })));
    const columns = Math.max(1, Math.min(3, Math.floor(body.clientWidth / WIDE), panels.length));
    const lines = Math.ceil(panels.length / columns);
    chart.style.height = `${lines * HEIGHT + 40}px`;
    const layout = { shapes: [], annotations: [], dragmode: false, margin: { l: 56, r: 12, t: 26, b: 30 } };
    const drawn = [];
    panels.forEach((each, place) => {
      const number = place ? place + 1 : "";
      const [column, line] = [place % columns, Math.floor(place / columns)];
      const [width, height] = [1 / columns, 1 / lines];
      const x = [column * width + (column ? 0.045 : 0), (column + 1) * width - 0.01];
      const y = [1 - (line + 1) * height + 46 / (lines * HEIGHT), 1 - line * height - 4 / (lines * HEIGHT)];
      layout[`xaxis${number}`] = shardbench.axis("", { type: "date", domain: x, anchor: `y${number}`, tickfont: { size: 10 }, nticks: 4, fixedrange: true, range: span(site.data.history.days) });
      layout[`yaxis${number}`] = shardbench.axis(site.rows.column("latency_s")?.unit || "", { domain: y, anchor: `x${number}`, tickfont: { size: 10 }, nticks: 5, fixedrange: true, range: heights(each, site.rows) });
      const label = shardbench.fullLabel(site.rows, each.last, each.machine);
      const most = Math.floor((body.clientWidth * width - 80) / 6.2);
      layout.annotations.push({ text: shardbench.plain(label.length > most ? `${label.slice(0, most - 1)}…` : label), hovertext: shardbench.plain(label), showarrow: false, xref: "paper", yref: "paper", x: x[0], y: y[1], xanchor: "left", yanchor: "bottom", font: { size: 11 } });
      layout.shapes.push(...stepShapes(each, number));
      drawn.push(...traces(each, site.rows, number));
    });
    await shardbench.plot(chart, drawn, layout, { plotly_click: (event) => (location.hash = site.rowLink(event.points[0].customdata)) });
    chart.dataset.points = panels.length;
  }

  function drawOne(body, each, site, data) {
    const rows = site.rows;
    const chart = h("div", { class: "chart one", role: "img", "aria-label": "Latency over nights; the table below has the same figures" });
    const told = each.told.map((found) => h("p", { class: found.ratio > 1 || found.kind.includes("broken") ? "bad" : "quiet" },
      `${found.kind} since ${data.days[found.since]}${found.ratio ? `, ${shardbench.ratioText(found.ratio)} times as long` : ""}: ${found.reason}`));
    replace(body, h("div", { class: "row-head" }, h("h2", null, each.label), shardbench.badge(each.source), h("span", { class: "quiet" }, each.machine), h("a", { href: site.rowLink(each.last) }, "Newest row")), told, chart);
    steps(body, each);
    answers(body, each, site);
    const layout = { xaxis: shardbench.axis("", { type: "date" }), yaxis: shardbench.axis(rows.column("latency_s")?.title || "latency", { range: heights(each, rows) }), shapes: [...stepShapes(each, ""), ...levels(each, rows.column("latency_s")?.scale ?? 1)],
      annotations: each.steps.filter((step) => Math.abs(Math.log(step.ratio)) >= DRAWN).map((step) => ({ text: shardbench.percent(step.ratio), x: each.days[step.at], y: 1, yref: "paper", yanchor: "bottom", showarrow: false, font: { size: 11 } })) };
    shardbench.plot(chart, traces(each, rows, ""), layout, { plotly_click: (event) => (location.hash = site.rowLink(event.points[0].customdata)) }).then(() => (chart.dataset.points = each.days.length));
  }

  /* The median of every stretch between steps. */
  function levels(each, scale) {
    const ends = [0, ...each.steps.map((step) => step.at), each.days.length];
    return ends.slice(1).map((end, place) => [ends[place], end]).filter(([begin, end]) => end > begin && each.times.slice(begin, end).some((time) => time !== null)).map(([begin, end]) => {
      const level = shardbench.median(each.times.slice(begin, end)) * scale;
      return { type: "line", layer: "below", x0: each.days[begin], x1: each.days[end - 1], y0: level, y1: level, line: { color: shardbench.sourceColor(each.source), width: 5 }, opacity: 0.25 };
    });
  }

  function steps(root, each) {
    if (!each.steps.length) return root.append(h("p", { class: "quiet" }, `No step in ${counted(each.days.length, "night")}.`));
    const line = (step) => h("tr", null, h("td", null, each.days[step.at]), h("td", { class: "figure" }, shardbench.ratioText(step.ratio)), h("td", { class: step.ratio > 1 ? "bad" : "good" }, shardbench.percent(step.ratio)),
      h("td", null, each.days[step.confirmed]), h("td", { class: "figure" }, step.noise ? `${(step.noise * 100).toFixed(2)}%` : ""), h("td", null, step.changed.join("; ") || "nothing that a row states"));
    return root.append(h("h2", null, "Steps"), h("div", { class: "wide" }, h("table", { class: "lines" }, h("thead", null, h("tr", null, ["since", "new/old", "", "confirmed", "noise between nights", "what changed there"].map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, each.steps.map(line)))));
  }

  function answers(root, each, site) {
    const rows = site.rows;
    const items = each.days.map((_, place) => place).reverse();
    const of = (name) => ({ name, title: rows.column(name)?.title || name, show: (place) => (rows.columns.has(name) ? rows.show(name, each.rows[place]) : ""), value: (place) => (rows.columns.has(name) ? rows.at(name, each.rows[place]) : null) });
    const time = (name, title, values) => ({ name, title, numeric: true, show: (place) => rows.column("latency_s")?.print(values[place]) || "", value: (place) => values[place] });
    const columns = [{ name: "night", title: "night", show: (place) => each.days[place], value: (place) => each.days[place], href: (place) => site.rowLink(each.rows[place]) },
      time("time_s", rows.column("latency_s")?.title || "latency", each.times), time("low_s", "from", each.low), time("high_s", "to", each.high),
      { name: "processes", title: "processes", numeric: true, show: (place) => String(each.processes[place] ?? ""), value: (place) => each.processes[place] },
      of("outcome"), of("error"), of("invalid_reason"), of("git_sha"), ...[...rows.columns.keys()].filter((name) => name.startsWith("versions.")).map(of)].filter((column) => items.some((place) => column.show(place) !== ""));
    root.append(h("h2", null, "Answers"));
    shardbench.table(root, { columns, noun: "answer", open: (place) => (location.hash = site.rowLink(each.rows[place])), csv: { name: "history.csv", text: () => shardbench.csvOf(columns, items) } }).update(items);
  }

  /* All points as one line: the geometric mean of their times, each over its own median, with its 95% interval. */
  function drawTogether(body, found, data) {
    const chart = h("div", { class: "chart one", role: "img", "aria-label": "Geometric mean of all points over nights" });
    const sums = data.days.map(() => []);
    for (const each of found) {
      if (!each.times.some((time) => time !== null)) continue;
      const middle = shardbench.median(each.times);
      each.times.forEach((time, place) => time !== null && sums[each.nights[place]].push(Math.log(time / middle)));
    }
    const nights = sums.map((logs, place) => [place, logs]).filter(([, logs]) => logs.length);
    const mean = (logs) => logs.reduce((sum, each) => sum + each, 0) / logs.length;
    const width = (logs) => (logs.length < 2 ? 0 : 1.96 * Math.sqrt(logs.reduce((sum, each) => sum + (each - mean(logs)) ** 2, 0) / (logs.length - 1) / logs.length));
    const y = nights.map(([, logs]) => Math.exp(mean(logs)));
    const error_y = { type: "data", symmetric: false, array: nights.map(([, logs], place) => y[place] * (Math.exp(width(logs)) - 1)), arrayminus: nights.map(([, logs], place) => y[place] * (1 - Math.exp(-width(logs)))), thickness: 1, width: 0 };
    const text = nights.map(([place, logs], at) => shardbench.plain(`${data.days[place]}: ${shardbench.ratioText(y[at])}, ${counted(logs.length, "point")}`));
    replace(body, chart, h("p", { class: "quiet" }, "Geometric mean of the times of all points, each over its own median, with its 95% interval over points. A point that a night lacks hardly moves it."));
    const trace = { type: "scatter", mode: "lines+markers", x: nights.map(([place]) => data.days[place]), y, error_y, text, hovertemplate: "%{text}<extra></extra>", line: { color: shardbench.color(0), width: 1.2 } };
    shardbench.plot(chart, [trace], { xaxis: shardbench.axis("", { type: "date" }), yaxis: shardbench.axis("time over the point's median") }).then(() => (chart.dataset.points = nights.length));
  }

  function answersCsv(found, rows) {
    const head = [...rows.point, "source", "machine", "night", "time_s", "low_s", "high_s", "processes", "outcome", "git_sha", "point_id", "step_ratio"];
    const at = (name, row) => (rows.columns.has(name) ? rows.at(name, row) : null);
    const lines = found.flatMap((each) => each.rows.map((row, place) => [...rows.point.map((name) => at(name, row)), each.source, each.machine, each.days[place], each.times[place], each.low[place], each.high[place],
      each.processes[place], at("outcome", row), at("git_sha", row), at("point_id", row), each.steps.find((step) => step.at === place)?.ratio ?? null]));
    return shardbench.csv(head, lines);
  }

  shardbench.page({ name: "history", title: "History", needs: ["rows", "history"], show });
})();
