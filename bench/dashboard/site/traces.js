"use strict";
/* Explorer's chart: from rows and a choice of figures to plotly's traces. */
(function () {
  const { counted } = shardbench.dom;
  const PANELS = 12; // of a facet, at once
  const SCALED = 12; // distinct numbers up to which each has a colour of its own
  const TRACES = 40; // categories up to which each has a trace, which plotly draws faster than points of many colours

  /* Rows that no other row beats in both figures, from the best x on; `best` says which way is better. */
  function frontier(indices, xs, ys, best) {
    const [a, b] = [best.x === "higher" ? -1 : 1, best.y === "higher" ? -1 : 1];
    const ordered = Array.from(indices).sort((i, j) => a * (xs[i] - xs[j]) || b * (ys[i] - ys[j]));
    const kept = [];
    let least = Infinity;
    for (const row of ordered) {
      if (b * ys[row] < least) {
        kept.push(row);
        least = b * ys[row];
      }
    }
    return kept;
  }

  /* {traces, layout, indices: rows of each trace, notes, categories: [[value, colour, count]], sources, points}. */
  function explorerTraces(rows, selection, choice) {
    const [x, y] = [rows.column(choice.x), rows.column(choice.y)];
    const [xs, ys] = [x.data, y.data];
    const usable = selection.filter((row) => xs[row] === xs[row] && ys[row] === ys[row] && (!choice.log.x || xs[row] > 0) && (!choice.log.y || ys[row] > 0));
    const colors = colorsOf(rows, usable, choice.color);
    const panels = panelsOf(rows, usable, choice);
    const found = { traces: [], indices: [], points: 0, categories: colors.categories, sources: new Set(), lines: 1, notes: notesOf(rows, selection, usable, choice, panels) };
    const axes = {};
    const columns = Math.min(panels.length, innerWidth < 900 ? 1 : panels.length > 4 ? 4 : 2);
    found.lines = Math.ceil(panels.length / columns);
    const titles = [];
    const methods = rows.column("method"); // a pruned model or a speculated token is no plain row's rival
    const methodOf = (row) => (methods ? methods.places[row] : 0);
    const kind = shardbench.hasWebGL() ? "scattergl" : "scatter";
    panels.forEach((panel, place) => {
      const number = place ? place + 1 : "";
      Object.assign(axes, axesOf(place, number, panels.length, columns, choice, x, y));
      if (panel.title !== null) titles.push({ text: shardbench.plain(panel.title), showarrow: false, xref: `x${number} domain`, yref: `y${number} domain`, x: 0.5, y: 1, yanchor: "bottom", xanchor: "center" });
      for (const [source, valid, color, of] of groups(rows, panel.rows, colors)) addPoints(found, of, source, valid, color, number);
      if (!choice.frontier) return;
      for (const [source, valid, , of] of groups(rows, panel.rows, { key: methodOf })) if (valid) addFrontier(found, of, source, number);
    });

    function addPoints(into, of, source, valid, color, number) {
      const symbol = shardbench.SYMBOLS[source] + (valid ? "" : "-open");
      const many = usable.length > 5000;
      const marker = { symbol, size: many ? 5 : 8, opacity: many ? 0.55 : 0.85, ...colors.marker(of, source, color) };
      into.traces.push({ type: kind, mode: "markers", x: pick(x, of), y: pick(y, of), marker, hoverinfo: "none", xaxis: `x${number}`, yaxis: `y${number}`, name: source });
      into.indices.push(of);
      into.points += of.length;
      into.sources.add(source);
    }

    function addFrontier(into, of, source, number) {
      const best = frontier(of, xs, ys, choice.best);
      if (best.length < 2) return;
      const method = methods && methods.at(best[0]);
      into.traces.push({ type: "scatter", mode: "lines", x: pick(x, best), y: pick(y, best), line: { shape: choice.best.x === "lower" ? "hv" : "vh", width: 1.5, color: shardbench.sourceColor(source), dash: method ? "dot" : "solid" },
        hoverinfo: "skip", xaxis: `x${number}`, yaxis: `y${number}`, name: `${source}${method ? `, ${method}` : ""}, Pareto frontier` });
      into.indices.push(best);
    }

    const coloraxis = colors.scale ? { coloraxis: { colorscale: "Viridis", colorbar: { title: { text: shardbench.plain(rows.column(choice.color).title) }, thickness: 12 } } } : {};
    return { ...found, layout: { ...axes, ...coloraxis, annotations: titles, uirevision: JSON.stringify([choice.x, choice.y, choice.log, choice.facet, choice.panel]) } };
  }

  /* Values of rows in the units of print. */
  const pick = (column, indices) => Float64Array.from(indices, (row) => column.data[row] * (column.scale || 1));

  function axesOf(place, number, panels, columns, choice, x, y) {
    const lines = Math.ceil(panels / columns);
    const [across, down] = [place % columns, Math.floor(place / columns)];
    const gap = { x: columns > 1 ? 0.03 : 0, y: lines > 1 ? 0.16 / lines + 0.04 : 0 };
    const domain = (at, of, space) => {
      const size = (1 - space * (of - 1)) / of;
      return [at * (size + space), at * (size + space) + size];
    };
    const last = place + columns >= panels;
    const make = (column, name, its, outer) => shardbench.axis(outer ? column.title : "", { type: choice.log[name] ? "log" : "linear", domain: its, anchor: `${name === "x" ? "y" : "x"}${number}`,
      showticklabels: outer, ...(panels > 1 ? { nticks: 5, minor: { nticks: 1 }, dtick: choice.log[name] ? 1 : null } : {}), ...(place ? { matches: name } : {}) });
    const vertical = domain(down, lines, gap.y).map((end) => 1 - end).reverse();
    return { [`xaxis${number}`]: make(x, "x", domain(across, columns, gap.x), last), [`yaxis${number}`]: make(y, "y", vertical, across === 0) };
  }

  /* Rows by source, whether they are valid, and colour: [[source, valid, colour, rows]], in the order of the sources. */
  function groups(rows, indices, colors) {
    const [sources, outcomes] = [rows.column("source"), rows.column("outcome")];
    const [of, told] = [sources.places, outcomes.places];
    const valid = outcomes.values.indexOf("valid");
    const found = new Map();
    for (const row of indices) {
      const color = colors.key(row);
      const key = (color * 2 + (told[row] === valid)) * sources.values.length + of[row];
      const same = found.get(key);
      if (same) same[3].push(row);
      else found.set(key, [sources.values[of[row]], told[row] === valid, color, [row]]);
    }
    const order = (group) => shardbench.SOURCES.indexOf(group[0]);
    return [...found.values()].sort((a, b) => order(a) - order(b));
  }

  /* The colour of rows: by source, by category, or along a scale of numbers; `key` tells apart what needs a trace each. */
  function colorsOf(rows, usable, name) {
    if (name === "source") return { categories: [], key: () => 0, marker: (_, source) => ({ color: shardbench.sourceColor(source) }) };
    const column = rows.column(name);
    const distinct = column.distinct(usable);
    if (column.numeric && distinct.length > SCALED) {
      return { categories: [], scale: true, key: () => 0, marker: (of) => ({ color: pick(column, of), coloraxis: "coloraxis" }) };
    }
    // By their order among all rows, so that a filter changes no colour.
    const order = column.distinct(rows.all).map(([value]) => value);
    const ranks = new Map(order.map((value, rank) => [value, rank]));
    const rankOf = column.coded ? column.values.map((value) => ranks.get(value)) : null;
    const key = (row) => (rankOf ? rankOf[column.places[row]] : ranks.get(column.at(row)));
    const categories = distinct.map(([value, count]) => [value, shardbench.color(ranks.get(value)), count]);
    if (distinct.length <= TRACES) return { categories, key, marker: (_, __, rank) => ({ color: shardbench.color(rank) }) };
    return { categories, key: () => 0, marker: (of) => ({ color: Array.from(of, (row) => shardbench.color(key(row))) }) };
  }

  function panelsOf(rows, usable, choice) {
    if (!choice.facet) return [{ title: null, rows: usable }];
    const column = rows.column(choice.facet);
    const values = column.distinct(usable).map(([value]) => value);
    const shown = values.slice(choice.panel * PANELS, (choice.panel + 1) * PANELS);
    const of = new Map(shown.map((value) => [value, []]));
    for (const row of usable) of.get(column.at(row))?.push(row);
    const panels = shown.map((value) => ({ title: `${column.title}: ${value === null ? shardbench.EMPTY : column.print(value)}`, rows: of.get(value) }));
    return panels.length ? panels : [{ title: null, rows: usable }];
  }

  /* What the chart leaves out, and why: nothing is dropped in silence. */
  function notesOf(rows, selection, usable, choice) {
    const left = selection.length - usable.length;
    const notes = [`${counted(usable.length, "point")}; hollow ones are not valid.`];
    if (!selection.length) return ["No row is left; remove a filter."];
    if (left) {
      const drawn = new Set(usable);
      const why = new Map();
      for (const row of selection) if (!drawn.has(row)) why.set(rows.at("outcome", row), (why.get(rows.at("outcome", row)) || 0) + 1);
      const zero = choice.log.x || choice.log.y ? " above zero" : "";
      notes.push(`${counted(left, "row")} without both figures${zero} not drawn: ${[...why].map(([outcome, count]) => `${count.toLocaleString("en-US")} ${outcome}`).join(", ")}.`);
    }
    if (choice.frontier) notes.push(`Lines: the Pareto frontier of the valid rows of each source${rows.column("method") ? " without a method; dotted, of each method" : ""}.`);
    return notes;
  }

  Object.assign(shardbench, { explorerTraces, frontier, PANELS });
})();
