// What the page shows of a run: its name, its figures with units, and its mark. Texts of the report reach the page by
// `textContent` alone, so that no name of a strategy can be markup.

const { verdict, command, report, sweep, day, networks } = JSON.parse(document.getElementById("data").textContent)
const byId = (id) => document.getElementById(id)
// What is drawn again when the theme changes.
const repaints = []
const number = (digits) => {
  const format = new Intl.NumberFormat("en", { maximumSignificantDigits: digits })
  return (value) => (Number.isFinite(value) ? format.format(value) : "–")
}
const short = number(3)
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 }).format
const milliseconds = (micros) => short(micros / 1000)
const percent = (share) => (Number.isFinite(share) ? `${short(share * 100)} %` : "–")

const OWN = "pollgate"
const nameOf = ({ server, strategy, transport }) => `${server === OWN ? "" : `${server} `}${strategy}${transport ? ` over ${transport}` : ""}`
const energyOf = (run, radio) => run.energy.find((energy) => energy.radio === radio)?.joulesPerClientHour

// A pair of Okabe and Ito's colours that differ for the colour-blind too, for a light and a dark page. Their yellow is
// left out: it cannot be seen on white.
const COLOURS = [
  ["#0072b2", "#4a9fdc"], ["#d55e00", "#f07d2a"], ["#009e73", "#2cc79a"], ["#cc79a7", "#e39cc4"],
  ["#c78500", "#e69f00"], ["#3f9fd8", "#8fd0f5"], ["#1b1f24", "#e4e7eb"],
]
const OWN_DASHES = [[], [10, 3, 2, 3], [1, 3]]
const RIVAL_DASHES = [[7, 4], [2, 3], [12, 4], [7, 3, 2, 3]]

// Markers around (x, y) as a path that SVG and the canvas both take.
const SHAPES = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`,
  (x, y, r) => `M${x} ${y - 1.2 * r}L${x + 1.2 * r} ${y + r}H${x - 1.2 * r}Z`,
  (x, y, r) => `M${x} ${y - 1.4 * r}L${x + 1.4 * r} ${y}L${x} ${y + 1.4 * r}L${x - 1.4 * r} ${y}Z`,
  (x, y, r) => `M${x} ${y + 1.2 * r}L${x + 1.2 * r} ${y - r}H${x - 1.2 * r}Z`,
  (x, y, r) => `M${x - r} ${y - r / 2}L${x} ${y - 1.3 * r}L${x + r} ${y - r / 2}V${y + r / 2}L${x} ${y + 1.3 * r}L${x - r} ${y + r / 2}Z`,
  (x, y, r) => {
    const t = r / 2.5
    return `M${x - r} ${y - t}h${r - t}v${t - r}h${2 * t}v${r - t}h${r - t}v${2 * t}h${t - r}v${r - t}h${-2 * t}v${t - r}h${t - r}Z`
  },
]

// Each form has its colour and shape, on every page and in every plot. Others' servers have those of the form, hollow and broken; a
// form's second and third setting have other dashes.
const formOf = (strategy) => (strategy.startsWith("push:") ? "push" : strategy.split(":")[0])
const FORMS = {
  "short-poll": [0, 0], "long-poll": [1, 1], sse: [2, 2], ndjson: [3, 3], websocket: [4, 4], mqtt: [5, 5], xmpp: [6, 6],
  push: [0, 3], sms: [1, 4], fallback: [6, 0],
}
const markOf = (server, strategy, setting = 0, rival = -1) => {
  const [colour, shape] = FORMS[formOf(strategy)] ?? [6, 1]
  return {
    colour: COLOURS[colour], shape: SHAPES[shape], hollow: server !== OWN,
    dash: server === OWN ? OWN_DASHES[setting % OWN_DASHES.length] : RIVAL_DASHES[Math.max(rival, 0) % RIVAL_DASHES.length],
  }
}
const marksOf = (runs) => {
  const rivals = [...new Set(runs.map((run) => run.server).filter((server) => server !== OWN))]
  return runs.map((run, index) => {
    const before = runs.slice(0, index).filter((other) => other.server === run.server && formOf(other.strategy) === formOf(run.strategy))
    return markOf(run.server, run.strategy, before.length, rivals.indexOf(run.server))
  })
}

const isDark = () => {
  const theme = document.documentElement.dataset.theme
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches
}
const colourOf = (mark) => mark.colour[isDark() ? 1 : 0]

// An element with attributes and children; a child that is no element is text.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))))
  return made
}

const svg = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

const swatchOf = (mark) => {
  const colour = colourOf(mark)
  const picture = svg("svg", { class: "swatch", viewBox: "0 0 38 16", "aria-hidden": "true" })
  picture.append(
    svg("path", { d: "M1 8H37", stroke: colour, "stroke-width": 2, "stroke-dasharray": mark.dash.join(" ") }),
    svg("path", { d: mark.shape(19, 8, 5), stroke: colour, "stroke-width": 2, fill: mark.hollow ? "var(--page)" : colour }),
  )
  return picture
}

const markedName = (mark, name) => element("span", { class: "marked" }, swatchOf(mark), element("span", {}, name))

// The head of a column, with its meaning as a tooltip.
const headOf = ([name, unit, meaning]) =>
  element("th", { scope: "col", title: meaning }, name, element("small", {}, typeof unit === "function" ? unit() : unit))
