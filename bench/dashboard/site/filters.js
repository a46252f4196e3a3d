"use strict";
/* The bar of filters: any column, by its values or a range, kept in the address. */
(function () {
  const { h, replace, counted } = shardbench.dom;
  const USUAL = ["source", "model", "hw", "engine", "runtime", "phase", "ffn_layout", "attn_sharding", "weight_dtype", "outcome"];
  const MOST_LISTED = 300; // values of an open list; the box above it finds the others

  /* The filters that an address has: [[column, [value, ...]], ...]. */
  function filtersOf(query, rows) {
    const names = [...new Set(query.keys())].filter((name) => rows.columns.has(name) || USUAL.includes(name));
    return names.map((name) => [name, query.getAll(name)]);
  }

  /* Fills `root` with the bar and calls `changed()` after the address has changed.
     Returns {selection(query), update(query)}: the rows that are left, and the bar drawn anew. */
  function filterBar(root, site) {
    const rows = site.rows;
    const bar = h("div", { class: "filters", role: "group", "aria-label": "Filters" });
    const search = h("input", { type: "search", placeholder: "Search all text  ( / )", "aria-label": "Search all text", class: "search" });
    let waiting = 0;
    search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => site.set({ q: search.value || null }, true), 120);
    });
    root.append(bar);
    let open = null; // the column whose list is open
    let opened = new Set(); // columns that were added to the bar and have no value yet

    function update(query) {
      const filters = new Map(filtersOf(query, rows));
      if (document.activeElement !== search) search.value = query.get("q") || "";
      const usual = USUAL.filter((name) => rows.column(name)?.distinct(rows.all).length > 1 || filters.has(name));
      const names = [...new Set([...usual, ...filters.keys(), ...opened])];
      const others = [...rows.columns.keys()].filter((name) => !names.includes(name)).sort();
      const more = h("select", { "aria-label": "Filter by another column", onchange: () => add(more.value) },
        h("option", { value: "" }, "More filters…"), others.map((name) => h("option", { value: name }, rows.column(name).title)));
      const clear = h("button", { type: "button", onclick: () => { opened.clear(); site.set(Object.fromEntries([...filters.keys(), "q"].map((name) => [name, null]))); } }, "Clear");
      const children = [search, names.map((name) => facet(name, filters.get(name) || [], query)), others.length ? more : null,
        filters.size || query.get("q") ? clear : null];
      const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      if (document.activeElement === search) replaceKeeping(bar, search, children);
      else replace(bar, children);
      if (focused) bar.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }

    function add(name) {
      if (!name) return;
      opened.add(name);
      open = name;
      update(site.query);
      bar.querySelector(`[data-key="${CSS.escape(name)}"]`)?.focus();
    }

    function facet(name, chosen, query) {
      const column = rows.column(name);
      const title = column ? column.title : name;
      const text = chosen.length === 0 ? title : `${title}: ${chosen.length === 1 ? shorten(chosen[0]) : chosen.length}`;
      const list = h("div", { class: "popup" });
      const box = h("details", { class: chosen.length ? "facet chosen" : "facet", open: open === name, ontoggle: toggled },
        h("summary", { "data-key": name }, text), list);
      function toggled() {
        if (box.open) {
          open = name;
          for (const other of bar.querySelectorAll("details[open]")) if (other !== box) other.open = false;
          if (!list.firstChild) replace(list, values(name, column, chosen, query));
        } else if (open === name) open = null;
      }
      if (open === name) replace(list, values(name, column, chosen, query));
      box.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        box.open = false;
        box.querySelector("summary").focus();
        event.stopPropagation();
      });
      return box;
    }

    function values(name, column, chosen, query) {
      if (!column) return h("p", { class: "quiet" }, "No row has a value here.");
      const others = filtersOf(query, rows).filter(([other]) => other !== name);
      const counts = column.distinct(rows.select(others, query.get("q")));
      for (const text of chosen) if (!counts.some(([value]) => shardbench.textOf(value) === text) && !text.includes("..")) counts.push([text, 0]);
      const find = h("input", { type: "search", placeholder: "Find a value", "aria-label": `Find a value of ${column.title}`, "data-key": `${name} find` });
      const list = h("div", { class: "values" });
      const draw = () => {
        const wanted = find.value.toLowerCase();
        const shown = counts.filter(([value]) => shown_(column, value).toLowerCase().includes(wanted));
        replace(list, shown.slice(0, MOST_LISTED).map(([value, count]) => item(name, column, value, count, chosen)),
          shown.length > MOST_LISTED && h("p", { class: "quiet" }, `${counted(shown.length - MOST_LISTED, "more value")}; type above to find them.`));
      };
      find.addEventListener("input", draw);
      draw();
      return [counts.length > 8 && find, column.numeric && rangeBox(name, column, chosen), list];
    }

    function item(name, column, value, count, chosen) {
      const text = shardbench.textOf(value);
      const box = h("input", { type: "checkbox", checked: chosen.includes(text), "data-key": `${name} ${text}`,
        onchange: () => site.set({ [name]: box.checked ? [...chosen, text] : chosen.filter((each) => each !== text) }) });
      return h("label", { class: "value" }, box, h("span", null, shown_(column, value)), h("small", null, count.toLocaleString("en-US")));
    }

    function rangeBox(name, column, chosen) {
      const now = /^(.*?)\.\.(.*)$/.exec(chosen.find((each) => each.includes("..")) || "..");
      const scale = column.scale || 1; // the address has SI units, the boxes those of print
      const shown = (text) => (text === "" ? "" : String(Number((Number(text) * scale).toPrecision(12))));
      const ends = [now[1], now[2]].map((text, place) => h("input", { type: "number", step: "any", value: shown(text),
        "aria-label": `${column.title} ${place ? "to" : "from"}`, "data-key": `${name} ${place}`, onchange: apply }));
      function apply() {
        const text = ends.map((end) => (end.value === "" ? "" : String(Number(end.value) / scale))).join("..");
        site.set({ [name]: [...chosen.filter((each) => !each.includes("..")), ...(text === ".." ? [] : [text])] });
      }
      return h("div", { class: "range" }, ends[0], " to ", ends[1], h("small", null, column.unit || ""));
    }

    document.addEventListener("click", (event) => {
      if (!bar.isConnected || bar.contains(event.target) || !event.target.isConnected) return;
      for (const each of bar.querySelectorAll("details[open]")) each.open = false;
    });
    return { update, focus: () => search.focus(), selection: (query) => rows.select(filtersOf(query, rows), query.get("q")) };
  }

  const shown_ = (column, value) => (value === null ? shardbench.EMPTY : typeof value === "string" ? value : column.print(value));
  const shorten = (text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text);

  /* Puts `children` (the first of which is `kept`, already in the bar) in place without moving it, so that it stays focused. */
  function replaceKeeping(bar, kept, children) {
    for (const child of [...bar.childNodes]) if (child !== kept) child.remove();
    shardbench.dom.fill(bar, ...children.flat(Infinity).filter((child) => child !== kept));
  }

  /* How many of the rows are what, by source: out of memory is an answer of its own, not an invalid one. */
  function outcomes(site, selection) {
    const rows = site.rows;
    const counts = new Map();
    for (const row of selection) {
      const source = rows.at("source", row);
      if (!counts.has(source)) counts.set(source, new Map());
      const of = counts.get(source);
      const outcome = rows.at("outcome", row);
      of.set(outcome, (of.get(outcome) || 0) + 1);
    }
    const order = ["valid", "not valid", "out of memory", "unsupported", "failed", "timeout"];
    return h("ul", { class: "counts" }, shardbench.SOURCES.filter((source) => counts.has(source)).map((source) =>
      h("li", null, shardbench.badge(source), " ", order.filter((each) => counts.get(source).has(each))
        .map((each) => `${counts.get(source).get(each).toLocaleString("en-US")} ${each}`).join(", "))));
  }

  Object.assign(shardbench, { filterBar, filtersOf, outcomes });
})();
