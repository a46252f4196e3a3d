"use strict";
/* Overview: the last night's verdict; what became worse or better, what broke, is new or missing; machines; coverage. */
(function () {
  const { h, replace, counted } = shardbench.dom;
  const BAD = ["broken", "slower"];
  const GOOD = ["faster", "mended"];
  const KINDS = ["slower", "broken", "still slower", "still broken", "faster", "mended", "suspected", "not judged", "changed", "missing", "new"];
  const WORDS = { missing: "answered the night before and not this one", new: "no earlier night answered it" };
  const MARK = { worse: "▲", unknown: "?", good: "✓" };
  const OUTCOMES = ["valid", "not valid", "out of memory", "unsupported", "failed", "timeout"];

  function show(root, query, site) {
    const { overview: told, history } = site.data;
    const rows = site.rows;
    const verdict = h("section", { class: `verdict ${told.state}`, "aria-label": "Verdict" });
    const filters = h("div");
    const kinds = h("div", { class: "controls kinds", role: "group", "aria-label": "Kinds" });
    const list = h("div");
    root.append(verdict, filters, kinds, list);
    const bar = shardbench.filterBar(filters, site);
    const machineOf = (entry) => entry.machine ?? history.points[entry.point].machine ?? "";
    const entries = [...told.findings, ...told.missing.map((each) => ({ ...each, kind: "missing" })), ...told.new.map((each) => ({ ...each, kind: "new" }))]
      .map((each) => ({ ...each, label: each.label || shardbench.fullLabel(rows, each.row), machine: machineOf(each), reason: each.reason || WORDS[each.kind] }));
    let shown = entries;
    const columns = [
      { name: "kind", title: "what", show: (each) => each.kind, value: (each) => KINDS.indexOf(each.kind), cell: (each) => kindCell(each.kind) },
      { name: "label", title: "point", show: (each) => each.label, value: (each) => each.label, href: (each) => historyLink(each) },
      { name: "ratio", title: "new/old", numeric: true, show: (each) => shardbench.ratioText(each.ratio), value: (each) => each.ratio ?? null },
      { name: "since", title: "since", show: (each) => each.since || "", value: (each) => each.since || null },
      { name: "time", title: rows.column("latency_s")?.title || "latency", numeric: true, show: (each) => rows.column("latency_s")?.print(timeOf(each)) || "", value: timeOf },
      { name: "changed", title: "what changed there", show: (each) => (each.changed || []).join("; "), value: (each) => (each.changed || []).join("; ") },
      { name: "reason", title: "why", show: (each) => each.reason || "", value: (each) => each.reason || "" },
      { name: "source", title: "source", show: (each) => `● ${rows.at("source", each.row)}`, value: (each) => rows.at("source", each.row), cell: (each) => shardbench.badge(rows.at("source", each.row)) },
      { name: "machine", title: "machine", show: (each) => each.machine, value: (each) => each.machine },
    ];
    const csvColumns = columns.map((column) => (column.name === "kind" ? { ...column, value: (each) => each.kind } : column));

    function timeOf(each) {
      return each.time ?? (each.kind === "missing" ? null : rows.column("latency_s")?.at(each.row) ?? null);
    }
    const historyLink = (each) => site.link("history", { point_id: rows.at("point_id", each.row) });
    const table = shardbench.table(list, { columns, noun: "point", empty: nothingText(told, entries),
      order: { get: () => site.query.get("sort"), set: (order) => site.set({ sort: order }, true) },
      open: (each) => (location.hash = historyLink(each)),
      csv: { name: `night-${told.day}.csv`, text: () => shardbench.csvOf(csvColumns, shown) } });

    function update(now) {
      bar.update(now);
      const selection = new Set(bar.selection(now));
      const left = entries.filter((each) => selection.has(each.row));
      const wanted = now.getAll("kind");
      replace(kinds, KINDS.filter((kind) => entries.some((each) => each.kind === kind)).map((kind) => kindButton(kind, left.filter((each) => each.kind === kind).length, wanted)));
      shown = shardbench.sortItems(left.filter((each) => !wanted.length || wanted.includes(each.kind)), columns, now.get("sort") || "kind");
      table.update(shown);
    }

    function kindButton(kind, count, wanted) {
      const on = wanted.includes(kind);
      return h("button", { type: "button", "aria-pressed": String(on), onclick: () => site.set({ kind: on ? wanted.filter((each) => each !== kind) : [...wanted, kind] }) },
        kindCell(kind), " ", h("small", null, count.toLocaleString("en-US")));
    }

    replace(verdict, verdictParts(told));
    root.append(machines(told), coverage(told, site), gone(told) || "");
    update(query);
    return update;
  }

  function kindCell(kind) {
    const tone = BAD.includes(kind) || kind.startsWith("still") ? "bad" : GOOD.includes(kind) ? "good" : kind === "suspected" || kind === "not judged" ? "warn" : null;
    return h("span", { class: tone }, kind);
  }

  function verdictParts(told) {
    const what = told.by_date ? `Rows of ${told.day}` : `Night of ${told.day}`;
    const tone = { worse: "bad", unknown: "warn", good: "good" }[told.state];
    const sentence = told.headline[0].toUpperCase() + told.headline.slice(1);
    const compared = told.nights > 1 ? `${counted(told.compared, "point")} compared over ${counted(told.nights, told.by_date ? "day" : "night")}.` : "One night alone shows no change.";
    return [h("h2", null, h("span", { class: `mark ${tone}`, "aria-hidden": "true" }, MARK[told.state]), what), h("p", { class: `headline ${tone}` }, `${sentence}.`),
      h("p", { class: "quiet" }, compared, told.young ? ` ${counted(told.young, "point")} have too few nights for a step.` : "",
        told.by_date ? " These are not nights but a store: its rows are told apart by the UTC date on which they were made." : " The same verdict as shardbench nightly gave, by the same rules.")];
  }

  function nothingText(told, entries) {
    if (entries.length) return "No point is left; remove a filter.";
    if (!told.compared) return "Nothing was compared, so nothing can be said.";
    return `None of ${counted(told.compared, "compared point")} changed.`;
  }

  function machines(told) {
    if (!told.machines.length) return h("section", null, h("h2", null, "Machines"), h("p", { class: "quiet" }, "No row was measured: compiled, predicted and published times belong to no machine."));
    const facts = (each) => [["last night", each.last + (each.last === told.day ? "" : ", none since")], ["nights", each.nights], ["points", each.points],
      ["smallest step", each.smallest === null ? "unknown" : `${(each.smallest * 100).toFixed(1)}% in two nights, with a probability of 95%`],
      ["commit", (each.git_sha || "unknown").slice(0, 12) + (each.git_dirty ? ", changed" : "")], ...Object.entries(each.versions)];
    return h("section", null, h("h2", null, "Machines"), h("div", { class: "cards" }, told.machines.map((each) => h("div", { class: "card" }, h("h3", null, each.machine),
      each.last === told.day && !each.compared && h("p", { class: "warn" }, "Nothing was compared on it this night."),
      h("dl", null, facts(each).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]))))));
  }

  function coverage(told, site) {
    const used = OUTCOMES.filter((outcome) => told.coverage.some((line) => line.outcomes[outcome]));
    const number = (value) => (value ? value.toLocaleString("en-US") : "");
    const line = (each) => h("tr", null, h("td", null, shardbench.badge(each.source)), h("td", null, h("a", { href: site.link("history", { source: each.source, engine: each.engine, hw: each.hw }) }, each.engine)),
      h("td", null, each.hw), h("td", { class: "figure" }, number(each.points)), used.map((outcome) => h("td", { class: "figure" }, number(each.outcomes[outcome]))));
    return h("section", null, h("h2", null, "Coverage"), h("p", { class: "quiet" }, "Points that were asked, and what became of them. Out of memory is an answer."),
      h("div", { class: "wide" }, h("table", { class: "lines" }, h("thead", null, h("tr", null, ["source", "engine", "chip"].map((head) => h("th", { scope: "col" }, head)),
        ["points", ...used].map((head) => h("th", { scope: "col", class: "figure" }, head)))), h("tbody", null, told.coverage.map(line)))));
  }

  function gone(told) {
    if (!told.gone.length) return null;
    return h("section", null, h("h2", null, "Asked before and no longer"), h("ul", null, told.gone.map((each) => h("li", null, `${counted(each.points, "point")}: the last answer is of ${each.day}`))));
  }

  shardbench.page({ name: "overview", title: "Overview", needs: ["rows", "overview", "history"], show });
})();
