"use strict";
/* Charts by plotly, in the colours of the theme; the four sources always have a shape and a colour of their own. */
(function () {
  const { h } = shardbench.dom;
  const SOURCES = ["measured", "compiled", "predicted", "published"];
  const SYMBOLS = { measured: "circle", compiled: "diamond", predicted: "square", published: "triangle-up" };
  const SHAPES = { measured: "●", compiled: "◆", predicted: "■", published: "▲" };
  /* Told apart by people who see no red or no green too: Okabe and Ito's colours, lighter ones on dark. */
  const PALETTE = {
    light: ["#0072b2", "#d55e00", "#009e73", "#aa4a8c", "#b8860b", "#3a86c8", "#7a5230", "#555555", "#5b3fa0", "#c2185b"],
    dark: ["#56b4e9", "#ff8c42", "#2fd39c", "#e38fc4", "#f0d24a", "#8ab8ff", "#c79a6b", "#bbbbbb", "#b39ddb", "#ff80ab"],
  };
  let loading = null;

  const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

  /* The colour of the n-th category; beyond the palette hues follow the golden angle. */
  function color(place) {
    const palette = PALETTE[theme()];
    if (place < palette.length) return palette[place];
    return `hsl(${Math.round((place * 137.508) % 360)} 60% ${theme() === "dark" ? 68 : 40}%)`;
  }

  const sourceColor = (source) => color(Math.max(0, SOURCES.indexOf(source)));

  /* A source's name with its shape in its colour. */
  const badge = (source) => h("span", { class: `source ${SOURCES.includes(source) ? source : ""}` }, h("i", { "aria-hidden": "true" }, SHAPES[source] || "○"), source || "");

  /* Text that plotly shows as it stands: it reads a few tags and entities. */
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("$", "&#36;");

  /* plotly, loaded when the first chart is drawn. */
  function library() {
    loading ||= new Promise((resolve, reject) => {
      const kept = document.getElementById("plotly"); // the page of one file has it as text
      const script = kept ? h("script", null, kept.textContent) : h("script", { src: "plotly.min.js" });
      script.addEventListener("load", () => resolve(window.Plotly));
      script.addEventListener("error", () => reject(new Error("plotly.min.js is not beside this page")));
      document.head.append(script);
      if (kept) resolve(window.Plotly);
    });
    return loading;
  }

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* An axis in the colours of the theme; `more` are plotly's own settings. */
  function axis(title, more) {
    return { title: { text: plain(title), standoff: 8 }, gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"),
      automargin: true, exponentformat: "power", ...more };
  }

  /* A layout in the colours of the theme, with plotly's own settings over it. */
  function layout(more) {
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--text"), family: css("--font"), size: 12 },
      margin: { l: 60, r: 16, t: 34, b: 48 }, showlegend: false, hovermode: "closest", dragmode: "pan", hoverlabel: { font: { family: css("--font") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent") },
      legend: { orientation: "h" }, ...more };
  }

  /* Draws or redraws a chart in an element; `on` has handlers of plotly's events (plotly_click, plotly_hover, ...). */
  async function plot(element, traces, its, on) {
    const plotly = await library();
    if (!element.isConnected) return;
    const config = { displaylogo: false, responsive: true, scrollZoom: true, modeBarButtonsToRemove: ["select2d", "lasso2d"],
      toImageButtonOptions: { format: "svg", filename: "shardbench" } };
    await plotly.react(element, traces, layout(its), config);
    if (element.dataset.on) return;
    element.dataset.on = "yes";
    for (const [name, handler] of Object.entries(on || {})) element.on(name, handler);
  }

  /* Whether this browser can draw many points at once. */
  function hasWebGL() {
    try {
      return Boolean(document.createElement("canvas").getContext("webgl"));
    } catch {
      return false;
    }
  }

  Object.assign(shardbench, { SOURCES, SYMBOLS, SHAPES, badge, color, sourceColor, plain, axis, plot, theme, hasWebGL });
})();
