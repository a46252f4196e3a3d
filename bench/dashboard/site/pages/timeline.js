"use strict";
/* Timeline: one turn of a compiled program's loop, drawn as lanes, where its time goes, and its trace for Perfetto. */
(function () {
  const { h, fill, replace, counted, significant, commandBox } = shardbench.dom;
  const LISTED = ["label", "traced", "engine", "ffn_layout", "attn_sharding", "collectives", "latency_s", "step_time_s", "mfu", "communication_s", "overlapped_s", "created_at"];
  const BARS = ["lane", "kind", "name", "start_s", "duration_s", "weight", "bytes", "latency_s"];
  const DARK = { "#333333": "#999999", "#7A5195": "#b08fd0" }; // colours that a dark page would swallow

  function show(root, query, site) {
    const rows = site.rows;
    const data = site.data.timeline;
    const traces = new Map(); // row → its programs with a trace, or with the reason that there is none
    for (const each of data.found) traces.set(each.row, [...(traces.get(each.row) || []), each]);
    const compiled = rows.select([["source", ["compiled"]], ["outcome", ["valid"]]], "");
    if (!compiled.length) {
      root.append(h("p", { class: "empty" }, "No valid compiled row is in this site. This makes one, with its trace:"),
        commandBox(`shardbench run model=palm-8b hw=tpu-v5e num_chips=4 phase=decode batch_size=16 engine=compiled ${where(data, "")}`));
      return undefined;
    }
    const filters = shardbench.filterBar(root, site);
    const [one, list] = [h("section"), h("div")];
    root.append(one, h("h2", null, "Compiled rows"), list);
    const isTraced = (row) => (traces.get(row) || []).some((each) => each.number !== null);
    const traced = { name: "traced", title: "trace", show: (row) => (isTraced(row) ? "yes" : ""), sortable: false };
    const columns = LISTED.flatMap((name) => (name === "traced" ? [traced] : shardbench.rowColumns(site, [name])));
    const table = shardbench.table(list, { columns, order: { get: () => site.query.get("sort"), set: (order) => site.set({ sort: order }, true) }, open: pin,
      csv: { name: "compiled.csv", text: () => rows.csv(left, [...rows.point, ...LISTED, "point_id"]) } });
    let left = compiled;
    let drawing = 0;

    function pin(row) {
      site.set({ pin: rows.pin(row) });
      scrollTo({ top: 0 });
    }

    function update(now) {
      filters.update(now);
      const among = new Set(compiled);
      left = rows.sorted(filters.selection(now).filter((row) => among.has(row)), now.get("sort"));
      table.update(left);
      const pinned = rows.pinned(now.get("pin"));
      const row = among.has(pinned) ? pinned : [...left].reverse().find(isTraced) ?? left[left.length - 1];
      draw(row);
    }

    async function draw(row) {
      const turn = ++drawing;
      if (row === undefined) return replace(one, h("p", { class: "empty" }, "No compiled row is left; remove a filter."));
      const whole = await site.details(row);
      if (turn !== drawing) return undefined;
      replace(one, h("div", { class: "row-head" }, h("h2", null, rows.label(row)), shardbench.badge(whole.source), h("a", { href: site.rowLink(row) }, "the whole row")));
      const of = traces.get(row) || [];
      const loops = (whole.details || {}).hot_loop || {};
      const told = [...new Set([...of.map((each) => each.phase), ...Object.keys(loops)])];
      const phases = told.length ? told : [whole.phase];
      for (const phase of phases) {
        const found = of.find((each) => each.phase === phase);
        if (phases.length > 1) one.append(h("h3", null, phase));
        if (found && found.number !== null) one.append(lanesOf(found, data, site));
        else one.append(h("p", { class: "quiet" }, absent(found, whole)), whole.command && commandBox(`${whole.command} ${where(data, rows.at("store", row))}`));
        if (loops[phase]) one.append(hotspots(loops[phase], phase));
      }
      return undefined;
    }

    update(query);
    return update;
  }

  function where(data, store) {
    const folder = store ? `${data.results_dir}/${store}` : data.results_dir;
    const word = (text) => (/^[\w./@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
    return `results_dir=${word(folder)} engine.trace_dir=${word(`${folder}/${data.folder}`)}`;
  }

  function absent(found, whole) {
    const reason = found ? `No trace is drawn: ${found.problem}.` : "This row was compiled without a trace.";
    return `${reason} ${whole.command ? "This makes it:" : whole.no_command}`;
  }

  /* The lanes of one turn, filled once its file is loaded. */
  function lanesOf(found, data, site) {
    const [lead, chart, legend] = [h("p", null, "…"), h("div", { class: "chart", role: "img", "aria-label": "Lanes of one turn: computation, copies, links; its CSV has the same bars" }), h("ul", { class: "legend" })];
    const box = h("div", null, lead, legend, chart);
    site.packed(`turns/${found.number}`).then((turn) => fillLanes(turn, lead, chart, legend, found, data, site))
      .catch((error) => replace(lead, h("span", { class: "error" }, error.message)));
    return box;
  }

  function fillLanes(turn, lead, chart, legend, found, data, site) {
    const [scale, unit] = turn.seconds < 2e-3 ? [1e6, "µs"] : [1e3, "ms"];
    const name = found.name.replace(/\.trace\.json\.gz$/, "");
    const times = turn.turns * turn.loops > 1 ? `One turn of the loop over layers, ${significant(scale * turn.seconds, 4)} ${unit}; it runs ${(turn.turns * turn.loops).toLocaleString("en-US")} times, `
      + `${(100 * turn.seconds * turn.turns * turn.loops / turn.whole_s).toFixed(1)}% of the program's ${significant(turn.whole_s, 4)} s. ` : `The whole program, ${significant(scale * turn.seconds, 4)} ${unit}. `;
    const trace = h("button", { type: "button", class: "trace", onclick: () => saveTrace(found, site) }, "Trace of the whole program");
    const table = h("button", { type: "button", onclick: () => shardbench.dom.download(`${name}.turn.csv`, csvOf(turn)) }, "CSV");
    replace(lead, times, shares(turn), h("br"), trace, " ", table, h("span", { class: "quiet" }, " Open the trace at ", h("a", { href: "https://ui.perfetto.dev", rel: "noopener noreferrer", target: "_blank" }, "ui.perfetto.dev"), " (Open trace file)."));
    const colour = (kind) => (shardbench.theme() === "dark" && DARK[data.colours[kind]]) || data.colours[kind] || "#999999";
    const kinds = Object.keys(data.colours).filter((kind) => turn.kinds.includes(kind));
    replace(legend, kinds.map((kind) => h("li", null, h("span", { class: "swatch", style: `background:${colour(kind)}` }), kind)));
    const bars = kinds.map((kind) => {
      const at = turn.kind.flatMap((each, place) => (turn.kinds[each] === kind ? [place] : []));
      return { type: "bar", orientation: "h", name: shardbench.plain(kind), x: at.map((place) => scale * turn.duration_s[place]), base: at.map((place) => scale * turn.start_s[place]), y: at.map((place) => turn.lane[place]),
        width: 0.8, marker: { color: colour(kind), line: { width: 0.5, color: "rgba(255,255,255,.6)" } }, text: at.map((place) => about(turn, place, kind, scale, unit)), textposition: "none", hovertemplate: "%{text}<extra></extra>" };
    });
    chart.style.height = `${110 + 34 * turn.lanes.length}px`;
    chart.style.minHeight = "0";
    const lanes = { tickvals: turn.lanes.map((_, place) => place), ticktext: turn.lanes.map(shardbench.plain), range: [turn.lanes.length - 0.5, -0.5], fixedrange: true, showgrid: false, zeroline: false };
    return shardbench.plot(chart, bars, { barmode: "overlay", dragmode: "zoom", xaxis: shardbench.axis(`time in the turn (${unit})`, { range: [0, scale * turn.seconds], zeroline: false }), yaxis: shardbench.axis("", lanes) })
      .then(() => { chart.dataset.points = turn.name.length; });
  }

  function about(turn, place, kind, scale, unit) {
    const seconds = turn.duration_s[place];
    const said = [turn.name[place], kind, `${significant(scale * seconds, 4)} ${unit}`];
    if (turn.bytes[place]) said.push(`${significant(turn.bytes[place] / 2 ** 20, 4)} MiB, ${significant(turn.bytes[place] / seconds / 1e9, 3)} GB/s`);
    if (turn.latency_s[place]) said.push(`of which latency ${significant(scale * turn.latency_s[place], 3)} ${unit}`);
    if (turn.weight[place] !== 1) said.push(`${significant(turn.weight[place], 3)} times a turn`);
    return said.map(shardbench.plain).join("<br>");
  }

  /* Where the time of the compute lane goes, the first of the lanes. */
  function shares(turn) {
    const seconds = new Map();
    turn.kind.forEach((kind, place) => {
      if (turn.lane[place] === 0) seconds.set(kind, (seconds.get(kind) || 0) + turn.duration_s[place] * turn.weight[place]);
    });
    const found = [...seconds].filter(([, each]) => each > 0).sort((a, b) => b[1] - a[1]);
    return `Its computation: ${found.map(([kind, each]) => `${turn.kinds[kind]} ${(100 * each / turn.seconds).toFixed(1)}%`).join(", ")}.`;
  }

  const csvOf = (turn) => shardbench.csv(BARS, turn.name.map((_, place) => BARS.map((key) => (key === "lane" ? turn.lanes[turn.lane[place]] : key === "kind" ? turn.kinds[turn.kind[place]] : turn[key][place]))));

  async function saveTrace(found, site) {
    const bytes = Uint8Array.from(atob(await site.load(`traces/${found.number}`)), (each) => each.charCodeAt(0));
    shardbench.dom.download(found.name, bytes, "application/gzip");
  }

  /* The instructions of the longest-running loop, by kind and the longest of them. */
  function hotspots(loop, phase) {
    const head = (texts) => h("tr", null, texts.map((text, place) => h("th", { scope: "col", class: place ? "figure" : null }, text)));
    const body = (spots, isKind) => spots.map((spot) => h("tr", null, h("th", { scope: "row" }, spot.name), [100 * spot.seconds / loop.seconds, 1e6 * spot.seconds].map((value) => h("td", { class: "figure" }, significant(value, 3))),
      h("td", { class: "figure" }, spot.bytes ? significant(spot.bytes / 2 ** 20, 3) : ""), h("td", { class: "figure" }, spot.bytes && spot.seconds ? significant(spot.bytes / spot.seconds / 1e9, 3) : ""), h("td", { class: "figure" }, isKind ? spot.count : spot.bound || "")));
    const made = (title, spots, isKind) => h("section", null, h("h3", null, title), h("div", { class: "wide" }, h("table", { class: "plain spots" }, h("thead", null, head(["", "% of a turn", "µs", "MiB", "GB/s", isKind ? "instructions" : "bound by"])), h("tbody", null, body(spots, isKind)))));
    const box = h("details", { open: true, class: "hotspots" }, h("summary", null, `Hotspots of ${phase}: ${counted(loop.turns, "turn")} of ${significant(1e6 * loop.seconds, 4)} µs, overlap ignored`));
    return fill(box, h("div", { class: "tables" }, made("By kind", loop.by_kind.slice(0, 12), true), made("Longest", loop.longest, false)));
  }

  shardbench.page({ name: "timeline", title: "Timeline", needs: ["rows", "timeline"], show });
})();
