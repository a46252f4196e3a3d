"use strict";
/* Elements made of text alone: what a row says never becomes markup. */
var shardbench = window.shardbench || {};

(function () {
  /* h("a", {href: "#", class: "x", onclick: f}, "text", [more], null): an element. Attributes that are null, undefined
     or false are left out; children are nodes, texts, numbers, lists of these, or null. */
  function h(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name === "value" || name === "checked" || name === "open") made[name] = value;
      else made.setAttribute(name, value === true ? "" : String(value));
    }
    return fill(made, ...children);
  }

  /* Adds children to an element; returns it. */
  function fill(element, ...children) {
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      element.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return element;
  }

  /* Puts children in the place of all that an element has; returns it. */
  function replace(element, ...children) {
    element.replaceChildren();
    return fill(element, ...children);
  }

  /* A link to an address that a row states; plain text unless it is one of the web. */
  function outside(text) {
    return /^https?:\/\/\S+$/i.test(text) ? h("a", { href: text, rel: "noopener noreferrer", target: "_blank" }, text) : text;
  }

  function download(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type: type || "text/csv;charset=utf-8" }));
    const link = h("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  }

  /* A button that copies a text, and says so. */
  function copyButton(text) {
    const button = h("button", { type: "button", class: "copy", onclick: copy }, "Copy");
    async function copy() {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = h("textarea", { value: text, class: "offscreen" }); // where no clipboard is to be had: file:// in some browsers
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    }
    return button;
  }

  /* A command in a box with a button that copies it. */
  const commandBox = (text) => h("div", { class: "command" }, h("code", { tabindex: 0 }, text), copyButton(text));

  /* A choice of [value, text] pairs. */
  function select(label, choices, chosen, onchange) {
    const options = choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text));
    const box = h("select", { onchange: () => onchange(box.value) }, options);
    return h("label", { class: "field" }, h("span", null, label), box);
  }

  function checkbox(label, checked, onchange) {
    const box = h("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
    return h("label", { class: "check" }, box, h("span", null, label));
  }

  /* A number with at least `digits` significant digits and no needless zeros, as tables in print have it. */
  function significant(value, digits) {
    if (!Number.isFinite(value)) return "";
    if (value === 0) return "0";
    const rounded = Math.abs(Number(value.toPrecision(digits)));
    if (rounded < 1e-4 || Math.abs(value) >= 1e9) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
    const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(rounded)));
    return value.toLocaleString("en-US", { maximumFractionDigits: decimals });
  }

  /* A number by a format of Python's: .4g, .1f. */
  function formatted(value, spec) {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    const digits = Number(spec.slice(1, -1));
    return spec.endsWith("f") ? value.toFixed(digits) : significant(value, digits);
  }

  /* Of a number that counts things: 1 row, 2 rows. */
  const counted = (number, noun) => `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;

  shardbench.dom = { h, fill, replace, outside, download, copyButton, commandBox, select, checkbox, significant, formatted, counted };
})();
