"use strict";
/* Row: everything that one row says, with the formula of each figure, where it ran, and how to ask it again. */
(function () {
  const { h, fill, commandBox, outside, download, counted } = shardbench.dom;
  const ENVIRONMENT = ["host", "device_kind", "git_sha", "git_dirty", "versions", "xla_flags", "cpu_affinity", "conditions"];
  const APART = ["samples_s", "details", "origins", "load", "command", "no_command", "chosen", ...ENVIRONMENT];
  const LINKS = [["history", "Its history"], ["compare", "Compare it"], ["timeline", "Its timeline"], ["explorer", "Its rows in Explorer"]];

  async function show(root, query, site) {
    const rows = site.rows;
    const row = rows.find({ point_id: query.get("point_id"), created_at: query.get("created_at"), nth: query.get("nth") });
    if (row === null) {
      root.append(h("p", { class: "empty" }, query.size ? "No row of this site has this point and time." : "No row is chosen.", " ", h("a", { href: "#/explorer" }, "Choose one in Explorer.")));
      return;
    }
    const whole = await site.details(row);
    const told = rows.at("outcome", row);
    const reason = whole.error || whole.invalid_reason;
    fill(root, h("div", { class: "row-head" }, h("h2", null, rows.label(row)), shardbench.badge(whole.source), h("b", { class: told === "valid" ? "good" : "bad" }, told)),
      reason && h("p", { class: "bad" }, reason),
      h("p", null, LINKS.filter(([page]) => site.has(page)).map(([page, text]) => [h("a", { href: site.link(page, { point_id: whole.point_id }) }, text), " · "]),
        h("button", { type: "button", onclick: () => download(`row-${whole.point_id}.json`, JSON.stringify(plainRow(whole), null, 1) + "\n", "application/json") }, "JSON")),
      h("h2", null, "Asks it again"), whole.command ? commandBox(whole.command) : h("p", { class: "quiet" }, whole.no_command),
      h("div", { class: "tables" }, pointTable(whole, rows), figuresTable(whole, rows), aboutTable(whole, rows), environmentTable(whole)));
    const samples = whole.samples_s || [];
    if (samples.length > 1) drawSamples(root, samples, whole);
    for (const name of ["load", "details", "origins"]) if (whole[name]) root.append(h("h2", null, name), tree(whole[name]));
    others(root, row, site);
  }

  const plainRow = (whole) => Object.fromEntries(Object.entries(whole).filter(([name]) => name !== "command" && name !== "no_command"));

  function section(title, lines) {
    return lines.length > 0 && h("section", null, h("h2", null, title), h("table", { class: "plain" }, h("tbody", null, lines)));
  }

  const line = (name, ...cells) => h("tr", null, h("th", { scope: "row" }, name), h("td", null, cells));
  const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

  function pointTable(whole, rows) {
    const chosen = new Set(whole.chosen || []);
    const lines = rows.point.filter((name) => name in whole).map((name) => line(name, text(whole[name]), chosen.has(name) && h("small", null, "left to the engine, which chose this")));
    return section("Point", lines);
  }

  function figuresTable(whole, rows) {
    const lines = [...rows.columns.values()].filter((column) => column.formula && column.name in whole).map((column) => {
      const value = whole[column.name];
      const exact = column.scale === 1 && !column.unit ? null : h("small", null, `${column.name} = ${value}`);
      return line(column.title, h("span", { title: column.formula }, column.print(value)), exact, h("small", null, column.formula, column.needs.length > 0 && ` Of ${column.needs.join(", ")}.`));
    });
    return section("Figures", lines);
  }

  function aboutTable(whole, rows) {
    const apart = new Set([...APART, ...rows.point]);
    const names = Object.keys(whole).filter((name) => !apart.has(name) && !rows.column(name)?.formula);
    return section("What it is", names.map((name) => line(name, name === "reference" ? outside(text(whole[name])) : text(whole[name]))));
  }

  function environmentTable(whole) {
    const lines = [];
    for (const name of ENVIRONMENT.filter((each) => each in whole)) {
      const value = whole[name];
      if (value !== null && typeof value === "object" && !Array.isArray(value)) for (const [key, each] of Object.entries(value)) lines.push(line(`${name}.${key}`, text(each)));
      else lines.push(line(name, text(value)));
    }
    return section("Environment", lines);
  }

  function tree(value) {
    const entries = Object.entries(value);
    return h("ul", { class: "tree" }, entries.map(([key, each]) => {
      const isGroup = each !== null && typeof each === "object" && Object.keys(each).length > 0;
      const flat = isGroup && Array.isArray(each) && each.every((item) => item === null || typeof item !== "object");
      if (!isGroup || flat) return h("li", null, h("b", null, `${key}: `), text(each));
      return h("li", null, h("details", { open: entries.length < 12 }, h("summary", null, h("b", null, key)), tree(each)));
    }));
  }

  function drawSamples(root, samples, whole) {
    const chart = h("div", { class: "chart samples", style: "height:16rem;min-height:0", role: "img", "aria-label": `${samples.length} samples of the latency, in the order in which they were taken` });
    root.append(h("h2", null, `Samples (${samples.length})`), chart);
    const color = shardbench.sourceColor(whole.source);
    const level = (value, dash) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value * 1e3, y1: value * 1e3, line: { color, width: 1, dash } });
    const shapes = [[whole.latency_s, "solid"], [whole.ci_low, "dot"], [whole.ci_high, "dot"]].filter(([value]) => value !== undefined).map(([value, dash]) => level(value, dash));
    const trace = { type: "scatter", mode: "markers", x: samples.map((_, place) => place + 1), y: samples.map((each) => each * 1e3), marker: { color, symbol: shardbench.SYMBOLS[whole.source] } };
    shardbench.plot(chart, [trace], { xaxis: shardbench.axis("sample"), yaxis: shardbench.axis("latency (ms)"), shapes });
  }

  /* All rows of the same point, oldest first. */
  function others(root, row, site) {
    const rows = site.rows;
    const same = rows.select([["point_id", [rows.at("point_id", row) ?? shardbench.EMPTY]]], "");
    if (same.length < 2) return;
    root.append(h("h2", null, `All ${counted(same.length, "row")} of this point`));
    const names = ["created_at", "source", "outcome", "latency_s", "ci_low", "ci_high", "host", "git_sha", "program_id", "store"];
    shardbench.table(root, { columns: shardbench.rowColumns(site, names, "created_at"), open: (each) => (location.hash = site.rowLink(each)),
      csv: { name: "rows.csv", text: () => rows.csv(same, [...rows.point, ...names]) } }).update(same);
  }

  shardbench.page({ name: "row", title: "Row", hidden: true, needs: ["rows"], show });
})();
