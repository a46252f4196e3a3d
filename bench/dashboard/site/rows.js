"use strict";
/* All rows as columns: what a cell is, which rows a filter leaves, and their CSV. */
(function () {
  const { formatted, significant } = shardbench.dom;
  const EMPTY = "(none)"; // how a filter and a legend call a cell without a value

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
    return bytes;
  }

  class Column {
    constructor(content, length) {
      Object.assign(this, content);
      this.length = length;
      this.numeric = content.kind === "number";
      this.coded = content.codes !== undefined;
    }

    /* Place of each row's value in `values`; null for a column of numbers without a dictionary. */
    get places() {
      if (!this.coded) return null;
      if (!this._places) {
        const bytes = bytesOf(this.codes).buffer;
        this._places = new { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array }[this.bits](bytes);
        this.codes = "";
      }
      return this._places;
    }

    /* The numbers as float64, NaN where there is none. */
    get data() {
      if (!this._data) {
        if (this.coded) {
          const values = Float64Array.from(this.values, (value) => (value === null ? NaN : value));
          this._data = Float64Array.from(this.places, (place) => values[place]);
        } else {
          this._data = new Float64Array(bytesOf(this.numbers).buffer);
          this.numbers = "";
        }
      }
      return this._data;
    }

    /* The value of a row in SI units: a number, a text, or null. */
    at(row) {
      if (this.coded) return this.values[this.places[row]];
      const value = this.data[row];
      return Number.isNaN(value) ? null : value;
    }

    /* The value as it is printed under the column's title. */
    show(row) {
      return this.print(this.at(row));
    }

    print(value) {
      if (value === null || value === undefined) return "";
      if (!this.numeric) return value;
      if (this.spec) return formatted(value * this.scale, this.spec);
      return Number.isInteger(value) ? String(value) : significant(value, 6);
    }

    /* Distinct values of some rows with how often they are, the most frequent first: [[value, count]]. */
    distinct(selection) {
      const counts = new Map();
      if (this.coded) {
        const places = this.places;
        const found = new Uint32Array(this.values.length);
        for (const row of selection) found[places[row]]++;
        found.forEach((count, place) => count && counts.set(this.values[place], count));
      } else {
        for (const row of selection) counts.set(this.at(row), (counts.get(this.at(row)) || 0) + 1);
      }
      return [...counts].sort((a, b) => b[1] - a[1] || compare(a[0], b[0]));
    }
  }

  /* Numbers by size, texts as a reader orders them, what is missing last. */
  const collator = new Intl.Collator("en", { numeric: true });
  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
  }

  /* Whether a value is in "a..b", either end of which may be left out, in SI units; null if that is no range. */
  function range(text, column) {
    const found = /^([^.]*(?:\.\d[^.]*)?)\.\.(.*)$/.exec(text);
    if (!found || !column.numeric) return null;
    const ends = [found[1], found[2]].map((end) => (end.trim() === "" ? null : Number(end)));
    if (ends.some((end) => Number.isNaN(end))) return null;
    const [low, high] = ends;
    return (value) => value !== null && (low === null || value >= low) && (high === null || value <= high);
  }

  class Rows {
    constructor(content) {
      this.length = content.length;
      this.columns = new Map(content.columns.map((each) => [each.name, new Column(each, content.length)]));
      this.point = content.point;
      this.all = Uint32Array.from({ length: this.length }, (_, row) => row);
    }

    column(name) {
      return this.columns.get(name);
    }

    at(name, row) {
      const column = this.columns.get(name);
      return column ? column.at(row) : null;
    }

    show(name, row) {
      const column = this.columns.get(name);
      return column ? column.show(row) : "";
    }

    /* The rows that filters leave: `filters` is a list of [column, [value, ...]], `search` words that all must be
       somewhere in a row's text. A value is a cell's text, EMPTY, or a range of numbers "1..8". */
    select(filters, search) {
      const keep = new Uint8Array(this.length).fill(1);
      for (const [name, wanted] of filters) {
        const column = this.columns.get(name);
        if (!column) {
          if (!wanted.includes(EMPTY)) keep.fill(0); // a column without any value is in no row
          continue;
        }
        const test = accepts(column, wanted);
        if (column.coded) {
          const good = column.values.map(test);
          const places = column.places;
          for (let row = 0; row < keep.length; row++) if (!good[places[row]]) keep[row] = 0;
        } else {
          for (let row = 0; row < keep.length; row++) if (keep[row] && !test(column.at(row))) keep[row] = 0;
        }
      }
      for (const word of (search || "").toLowerCase().split(/\s+/).filter(Boolean)) this._keepWord(keep, word);
      return this.all.filter((row) => keep[row]);
    }

    _keepWord(keep, word) {
      const found = new Uint8Array(this.length);
      for (const column of this.columns.values()) {
        if (column.numeric) continue;
        const good = column.values.map((value) => value !== null && value.toLowerCase().includes(word));
        if (!good.includes(true)) continue;
        const places = column.places;
        for (let row = 0; row < found.length; row++) if (good[places[row]]) found[row] = 1;
      }
      for (let row = 0; row < keep.length; row++) keep[row] &= found[row];
    }

    /* The rows in the order of a column ("-name" is descending); what has no value is last either way. */
    sorted(selection, order) {
      const column = order && this.columns.get(order.replace(/^-/, ""));
      if (!column) return selection;
      const sign = order.startsWith("-") ? -1 : 1;
      if (column.numeric) {
        const data = column.data;
        return Uint32Array.from(selection).sort((a, b) => {
          const [x, y] = [data[a], data[b]];
          if (x !== x || y !== y) return (x !== x) - (y !== y);
          return sign * (x - y);
        });
      }
      const ranks = new Float64Array(column.values.length);
      column.values.map((value, place) => [value, place]).sort((a, b) => compare(a[0], b[0]))
        .forEach(([value, place], rank) => (ranks[place] = value === null ? Infinity : sign * rank));
      const places = column.places;
      return Uint32Array.from(selection).sort((a, b) => {
        const [x, y] = [ranks[places[a]], ranks[places[b]]];
        return x === y ? a - b : x < y ? -1 : 1;
      });
    }

    /* The point in words. */
    label(row) {
      const cell = (name) => this.show(name, row);
      const where = `${cell("model")} on ${cell("num_chips")} ${cell("hw")}, ${cell("phase")}`;
      if (cell("phase") === "program") return where;
      const out = Number(this.at("output_len", row)) ? `, ${cell("output_len")} out` : "";
      const method = cell("method") && `, ${cell("method")}`;
      return `${where}, batch ${cell("batch_size")}, ${cell("input_len")} in${out}, ${cell("weight_dtype")}${method}`;
    }

    /* What tells this row from all others: point_id and created_at, and its number among those that share both. */
    key(row) {
      const name = (each) => `${this.at("point_id", each)} ${this.at("created_at", each)}`;
      if (!this._keys) {
        this._keys = new Map();
        for (const each of this.all) {
          const same = this._keys.get(name(each));
          if (same) same.push(each);
          else this._keys.set(name(each), [each]);
        }
      }
      const nth = this._keys.get(name(row)).indexOf(row);
      return { point_id: this.at("point_id", row), created_at: this.at("created_at", row), nth: nth || null };
    }

    /* The row of such a key, or null; without created_at the newest of its point. */
    find(key) {
      const chosen = ["point_id", "created_at"].filter((name) => key[name]).map((name) => [name, [key[name]]]);
      const found = chosen.length ? this.select(chosen, "") : [];
      const place = key.created_at ? Number(key.nth || 0) : found.length - 1;
      return found[place] ?? null;
    }

    /* A row as an address names the one that is pinned, and the row of such a text or null. */
    pin(row) {
      return JSON.stringify(Object.values(this.key(row)).filter((each) => each !== null));
    }

    pinned(text) {
      try {
        const [point_id, created_at, nth] = JSON.parse(text || "[]");
        return this.find({ point_id, created_at, nth });
      } catch {
        return null; // an address that somebody shortened
      }
    }

    /* Rows as CSV in SI units, under the rows' keys; an empty cell is no value. */
    csv(selection, names) {
      const known = names.filter((name) => this.columns.has(name));
      return csv(known, Array.from(selection, (row) => known.map((name) => this.at(name, row))));
    }
  }

  function accepts(column, wanted) {
    const ranges = wanted.map((each) => range(each, column)).filter(Boolean);
    const texts = new Set(wanted);
    return (value) => texts.has(textOf(value)) || ranges.some((inside) => inside(value));
  }

  /* A value as a filter in the address names it. */
  const textOf = (value) => (value === null ? EMPTY : String(value));

  function csv(head, lines) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [head, ...lines].map((line) => line.map(cell).join(",") + "\n").join("");
  }

  Object.assign(shardbench, { Rows, compare, csv, textOf, EMPTY });
})();
