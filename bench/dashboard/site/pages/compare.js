"use strict";
/* Compare: two nights, stores, engines, layouts or values of any key side by side; only what differs in that key alone. */
(function () {
  const { h, replace, select, counted } = shardbench.dom;
  const MOST_DRAWN = 400; // ratios in the chart at once, the farthest from 1; the table has all

  function show(root, query, site) {
    const data = site.data.compare;
    const rows = site.rows;
    if (!data.keys.length) {
      root.append(h("p", { class: "empty" }, "No two answers of this site differ in one key alone, so there is nothing to compare."));
      return undefined;
    }
    const controls = h("div", { class: "controls" });
    const filters = h("div");
    const told = h("p");
    const left = h("p", { class: "quiet" });
    const chart = h("div", { class: "chart nights", role: "img", "aria-label": "Ratio of each pair with its interval; the table below has the same figures" });
    const list = h("div");
    root.append(controls, filters, told, left, chart, list);
    const bar = shardbench.filterBar(filters, site);
    const latency = rows.column("latency_s");
    let shown = [];
    let sides = ["A", "B"];
    const print = (value) => (value === null ? "" : latency.print(value));
    const side = (name, which) => ({ name, get title() { return `${shorten(sides[which])} (${latency?.unit || "s"})`; }, numeric: true, value: (pair) => pair.times[which],
      show: (pair) => (pair.times[which] === null ? rows.show("outcome", pair.rows[which]) : print(pair.times[which])), href: (pair) => site.rowLink(pair.rows[which]) });
    const columns = [
      { name: "label", title: "point", show: (pair) => pair.label, value: (pair) => pair.label },
      side("a_s", 0), side("b_s", 1),
      { name: "ratio", title: "ratio B/A", numeric: true, show: (pair) => shardbench.ratioText(pair.ratio), value: (pair) => pair.ratio,
        cell: (pair) => h("b", { class: pair.verdict === "slower" ? "bad" : pair.verdict === "faster" ? "good" : null }, shardbench.ratioText(pair.ratio)) },
      { name: "interval", title: "95% interval", show: (pair) => (pair.interval ? pair.interval.map(shardbench.ratioText).join(" to ") : ""), value: (pair) => pair.interval?.[0] ?? null },
      { name: "verdict", title: "B is", show: (pair) => pair.verdict, value: (pair) => pair.verdict },
      { name: "a_source", title: "source of A", show: (pair) => `● ${rows.at("source", pair.rows[0])}`, value: (pair) => rows.at("source", pair.rows[0]), cell: (pair) => shardbench.badge(rows.at("source", pair.rows[0])) },
      { name: "b_source", title: "source of B", show: (pair) => `● ${rows.at("source", pair.rows[1])}`, value: (pair) => rows.at("source", pair.rows[1]), cell: (pair) => shardbench.badge(rows.at("source", pair.rows[1])) },
      { name: "machine", title: "machine", show: (pair) => pair.machine, value: (pair) => pair.machine },
    ];
    const csvColumns = [...rows.point.map((name) => ({ name, value: (pair) => (rows.columns.has(name) ? rows.at(name, pair.rows[0]) : null) })), ...columns.filter((column) => column.name !== "interval"),
      { name: "ratio_low", value: (pair) => pair.interval?.[0] ?? null }, { name: "ratio_high", value: (pair) => pair.interval?.[1] ?? null }];
    const table = shardbench.table(list, { columns, noun: "pair", empty: "No pair is left: choose other sides, or remove a filter.",
      order: { get: () => site.query.get("sort") || "-ratio", set: (order) => site.set({ sort: order }, true) },
      open: (pair) => (location.hash = site.rowLink(pair.rows[1])), csv: { name: "compare.csv", text: () => shardbench.csvOf(csvColumns, shown) } });

    function update(now) {
      const key = data.keys.find((each) => each.name === now.get("by")) || data.keys[0];
      const [a, b] = sidesOf(key, now);
      sides = [key.values[a], key.values[b]];
      drawControls(key, a, b);
      bar.update(now);
      const found = pairsOf(key, a, b, new Set(bar.selection(now)), rows);
      shown = shardbench.sortItems(found.pairs, columns, now.get("sort") || "-ratio");
      table.update(shown);
      replace(told, summary(shown, key));
      replace(left, found.alone.map((count, which) => count > 0 && `${counted(count, "answer")} of ${sides[which]} ${count === 1 ? "has" : "have"} no partner that differs in ${key.title} alone. `));
      draw(shown);
    }

    function drawControls(key, a, b) {
      const focused = controls.contains(document.activeElement) ? [...controls.querySelectorAll("select,button")].indexOf(document.activeElement) : -1;
      const values = key.values.map((value, place) => [String(place), value]);
      const named = (value) => key.values[Number(value)];
      replace(controls, select("compare by", data.keys.map((each) => [each.name, each.title]), key.name, (value) => site.set({ by: value, a: null, b: null })),
        select("A", values, String(a), (value) => site.set({ a: named(value), b: key.values[b] })), select("B", values, String(b), (value) => site.set({ b: named(value), a: key.values[a] })),
        h("button", { type: "button", onclick: () => site.set({ a: key.values[b], b: key.values[a] }) }, "Swap"));
      if (focused >= 0) [...controls.querySelectorAll("select,button")][focused]?.focus();
    }

    async function draw(pairs) {
      const usable = pairs.filter((pair) => pair.ratio !== null);
      const far = [...usable].sort((x, y) => Math.abs(Math.log(y.ratio)) - Math.abs(Math.log(x.ratio))).slice(0, MOST_DRAWN);
      const drawn = usable.filter((pair) => far.length === usable.length || far.includes(pair)).reverse();
      chart.hidden = !drawn.length;
      chart.dataset.points = drawn.length;
      if (!drawn.length) return;
      chart.style.height = `${Math.min(640, 90 + 16 * drawn.length)}px`;
      const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const tone = (pair) => css({ slower: "--bad", faster: "--good" }[pair.verdict] || "--quiet");
      const trace = { type: "scatter", mode: "markers", x: drawn.map((pair) => pair.ratio), y: drawn.map((_, place) => place), customdata: drawn.map((pair) => pair.rows[1]), hovertemplate: "%{text}<extra></extra>",
        text: drawn.map((pair) => shardbench.plain(`${pair.label}: ${shardbench.ratioText(pair.ratio)}${pair.interval ? ` (${pair.interval.map(shardbench.ratioText).join(" to ")})` : ""}`)),
        marker: { color: drawn.map(tone), size: 7, symbol: drawn.map((pair) => shardbench.SYMBOLS[rows.at("source", pair.rows[1])]) },
        error_x: { type: "data", symmetric: false, color: css("--quiet"), thickness: 1, width: 0, array: drawn.map((pair) => (pair.interval ? pair.interval[1] - pair.ratio : 0)), arrayminus: drawn.map((pair) => (pair.interval ? pair.ratio - pair.interval[0] : 0)) } };
      const layout = { margin: { l: 12, r: 12, t: 12, b: 48 }, xaxis: shardbench.axis(`time of ${shorten(sides[1])} over ${shorten(sides[0])}`, { type: "log" }), yaxis: { visible: false, range: [-1, drawn.length] },
        shapes: [{ type: "line", x0: 1, x1: 1, y0: 0, y1: 1, yref: "paper", line: { color: css("--text"), width: 1 } }] };
      await shardbench.plot(chart, [trace], layout, { plotly_click: (event) => (location.hash = site.rowLink(event.points[0].customdata)) });
    }

    update(query);
    return update;
  }

  const shorten = (text) => (text.length > 28 ? `${text.slice(0, 27)}…` : text);

  /* Places of the two values: those of the address, else the last two nights, else the two with the most answers. */
  function sidesOf(key, query) {
    const counts = key.values.map(() => 0);
    for (const value of key.value) counts[value]++;
    const order = key.name === "night" ? key.values.map((_, place) => place).reverse() : key.values.map((_, place) => place).sort((x, y) => counts[y] - counts[x] || x - y);
    const asked = ["a", "b"].map((name) => key.values.indexOf(query.get(name)));
    const free = order.filter((place) => !asked.includes(place));
    if (asked[1] < 0) asked[1] = key.name === "night" ? free.shift() : free.splice(asked[0] < 0 ? 1 : 0, 1)[0];
    if (asked[0] < 0) asked[0] = free.filter((place) => place !== asked[1])[0] ?? asked[1];
    return asked;
  }

  /* All pairs whose values are `a` and `b`, and how many answers of each have no partner. */
  function pairsOf(key, a, b, selection, rows) {
    const groups = new Map(); // rest → [places of a, places of b]
    key.rest.forEach((rest, place) => {
      const which = key.value[place] === a ? 0 : key.value[place] === b ? 1 : -1;
      if (which < 0) return;
      if (!groups.has(rest)) groups.set(rest, [[], []]);
      groups.get(rest)[which].push(place);
    });
    const pairs = [];
    const alone = [a, b].map((value) => key.alone[value].filter((row) => selection.has(row)).length);
    const same = (x, y) => !key.same_machine || key.machines[x] === null || key.machines[y] === null || key.machines[x] === key.machines[y];
    for (const [of, others] of groups.values()) {
      const made = a === b ? [] : of.flatMap((x) => others.filter((y) => same(x, y)).map((y) => [x, y])).filter((pair) => pair.some((place) => selection.has(key.rows[place])));
      pairs.push(...made.map(([x, y]) => pairOf(key, x, y, rows)));
      [of, others].forEach((places, which) => (alone[which] += places.filter((place) => selection.has(key.rows[place]) && !made.some((pair) => pair[which] === place)).length));
    }
    return { pairs, alone };
  }

  function pairOf(key, x, y, rows) {
    const sides = [x, y].map((place) => [key.times[place], key.low[place], key.high[place]]);
    const both = sides.every(([time]) => time !== null);
    const ratio = both ? sides[1][0] / sides[0][0] : null;
    const predictor = [x, y].every((place) => rows.at("source", key.rows[place]) === "predicted"); // its errors go together
    const interval = both && !predictor ? shardbench.ratioInterval(...sides) : null;
    const [low, high] = interval || [ratio, ratio];
    const verdict = ratio === null ? "" : low > 1 ? "slower" : high < 1 ? "faster" : interval ? "not told apart" : "same";
    const machines = [...new Set([key.machines[x], key.machines[y]].filter((each) => each !== null))];
    return { rows: [key.rows[x], key.rows[y]], times: sides.map(([time]) => time), ratio, interval, verdict, machine: machines.join(" / "), label: shardbench.fullLabel(rows, key.rows[x]) };
  }

  function summary(pairs, key) {
    const ratios = pairs.map((pair) => pair.ratio).filter((ratio) => ratio !== null);
    if (!pairs.length) return `No pair of these two differs in ${key.title} alone.`;
    const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
    const count = (verdict) => pairs.filter((pair) => pair.verdict === verdict).length;
    const without = pairs.length - ratios.length;
    return [h("b", null, counted(pairs.length, "pair")), ratios.length > 0 && `: B takes ${shardbench.ratioText(mean)} times as long as A (geometric mean of ${ratios.length.toLocaleString("en-US")}); ${count("slower")} slower, ${count("faster")} faster, ${count("not told apart")} not told apart${count("same") ? `, ${count("same")} the same` : ""}`,
      without > 0 && `; ${without} without a time on both sides`, "."];
  }

  shardbench.page({ name: "compare", title: "Compare", needs: ["rows", "compare"], show });
})();
