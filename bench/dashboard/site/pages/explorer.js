"use strict";
/* Explorer: any two figures of all rows against each other, with the Pareto frontier, and the rows themselves. */
(function () {
  const { h, replace, select, checkbox, counted, commandBox, download } = shardbench.dom;
  const FIGURES = ["outcome", "latency_s", "step_time_s", "tokens_per_s_per_chip", "mfu", "mbu", "cost_chip_s_per_token", "cost_usd_per_mtok", "energy_j"];
  const SHOWN = ["source", "label", "engine", "runtime", "ffn_layout", "latency_s", "step_time_s", "mfu", "cost_chip_s_per_token", "outcome", "created_at"];

  function show(root, query, site) {
    const rows = site.rows;
    const controls = h("div", { class: "controls" });
    const chart = h("div", { class: "chart", role: "img", "aria-label": "The chosen figures against each other; the table below has the same rows" });
    const note = h("p", { class: "quiet" });
    const aside = h("div", { class: "aside" });
    const hover = h("div", { class: "card float", hidden: true });
    const counts = h("div");
    const filters = shardbench.filterBar(root, site);
    const bottom = h("div");
    root.append(counts, controls, h("div", { class: "explore" }, h("div", null, chart, note), aside), bottom, hover);
    let selection = rows.all;
    let drawn = [];
    const names = () => (site.query.get("columns") || SHOWN.join(",")).split(",");
    let table = null;
    let tableOf = "";
    let waiting = 0;

    function update(now) {
      selection = filters.selection(now);
      filters.update(now);
      replace(counts, shardbench.outcomeCounts(site, selection));
      const choice = choiceOf(now, rows);
      drawControls(controls, choice, site);
      drawTable();
      drawPinned();
      if (!choice) return void replace(note, "No row has a figure; the table below has all rows.");
      cancelAnimationFrame(waiting); // the table answers first, then the chart follows
      waiting = requestAnimationFrame(() => setTimeout(() => draw(choice)));
    }

    function drawTable() {
      const wanted = names().join(",");
      if (wanted !== tableOf) {
        replace(bottom);
        table = shardbench.table(bottom, {
          columns: shardbench.rowColumns(site, names()),
          order: { get: () => site.query.get("sort"), set: (order) => site.set({ sort: order }, true) },
          open: (row) => pin(row),
          csv: { name: "rows.csv", text: () => rows.csv(rows.sorted(selection, site.query.get("sort")), csvNames()) },
        });
        tableOf = wanted;
      }
      table.update(rows.sorted(selection, site.query.get("sort")));
    }

    /* The label of a point is not one column: its keys stand for it. */
    function csvNames() {
      const both = ["x", "y"].map((axis) => site.query.get(axis)).filter(Boolean);
      return [...new Set([...rows.point, ...names(), ...both, "point_id"])];
    }

    async function draw(choice) {
      const made = shardbench.explorerTraces(rows, selection, choice);
      drawn = made.indices;
      replace(note, made.notes.join(" "));
      replace(aside.querySelector(".legends") || aside.insertBefore(h("div", { class: "legends" }), aside.firstChild), legend(made, choice));
      chart.style.height = made.lines > 2 ? `${made.lines * 220}px` : ""; // of one or two lines of panels as style.css says
      await shardbench.plot(chart, made.traces, made.layout, { plotly_hover: over, plotly_unhover: () => (hover.hidden = true), plotly_click: clicked });
      chart.dataset.points = made.points; // what is on the screen now
    }

    const rowOf = (event) => drawn[event.points[0].curveNumber]?.[event.points[0].pointNumber];

    function over(event) {
      const row = rowOf(event);
      if (row === undefined) return;
      replace(hover, facts(row));
      hover.hidden = false;
      const { clientX: x, clientY: y } = event.event;
      hover.style.left = `${Math.min(x + 14, innerWidth - hover.offsetWidth - 8)}px`;
      hover.style.top = `${Math.min(y + 14, innerHeight - hover.offsetHeight - 8)}px`;
    }

    function clicked(event) {
      const row = rowOf(event);
      if (row !== undefined) pin(row);
    }

    function facts(row) {
      const chosen = ["x", "y"].map((axis) => site.query.get(axis)).filter(Boolean);
      const lines = [...new Set(["engine", "runtime", "ffn_layout", "attn_sharding", ...chosen, ...FIGURES])].filter((name) => rows.show(name, row));
      return [h("h3", null, rows.label(row)), shardbench.badge(rows.at("source", row)),
        h("dl", null, lines.map((name) => [h("dt", null, rows.column(name).title), h("dd", null, rows.show(name, row))]))];
    }

    const pin = (row) => site.set({ pin: rows.pin(row) }, true);

    async function drawPinned() {
      const old = aside.querySelector(".pinned");
      const row = rows.pinned(site.query.get("pin"));
      if (row === null) return old?.remove();
      const command = h("div", null, h("p", { class: "quiet" }, "…"));
      const card = h("div", { class: "card pinned" }, facts(row), command,
        h("p", null, h("a", { href: site.rowLink(row) }, "The whole row"), " ", h("button", { type: "button", onclick: () => site.set({ pin: null }, true) }, "Unpin")));
      if (old) old.replaceWith(card);
      else aside.append(card);
      const whole = await site.details(row);
      return replace(command, whole.command ? [h("h3", null, "Asks it again"), commandBox(whole.command)] : h("p", { class: "quiet" }, whole.no_command));
    }

    function legend(made, choice) {
      const of = choice.color;
      const items = made.categories.map(([value, color, count]) => h("li", null, h("button", { type: "button", title: "Show only these", onclick: () => site.set({ [of]: [shardbench.textOf(value)] }) },
        h("span", { class: "swatch", style: `background:${color}` }), value === null ? shardbench.EMPTY : rows.column(of).print(value), " ", h("small", null, count.toLocaleString("en-US")))));
      return [h("ul", { class: "legend" }, shardbench.SOURCES.filter((source) => made.sources.has(source)).map((source) => h("li", null, shardbench.badge(source)))),
        of !== "source" && items.length > 0 && [h("h3", null, rows.column(of).title), h("ul", { class: "legend" }, items)]];
    }

    update(query);
    return update;
  }

  /* What the address chooses, with defaults: figures that rows have. Null where no row has any. */
  function choiceOf(query, rows) {
    const figures = [...rows.columns.values()].filter((column) => column.numeric);
    const has = (name) => figures.some((column) => column.name === name);
    const first = (names) => names.find(has);
    if (!figures.length) return null;
    const x = has(query.get("x")) ? query.get("x") : first(["latency_s", "tokens_per_s", "num_chips"]) || figures[0].name;
    const y = has(query.get("y")) ? query.get("y") : first(["cost_usd_per_mtok", "cost_chip_s_per_token", "mfu", "batch_size"]) || figures[0].name;
    const known = (name) => (rows.columns.has(name) ? name : null);
    return { x, y, figures, color: known(query.get("color")) || known("source"), facet: known(query.get("facet")), panel: Number(query.get("panel")) || 0,
      log: { x: query.get("xlog") !== "no", y: query.get("ylog") !== "no" }, frontier: query.get("frontier") !== "no",
      best: { x: query.get("xbest") || rows.column(x).better || "lower", y: query.get("ybest") || rows.column(y).better || "lower" } };
  }

  function drawControls(controls, choice, site) {
    if (!choice) return replace(controls);
    const rows = site.rows;
    const focused = controls.contains(document.activeElement) ? [...controls.querySelectorAll("select,input,button")].indexOf(document.activeElement) : -1;
    const figures = choice.figures.map((column) => [column.name, column.title]);
    const groups = [...rows.columns.values()].map((column) => [column.name, column.title]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
    const ways = [["lower", "lower is better"], ["higher", "higher is better"]];
    const axis = (name) => [select(name, figures, choice[name], (value) => site.set({ [name]: value, [`${name}best`]: null })),
      checkbox("log", choice.log[name], (on) => site.set({ [`${name}log`]: on ? null : "no" })),
      choice.frontier && select("", ways, choice.best[name], (value) => site.set({ [`${name}best`]: value }))];
    const panels = choice.facet ? Math.ceil(rows.column(choice.facet).distinct(rows.all).length / shardbench.PANELS) : 1;
    replace(controls, axis("x"), axis("y"), checkbox("Pareto frontier", choice.frontier, (on) => site.set({ frontier: on ? null : "no" })),
      select("colour", groups, choice.color, (value) => site.set({ color: value })),
      select("facet", [["", "none"], ...groups], choice.facet || "", (value) => site.set({ facet: value || null, panel: null })),
      panels > 1 && select("panels", Array.from({ length: panels }, (_, place) => [String(place), `${place + 1} of ${panels}`]), String(choice.panel), (value) => site.set({ panel: value })));
    if (focused >= 0) [...controls.querySelectorAll("select,input,button")][focused]?.focus();
    return undefined;
  }

  shardbench.page({ name: "explorer", title: "Explorer", needs: ["rows"], show });
})();
