"use strict";
/* Truth: predicted and compiled times over measured and published ones, and how often the stated intervals hold. */
(function () {
  const { h, replace, select, counted, significant } = shardbench.dom;
  const GROUPS = [["hw", "chip"], ["runtime", "runtime"], ["phase", "phase"], ["model", "model"], ["answer", "answer by"], ["reference", "reference"], ["system", "system"]];
  const MOST_INTERVALS = 300; // pairs up to which the chart has their intervals; more would hide the pairs
  const MOST_NAMED = 3000; // pairs up to which each says its point under the pointer; the texts of more take too long
  const FITTED = " Constants of the predictions were fitted to published times: the documentation's accuracy page has the errors of sources that were left out.";
  const TICKS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10];
  const percent = (value, digits = 1) => (value === null ? "" : `${(100 * value).toFixed(digits)}%`);
  const signed = (value) => (value === null ? "" : `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}%`);

  /* Every pair: the places of its rows, and what both together say. `inside` is null where there is no interval. */
  function pairsOf(data, rows) {
    const seconds = rows.column("latency_s")?.data;
    const [low, high] = ["latency_low_s", "latency_high_s"].map((name) => rows.column(name)?.data);
    return data.answers.map((answer, place) => {
      const reference = data.references[place];
      const both = [answer, reference].map((row) => rows.at("outcome", row));
      const pair = { answer, reference, runtime: data.runtimes[place], oom: null, ratio: null, inside: null, low: null, high: null };
      if (both.includes("out of memory")) return { ...pair, oom: both[0] === both[1] ? "hit" : both[1] === "valid" ? "false alarm" : "missed" };
      const real = seconds[reference];
      pair.ratio = seconds[answer] / real;
      if (low && high && low[answer] === low[answer] && high[answer] === high[answer]) {
        Object.assign(pair, { low: low[answer] / real, high: high[answer] / real, inside: low[answer] <= real && real <= high[answer] });
      }
      return pair;
    });
  }

  const quantile = (ordered, share) => {
    const at = share * (ordered.length - 1);
    const below = Math.floor(at);
    return ordered[below] + (at - below) * ((ordered[below + 1] ?? ordered[below]) - ordered[below]);
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  /* Statistics of pairs: as bench.rows.error_stats has them, and the share of intervals that reach the reference. */
  function statistics(pairs, band) {
    const timed = pairs.filter((pair) => pair.ratio !== null);
    const sizes = timed.map((pair) => Math.abs(pair.ratio - 1)).sort((a, b) => a - b);
    const ratios = timed.map((pair) => pair.ratio).sort((a, b) => a - b);
    const known = timed.filter((pair) => pair.inside !== null);
    const count = (what) => pairs.filter((pair) => pair.oom === what).length;
    const some = (value) => (timed.length ? value() : null);
    return { n: timed.length, ratio: some(() => quantile(ratios, 0.5)), bias: some(() => mean(timed.map((pair) => pair.ratio - 1))), mean: some(() => mean(sizes)),
      p90: some(() => quantile(sizes, 0.9)), worst: some(() => sizes[sizes.length - 1]), near: some(() => sizes.filter((size) => size <= band).length / sizes.length),
      intervals: known.length, covered: known.length ? known.filter((pair) => pair.inside).length / known.length : null,
      oom: ["hit", "missed", "false alarm"].map(count) };
  }

  function show(root, query, site) {
    const rows = site.rows;
    const { band } = site.data.truth;
    const all = pairsOf(site.data.truth, rows);
    if (!all.length) {
      root.append(h("p", { class: "empty" }, "No point of this site was both computed and observed. These commands make such rows from the published measurements: ",
        shardbench.dom.commandBox("shardbench run +sweep=published engine=[published,analytic]")));
      return undefined;
    }
    const [summary, controls, chart, note, groups, list] = ["p", "div", "div", "p", "div", "div"].map((tag) => h(tag));
    const legend = h("ul", { class: "legend" });
    summary.className = "lead";
    controls.className = "controls";
    Object.assign(chart, { className: "chart" });
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", "The answer over the observed latency of each pair; the tables below have the same pairs");
    note.className = "quiet";
    const filters = shardbench.filterBar(root, site);
    root.append(summary, controls, legend, chart, note, h("h2", null, "By group"), groups, h("h2", null, "Pairs"), list);
    let pairs = all;
    let shown = [];
    const byGroup = shardbench.table(groups, { columns: groupColumns(), noun: "group", csv: { name: "truth-groups.csv", text: () => csvOf(groupColumns(), shown) },
      order: orderOf("gsort"), open: (group) => group.filter && site.set(group.filter) });
    const ofPairs = shardbench.table(list, { columns: pairColumns(rows, site), noun: "pair", csv: { name: "truth.csv", text: () => csvOf(pairColumns(rows, site), sorted(pairs, pairColumns(rows, site), "sort")) },
      order: orderOf("sort"), open: (pair) => (location.hash = site.rowLink(pair.answer)) });

    function orderOf(key) {
      return { get: () => site.query.get(key), set: (order) => site.set({ [key]: order }, true) };
    }

    function sorted(items, columns, key) {
      const order = site.query.get(key);
      const column = order && columns.find((each) => each.name === order.replace(/^-/, ""));
      if (!column) return items;
      const sign = order.startsWith("-") ? -1 : 1;
      const missing = (value) => value === null || value === undefined;
      return [...items].sort((a, b) => {
        const [x, y] = [column.value(a), column.value(b)];
        return missing(x) || missing(y) ? missing(x) - missing(y) : sign * shardbench.compare(x, y);
      });
    }

    /* A pair meets a filter that either of its rows meets: source=published with engine=analytic is one of both. */
    function chosen(now) {
      const tests = shardbench.filtersOf(now, rows).map(([name, values]) => rows.select([[name, values]], ""));
      if (now.get("q")) tests.push(rows.select([], now.get("q")));
      const sets = tests.map((selection) => new Set(selection));
      return all.filter((pair) => sets.every((set) => set.has(pair.answer) || set.has(pair.reference)));
    }

    function update(now) {
      filters.update(now);
      pairs = chosen(now);
      const by = GROUPS.some(([name]) => name === now.get("by")) ? now.get("by") : "hw";
      const whole = statistics(pairs, band);
      replace(summary, sentence(whole, band));
      replace(controls, select("group by", GROUPS, by, (value) => site.set({ by: value })));
      shown = sorted(grouped(pairs, by), groupColumns(), "gsort");
      byGroup.update(shown);
      ofPairs.update(sorted(pairs, pairColumns(rows, site), "sort"));
      draw(by);
    }

    function grouped(of, by) {
      const found = new Map();
      for (const pair of of) {
        const name = groupOf(pair, by, rows);
        if (!found.has(name)) found.set(name, []);
        found.get(name).push(pair);
      }
      return [...found].sort((a, b) => b[1].length - a[1].length || shardbench.compare(a[0], b[0]))
        .map(([name, those]) => ({ name, filter: ["hw", "phase", "model", "system"].includes(by) ? { [by]: [shardbench.textOf(name)] } : null, ...statistics(those, band) }));
    }

    function draw(by) {
      const timed = pairs.filter((pair) => pair.ratio !== null);
      const order = [...new Set(all.map((pair) => groupOf(pair, by, rows)))].sort(shardbench.compare);
      const named = new Map(); // group → "source observed" → its pairs
      for (const pair of timed) {
        const name = groupOf(pair, by, rows);
        const kind = `${rows.at("source", pair.answer)} ${rows.at("source", pair.reference)}`;
        if (!named.has(name)) named.set(name, new Map());
        if (!named.get(name).has(kind)) named.get(name).set(kind, []);
        named.get(name).get(kind).push(pair);
      }
      const present = order.filter((name) => named.has(name));
      const seconds = rows.column("latency_s")?.data;
      const traces = [];
      const kept = [];
      for (const name of present) {
        const color = shardbench.color(order.indexOf(name));
        for (const [kind, of] of [...named.get(name)].sort()) {
          const [source, observed] = kind.split(" ");
          kept.push(of);
          const bars = timed.length <= MOST_INTERVALS ? { error_y: { type: "data", symmetric: false, thickness: 1, width: 0, color, array: of.map((pair) => (pair.high === null ? 0 : pair.high - pair.ratio)),
            arrayminus: of.map((pair) => (pair.low === null ? 0 : pair.ratio - pair.low)) } } : {};
          traces.push({ type: timed.length > 2000 && shardbench.hasWebGL() ? "scattergl" : "scatter", mode: "markers", name: source,
            x: of.map((pair) => seconds[pair.reference]), y: of.map((pair) => pair.ratio), ...bars, hovertemplate: timed.length <= MOST_NAMED ? "%{text}<extra></extra>" : "%{x} s: %{y:.3f} ×<extra></extra>",
            text: timed.length > MOST_NAMED ? null : of.map((pair) => shardbench.plain(`${rows.label(pair.reference)}: ${source} ${significant(pair.ratio, 4)} × ${observed}`)),
            marker: { color, symbol: shardbench.SYMBOLS[source] + (observed === "published" ? "-open" : ""), size: 8, line: { width: 1.5 } } });
        }
      }
      chart.hidden = !timed.length;
      const answers = new Set(timed.map((pair) => rows.at("source", pair.answer)));
      replace(legend, shardbench.SOURCES.filter((source) => answers.has(source)).map((source) => h("li", null, shardbench.SHAPES[source], " ", source)),
        present.map((name) => h("li", null, h("span", { class: "swatch", style: `background:${shardbench.color(order.indexOf(name))}` }), name ?? shardbench.EMPTY)));
      const oom = pairs.length - timed.length;
      const observed = new Set(timed.map((pair) => rows.at("source", pair.reference)));
      replace(note, timed.length ? `Grey: within ±${percent(band, 0)}. ${timed.length <= MOST_INTERVALS ? "Vertical lines: stated 80% intervals." : `Intervals are drawn of up to ${MOST_INTERVALS} pairs.`}${observed.has("published") ? " Hollow: over a published time." : ""}${observed.has("measured") ? " Filled: over a measured time." : ""}` : "No pair with two times is left; remove a filter.",
        timed.some((pair) => rows.at("source", pair.answer) === "predicted" && rows.at("source", pair.reference) === "published") && FITTED,
        oom > 0 && ` ${counted(oom, "pair")} with an out-of-memory answer not drawn.`, oom > 0 && ` ${outOfMemory(statistics(pairs, band))}`);
      if (!timed.length) return;
      const shapes = [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: 1 - band, y1: 1 + band, line: { width: 0 }, fillcolor: "rgba(128,128,128,.18)", layer: "below" },
        { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { width: 1, color: "rgba(128,128,128,.8)" }, layer: "below" }];
      const ends = timed.flatMap((pair) => [pair.ratio, pair.low ?? pair.ratio, pair.high ?? pair.ratio]);
      const few = Math.max(...ends) / Math.min(...ends) < 30 ? { tickvals: TICKS, ticktext: TICKS.map(String) } : {};
      shardbench.plot(chart, traces, { xaxis: shardbench.axis("observed latency (s)", { type: "log" }), yaxis: shardbench.axis("answer over observed", { type: "log", ...few }),
        shapes }, { plotly_click: clicked });
      chart.kept = kept;
      chart.dataset.points = timed.length;
    }

    const clicked = (event) => (location.hash = site.rowLink(chart.kept[event.points[0].curveNumber][event.points[0].pointNumber].answer));

    update(query);
    return update;
  }

  const outOfMemory = (of) => `Out of memory: ${of.oom[0]} told, ${of.oom[1]} missed, ${counted(of.oom[2], "false alarm")}.`;

  function sentence(of, band) {
    if (!of.n) return "";
    const covered = of.covered === null ? "None states an interval." : `The 80% intervals of ${counted(of.intervals, "answer")} hold the observed time in ${percent(of.covered, 0)}.`;
    return `${counted(of.n, "pair")}: median answer ${of.ratio.toFixed(3)} × the observed time, mean error ${percent(of.mean)}, ${percent(of.near, 0)} within ±${percent(band, 0)}. ${covered}`;
  }

  function groupOf(pair, by, rows) {
    if (by === "runtime") return pair.runtime;
    if (by === "answer") return rows.at("engine", pair.answer);
    if (by === "reference") return rows.at("source", pair.reference);
    return rows.at(by, pair.reference);
  }

  const figure = (name, title, print, formula) => ({ name, title, numeric: true, formula, value: (item) => item[name], show: (item) => (item[name] === null ? "" : print(item[name])) });

  function groupColumns() {
    return [{ name: "name", title: "group", value: (group) => group.name, show: (group) => group.name ?? shardbench.EMPTY }, figure("n", "pairs", String),
      figure("ratio", "median ratio", (value) => value.toFixed(3), "answer over observed latency"), figure("bias", "signed mean", signed, "mean of the signed relative errors"),
      figure("mean", "mean error", percent), figure("p90", "90% below", percent, "90th percentile of the relative errors"), figure("worst", "worst error", percent),
      figure("near", "within 10%", (value) => percent(value, 0)), figure("intervals", "with interval", String), figure("covered", "interval holds", (value) => percent(value, 0), "share of the observed times that lie in the stated 80% interval"),
      { name: "oom", title: "out of memory told / missed / false", value: (group) => group.oom.join(" / "), show: (group) => (group.oom.some(Boolean) ? group.oom.join(" / ") : "") }];
  }

  function pairColumns(rows, site) {
    const of = (name, title, value, more) => ({ name, title, value, show: (pair) => String(value(pair) ?? ""), ...more });
    const seconds = (name, title, side) => of(name, title, (pair) => rows.at("latency_s", pair[side]), { numeric: true, show: (pair) => rows.show("latency_s", pair[side]) });
    const badge = (side) => ({ show: (pair) => `■ ${rows.at("source", pair[side])}`, cell: (pair) => shardbench.badge(rows.at("source", pair[side])) });
    const columns = [of("answer", "answer", (pair) => rows.at("source", pair.answer), badge("answer")), of("engine", "engine", (pair) => rows.at("engine", pair.answer)), of("reference", "observed", (pair) => rows.at("source", pair.reference), badge("reference")),
      of("point", "point", (pair) => rows.label(pair.answer), { href: (pair) => site.rowLink(pair.answer) }), of("runtime", "runtime", (pair) => pair.runtime),
      seconds("answer_s", "answer (s)", "answer"), seconds("reference_s", "observed (s)", "reference"), { ...figure("ratio", "ratio", (value) => value.toFixed(3), "answer over observed latency") },
      of("inside", "in interval", (pair) => (pair.inside === null ? null : pair.inside ? "yes" : "no")), of("oom", "out of memory", (pair) => pair.oom),
      of("source_of_reference", "source", (pair) => rows.at("reference", pair.reference) ?? rows.at("host", pair.reference), { href: (pair) => site.rowLink(pair.reference) })];
    return columns;
  }

  const csvOf = (columns, items) => shardbench.csv(columns.map((column) => column.name), items.map((item) => columns.map((column) => column.value(item))));

  shardbench.page({ name: "truth", title: "Truth", needs: ["rows", "truth"], show });
})();
