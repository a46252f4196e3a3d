"use strict";
/* A table of any length: only what is in view is in the page. Sorting, keys, CSV of what is shown. */
(function () {
  const { h, replace, fill, counted, download } = shardbench.dom;
  const HEIGHT = 30; // of a row, in CSS pixels; style.css has the same
  const SPARE = 12; // rows drawn above and below what is in view
  const SAMPLE = 300; // rows that the widths of columns are taken from

  /* A table in `root`.

     columns: [{name, title, numeric, show(item) → text, value(item) → for CSV, href(item)?, cell(item)? → node}]
     order: {get() → "name" or "-name" or null, set(text)}; without it heads are no buttons
     open(item): Enter or a click on a row; csv: {name, text()}: adds a button that saves it.
     Returns {update(items)}; items are whatever the columns read, in an array or typed array. */
  function table(root, { columns, order, open, csv, noun = "row", empty = "No row is left; remove a filter." }) {
    let items = [];
    let current = -1;
    const head = h("tr");
    const group = h("colgroup");
    const above = h("tbody", { "aria-hidden": "true" });
    const body = h("tbody");
    const below = h("tbody", { "aria-hidden": "true" });
    const made = h("table", { class: "data" }, group, h("thead", null, head), above, body, below);
    const view = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table of ${noun}s; arrow keys move, Enter opens` }, made);
    const caption = h("span", { class: "quiet" });
    const nothing = h("p", { class: "quiet", hidden: true }, empty);
    const save = csv && h("button", { type: "button", class: "csv", onclick: () => download(csv.name, csv.text()) }, "CSV");
    fill(root, h("div", { class: "above-table" }, caption, save), nothing, view);

    function update(found) {
      items = found;
      current = -1;
      caption.textContent = counted(items.length, noun);
      nothing.hidden = items.length > 0;
      view.hidden = items.length === 0;
      made.setAttribute("aria-rowcount", items.length + 1);
      heads();
      view.scrollTop = 0;
      draw();
    }

    function heads() {
      const sorted = order && order.get();
      const focused = head.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      replace(head, columns.map((column) => {
        const name = sorted && sorted.replace(/^-/, "");
        const direction = name !== column.name ? null : sorted.startsWith("-") ? "descending" : "ascending";
        const mark = { ascending: " ▲", descending: " ▼" }[direction] || "";
        const turn = () => order.set(direction === "ascending" ? `-${column.name}` : direction === "descending" ? null : column.name);
        const text = order && column.sortable !== false ? h("button", { type: "button", onclick: turn, "data-key": column.name }, column.title + mark) : column.title;
        return h("th", { scope: "col", class: column.numeric ? "figure" : null, "aria-sort": direction, title: column.formula || column.title }, text);
      }));
      if (focused) head.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
      const sample = Array.from(items.slice(0, SAMPLE));
      const widths = columns.map((column) => Math.min(48, Math.max(5, column.title.length + 3, ...sample.map((item) => column.show(item).length + 2))));
      replace(group, widths.map((width) => h("col", { style: `width:${width}ch` })));
      made.style.width = `${widths.reduce((sum, width) => sum + width, 0)}ch`;
    }

    function draw() {
      const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - SPARE);
      const last = Math.min(items.length, Math.ceil((view.scrollTop + (view.clientHeight || 600)) / HEIGHT) + SPARE);
      replace(above, spacer(first));
      replace(below, spacer(items.length - last));
      const lines = [];
      for (let place = first; place < last; place++) lines.push(line(place));
      replace(body, lines);
    }

    const spacer = (rows) => rows > 0 && h("tr", null, h("td", { colspan: columns.length, style: `height:${rows * HEIGHT}px;padding:0;border:0` }));

    function line(place) {
      const item = items[place];
      const cells = columns.map((column) => {
        const text = column.show(item);
        const href = column.href && column.href(item);
        const inside = column.cell ? column.cell(item) : href ? h("a", { href, tabindex: -1 }, text) : text;
        return h("td", { class: column.numeric ? "figure" : null, title: text.length > 20 ? text : null }, inside);
      });
      const pick = (event) => { if (open && !event.target.closest("a,button")) { move(place); open(item); } };
      return h("tr", { "aria-rowindex": place + 2, class: place === current ? "current" : null, onclick: pick }, cells);
    }

    function move(place) {
      current = Math.max(0, Math.min(items.length - 1, place));
      const top = current * HEIGHT;
      if (top < view.scrollTop) view.scrollTop = top;
      else if (top + 3 * HEIGHT > view.scrollTop + view.clientHeight) view.scrollTop = top + 3 * HEIGHT - view.clientHeight;
      draw();
    }

    view.addEventListener("scroll", draw);
    view.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(view.clientHeight / HEIGHT) - 2);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -items.length, End: items.length };
      if (event.target !== view || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) move(current + steps[event.key]);
      else if (event.key === "Enter" && current >= 0 && open) open(items[current]);
      else return;
      event.preventDefault();
    });
    return { update };
  }

  /* Columns of rows for `table`, by their names; a link on `linked` opens the row. */
  function rowColumns(site, names, linked) {
    const rows = site.rows;
    return names.filter((name) => name === "label" || rows.columns.has(name)).map((name) => {
      if (name === "label") {
        return { name, title: "point", show: (row) => rows.label(row), href: (row) => site.rowLink(row), sortable: false };
      }
      const column = rows.column(name);
      return { name, title: column.title, formula: column.formula, numeric: column.numeric, show: (row) => column.show(row),
        cell: name === "source" ? (row) => shardbench.badge(column.at(row)) : null,
        href: name === linked ? (row) => site.rowLink(row) : null };
    });
  }

  Object.assign(shardbench, { table, rowColumns });
})();
