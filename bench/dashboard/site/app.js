"use strict";
/* The shell: pages by the hash of the address, data on demand, theme and keys.

   A page is one script in pages/:

     shardbench.page({
       name: "explorer",          // its address is #/explorer?key=value&...
       title: "Explorer",         // in the navigation, in the order of PAGES below
       hidden: false,             // true: not in the navigation (Row)
       needs: ["rows"],           // data/<name>.js, loaded before show; "rows" also makes site.rows
       show(root, query, site) {  // fills the empty element `root`; may be async
         return (query) => {};    // optional: called instead of show when only the query changes
       },
     });

   query: URLSearchParams of the address. A key that is a column's name is a filter of it and may be repeated.
   site:
     title, about              of the site: about has counts of rows, damaged lines, the folder (data/site.js)
     data[name]                what `needs` names, as bench/dashboard/<name>.py made it
     rows                      a Rows (rows.js): at, show, select, sorted, distinct, label, csv
     query                     the present query
     set(changes, replace)     changes keys of the query ({x: "mfu", model: ["a", "b"], q: null}); replace: no history entry
     link(page, query)         the address of a page; query is a mapping, null values are left out
     rowLink(row)              the address of a row
     details(row)              a promise of the whole row, with `command` or `no_command`
     has(page), hasData(name)  whether there is such a page, such data

   Helpers, all of which keep hostile text as text: shardbench.dom (h, replace, select, download, commandBox, ...),
   filterBar (filters.js), table and rowColumns (table.js), plot, axis, badge, plain (plot.js). Text given to plotly goes
   through shardbench.plain. A page that has nothing to show says so in a sentence: shardbench.dom.h("p", ...). */
(function () {
  const { h, replace } = shardbench.dom;
  const PAGES = ["overview", "history", "explorer", "compare", "truth", "timeline", "row"];
  const pages = new Map();
  const loaded = new Map(); // name → promise of data
  const waiting = new Map(); // name → its resolve
  const site = { data: {}, rows: null, query: new URLSearchParams(), title: "", about: {} };
  let shown = null; // {page, update}
  let turn = 0; // of showing, so that a slow page does not overwrite a later one

  shardbench.page = (page) => pages.set(page.name, page);

  /* Called by data/<name>.js. */
  shardbench.data = (name, value) => waiting.get(name)?.(value);

  /* A promise of data/<name>.js, which is loaded once. */
  function load(name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((resolve, reject) => {
        const kept = document.getElementById(`data/${name}`); // the page of one file
        if (kept) return resolve(JSON.parse(kept.textContent));
        waiting.set(name, resolve);
        const script = h("script", { src: `data/${name}.js` });
        script.addEventListener("error", () => reject(new Error(`data/${name}.js is not beside this page; write the site again`)));
        document.head.append(script);
        return undefined;
      }));
    }
    return loaded.get(name);
  }

  async function unpacked(base64) {
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const chunks = new Map(); // place of a chunk → promise of its rows
  site.details = async (row) => {
    const place = Math.floor(row / site.about.chunk);
    if (!chunks.has(place)) chunks.set(place, load(`details/${place}`).then(unpacked));
    return (await chunks.get(place))[row % site.about.chunk];
  };
  site.link = (page, query) => {
    const found = new URLSearchParams();
    for (const [key, value] of Object.entries(query || {})) {
      for (const each of Array.isArray(value) ? value : [value]) if (each !== null && each !== undefined) found.append(key, each);
    }
    return `#/${page}${found.size ? `?${found}` : ""}`;
  };
  site.rowLink = (row) => site.link("row", site.rows.key(row));
  site.has = (page) => pages.has(page) && (pages.get(page).needs || []).every(site.hasData);
  site.hasData = (name) => (site.about.data || []).includes(name);
  site.set = (changes, keep) => {
    const query = new URLSearchParams(site.query);
    for (const [key, value] of Object.entries(changes)) {
      query.delete(key);
      for (const each of Array.isArray(value) ? value : [value]) if (each !== null && each !== undefined && each !== "") query.append(key, each);
    }
    const hash = `#/${shown.page.name}${query.size ? `?${query}` : ""}`;
    if (keep) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    return route();
  };

  const asked = () => {
    const [, name, query] = /^#\/([^?]*)\??(.*)$/.exec(location.hash) || [null, "", ""];
    return [name, new URLSearchParams(query)];
  };

  async function route(anew) {
    const [name, query] = asked();
    const page = pages.get(name) || pages.get(PAGES.find((each) => site.has(each) && !pages.get(each).hidden));
    site.query = query;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === page.name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (!anew && shown && shown.page === page && shown.update) return shown.update(query);
    const now = ++turn;
    const root = h("div", { class: `page ${page.name}` });
    const main = document.querySelector("main");
    try {
      const values = await Promise.all((page.needs || []).map(load));
      (page.needs || []).forEach((need, place) => (site.data[need] = values[place]));
      if (site.data.rows && !site.rows) site.rows = new shardbench.Rows(site.data.rows);
      if (now !== turn) return undefined;
      document.title = `${page.title} · ${site.title}`;
      replace(main, root);
      shown = { page, update: null };
      shown.update = (await page.show(root, query, site)) || null;
    } catch (error) {
      replace(main, h("p", { class: "error", role: "alert" }, `This page cannot be shown: ${error.message}`));
      console.error(error);
    }
    return undefined;
  }

  const KEYS = [["1 … 9", "the pages, in their order"], ["/", "search"], ["t", "dark or light"], ["?", "these keys"], ["Esc", "close a list"],
    ["↑ ↓ PgUp PgDn Home End", "in a table: move"], ["Enter", "in a table: open the row"]];
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input,select,textarea")) return;
    const links = [...document.querySelectorAll("nav a")];
    if (/^[1-9]$/.test(event.key) && links[event.key - 1]) location.hash = links[event.key - 1].getAttribute("href");
    else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
    else if (event.key === "t") turnTheme();
    else if (event.key === "?") document.querySelector("dialog").showModal();
    else return;
    event.preventDefault();
  }

  function turnTheme() {
    const next = shardbench.theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("shardbench-theme", next); } catch { /* a browser that keeps nothing for files */ }
    route(true);
  }

  function firstTheme() {
    let kept = null;
    try { kept = localStorage.getItem("shardbench-theme"); } catch { /* likewise */ }
    document.documentElement.dataset.theme = kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  shardbench.start = async () => {
    firstTheme();
    site.about = await load("site");
    site.title = site.about.title;
    const links = PAGES.filter((name) => site.has(name) && !pages.get(name).hidden)
      .map((name) => h("a", { href: `#/${name}`, "data-page": name }, pages.get(name).title));
    const keys = h("dialog", { "aria-label": "Keys" }, h("h2", null, "Keys"), h("dl", null, KEYS.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])),
      h("form", { method: "dialog" }, h("button", null, "Close")));
    const theme = h("button", { type: "button", title: "Dark or light (t)", "aria-label": "Dark or light", onclick: turnTheme }, "◐");
    const help = h("button", { type: "button", title: "Keys (?)", "aria-label": "Keys", onclick: () => keys.showModal() }, "?");
    replace(document.querySelector("header"), h("h1", null, site.title), h("nav", { "aria-label": "Pages" }, links), h("div", { class: "tools" }, theme, help), keys);
    replace(document.querySelector("footer"), site.about.summary, site.about.damaged.length > 0 && h("details", { class: "damaged" },
      h("summary", null, `${shardbench.dom.counted(site.about.damaged.length, "damaged row")} left out`), h("ul", null, site.about.damaged.map((line) => h("li", null, line)))));
    addEventListener("hashchange", () => route());
    addEventListener("keydown", onKey);
    if (site.about.rows === 0) return replace(document.querySelector("main"), h("p", { class: "empty" }, site.about.empty));
    return route();
  };
})();
