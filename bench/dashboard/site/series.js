"use strict";
/* What pages about nights share: a point's history as bench/dashboard/history.py packs it, and ratios with intervals. */
(function () {
  const { significant } = shardbench.dom;

  /* The history at `place` of data/history.js, whole: lists of the same length as `rows`. */
  function series(data, rows, place) {
    const point = data.points[place];
    const last = point.rows[point.rows.length - 1];
    const latency = rows.column("latency_s");
    const none = point.rows.map(() => null);
    return {
      place, last, rows: point.rows, machine: point.machine || "", label: rows.label(last), source: rows.at("source", last),
      days: point.days.map((day) => data.days[day]), nights: point.days,
      times: point.times || point.rows.map((row) => latency?.at(row) ?? null),
      low: point.low || none, high: point.high || none, processes: point.processes || none,
      steps: point.steps || [], told: point.told || [],
    };
  }

  /* Places of the histories whose newest row is in a selection of rows. */
  function historiesOf(data, selection) {
    const chosen = new Set(selection);
    return data.points.map((_, place) => place).filter((place) => chosen.has(data.points[place].rows.at(-1)));
  }

  /* The point with what its label leaves out: engine, layout and machine. */
  function fullLabel(rows, row, machine) {
    const cell = (name) => (rows.columns.has(name) ? rows.show(name, row) : "");
    const layout = ["ffn_layout", "attn_sharding"].map(cell).filter((text) => text && text !== "auto");
    return [rows.label(row), ...layout, cell("engine"), machine || ""].filter(Boolean).join(", ");
  }

  /* The interval of new/old from those of both, as bench/dashboard/judged.py has it; null where neither is known. */
  function ratioInterval([old, lowOld, highOld], [now, lowNow, highNow]) {
    if (lowOld === null && lowNow === null) return null;
    const [a, b, c, d] = [lowOld ?? old, highOld ?? old, lowNow ?? now, highNow ?? now];
    const below = Math.hypot(Math.log(now / c), Math.log(b / old));
    const above = Math.hypot(Math.log(d / now), Math.log(old / a));
    return [(now / old) * Math.exp(-below), (now / old) * Math.exp(above)];
  }

  const ratioText = (ratio) => (ratio === null || ratio === undefined ? "" : ratio.toFixed(ratio !== 1 && Math.abs(ratio - 1) < 0.001 ? 5 : 3));
  const percent = (ratio) => `${ratio > 1 ? "+" : "−"}${significant(Math.abs(ratio - 1) * 100, 2)}%`;

  function median(values) {
    const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  /* A sorter of any items by columns of `shardbench.table`: what has no value is last either way. */
  function sortItems(items, columns, order) {
    const column = columns.find((each) => each.name === (order || "").replace(/^-/, ""));
    if (!column) return items;
    const sign = order.startsWith("-") ? -1 : 1;
    const of = (item) => column.value(item) ?? null;
    return [...items].sort((x, y) => {
      const [a, b] = [of(x), of(y)];
      return a === null || b === null ? (a === null) - (b === null) : sign * shardbench.compare(a, b);
    });
  }

  const csvOf = (columns, items) => shardbench.csv(columns.map((column) => column.name), items.map((item) => columns.map((column) => column.value(item))));

  Object.assign(shardbench, { series, historiesOf, fullLabel, ratioInterval, ratioText, percent, median, sortItems, csvOf });
})();
