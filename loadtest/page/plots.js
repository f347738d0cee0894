// Plots by uPlot: the axes and the grid are its own; marks, fronts and the tip at the pointer are drawn here.

const HEIGHT = 320

// Above this, names beside points are no help.
const NAMES_MAX = 14

const inkOf = () => getComputedStyle(document.body).color
const gridOf = () => getComputedStyle(byId("theme")).borderTopColor
const faintOf = () => getComputedStyle(byId("summary")).color

// A tick for each decade, and for 2 and 5 between them if there are few.
const logTicks = (u, splits) => {
  const decades = Math.log10(splits.at(-1) / splits[0])
  return splits.map((value) => {
    const mantissa = Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9))
    return mantissa === 1 || (decades < 2.5 && (mantissa === 2 || mantissa === 5)) ? value : null
  })
}
const log = {
  filter: logTicks, grid: { stroke: gridOf, width: 1, filter: logTicks }, ticks: { stroke: gridOf, width: 1, filter: logTicks },
  values: (u, splits) => splits.map((value) => (value === null ? null : short(value))),
}

// The range of values with room around it; a decade at least, so that there are ticks. uPlot counts them from the lower
// end, which is therefore one digit and noughts.
const roomAround = (values) => {
  const [least, most] = values.length ? [Math.min(...values), Math.max(...values)] : [1, 10]
  const widen = Math.max(1.5, Math.sqrt(10 / (most / least)))
  const decade = 10 ** Math.floor(Math.log10(least / widen))
  return [Math.floor(least / widen / decade) * decade, most * widen]
}

const axis = (label, further) => ({
  label, stroke: inkOf, grid: { stroke: gridOf, width: 1 }, ticks: { stroke: gridOf, width: 1 },
  font: "13px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", labelSize: 24, ...further,
})

// Draws a mark at a point of the scales.
const drawMark = (u, mark, x, y) => {
  const ratio = devicePixelRatio
  const path = new Path2D(mark.shape(u.valToPos(x, "x", true), u.valToPos(y, "y", true), 5.5 * ratio))
  u.ctx.lineWidth = 2 * ratio
  u.ctx.strokeStyle = colourOf(mark)
  u.ctx.fillStyle = mark.hollow ? getComputedStyle(document.body).backgroundColor : colourOf(mark)
  u.ctx.setLineDash([])
  u.ctx.fill(path)
  u.ctx.stroke(path)
}

// Writes the names beside their points, where there is room.
const drawNames = (u, items, place) => {
  const ratio = devicePixelRatio
  u.ctx.font = `${12 * ratio}px system-ui, sans-serif`
  u.ctx.fillStyle = inkOf()
  u.ctx.textBaseline = "middle"
  u.ctx.textAlign = "left"
  const taken = items.map((item) => [u.valToPos(place(item), "x", true), u.valToPos(item.latency, "y", true)])
    .map(([x, y]) => [x - 7 * ratio, y - 7 * ratio, x + 7 * ratio, y + 7 * ratio])
  const { left, top, width, height } = u.bbox
  for (const item of items) {
    const [x, y, length] = [u.valToPos(place(item), "x", true), u.valToPos(item.latency, "y", true), u.ctx.measureText(item.name).width]
    const half = 7 * ratio
    const places = [[x + 13 * ratio, y], [x - 13 * ratio - length, y], [x - length / 2, y - 19 * ratio], [x - length / 2, y + 19 * ratio]]
    const free = places.map(([from, at]) => [from, at - half, from + length, at + half]).find(([a, b, c, d]) =>
      a >= left && c <= left + width && b >= top && d <= top + height
      && taken.every(([left, top, right, bottom]) => c < left || a > right || d < top || b > bottom))
    if (!free) continue
    taken.push(free)
    u.ctx.fillText(item.name, free[0], free[1] + half)
  }
}

// Says what is near the pointer, of the points that `points()` gives as { x, y, text }: the nearest, and those under it.
const tip = (points) => (u) => {
  const box = u.root.querySelector(".tip") ?? u.over.appendChild(element("div", { class: "tip", hidden: "" }))
  const places = points().map((point) => ({ ...point, left: u.valToPos(point.x, "x"), top: u.valToPos(point.y, "y") }))
  const distance = (place, { left, top }) => Math.hypot(place.left - left, place.top - top)
  const near = places.filter((place) => distance(place, u.cursor) < 30)
  box.hidden = u.cursor.left < 0 || !near.length
  if (box.hidden) return
  const nearest = near.reduce((a, b) => (distance(b, u.cursor) < distance(a, u.cursor) ? b : a))
  const named = new Map(near.filter((place) => distance(place, nearest) < 8).map(({ name, text }) => [name, text]))
  box.textContent = [...named].map(([name, text]) => `${name}: ${text}`).join("\n")
  const over = u.over.getBoundingClientRect()
  box.style.left = `${Math.max(0, Math.min(nearest.left + 10, over.width - box.offsetWidth))}px`
  box.style.top = `${Math.max(0, nearest.top - box.offsetHeight - 10)}px`
}

// Draws, and leaves the pen as it was: uPlot does not set it again to what it was before, so the grid would have the colour of a mark.
const unchanged = (draws) => (u) => {
  u.ctx.save()
  for (const draw of draws) draw(u)
  u.ctx.restore()
}

// Width of a plot on A4, in CSS pixels.
const PAPER = 690

// A plot in a box: as wide as it is, and drawn again when that or the theme changes.
const plots = []
const plot = (box, label, options, data) => {
  const made = new uPlot({
    width: box.clientWidth, height: HEIGHT, legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false } }, ...options,
    hooks: { ...options.hooks, draw: [unchanged(options.hooks.draw)] },
  }, data, box)
  made.root.setAttribute("role", "img")
  made.root.setAttribute("aria-label", label)
  new ResizeObserver(() => {
    if (box.clientWidth !== made.width) made.setSize({ width: box.clientWidth, height: HEIGHT })
  }).observe(box)
  plots.push(made)
  return made
}

// Distributions: { mark, name, cdf: [[ms, %]], marks: [[ms, %]] } each, of which `isShown(index)` are drawn.
const drawDistributions = (box, curves, isShown) => {
  const tables = curves.map(({ cdf }) => {
    // Of several points at one time the last holds.
    const rising = [...new Map(cdf)]
    return [rising.map(([x]) => x), rising.map(([, y]) => y)]
  })
  const range = roomAround(tables.flatMap(([xs]) => xs))
  const points = () => curves.flatMap(({ name, cdf }, index) =>
    isShown(index) ? cdf.map(([x, y]) => ({ x, y, name, text: `${short(y)} % within ${short(x)} ms` })) : [])
  const draw = (u) => curves.forEach(({ mark, marks }, index) => {
    if (isShown(index)) for (const [x, y] of marks) drawMark(u, mark, x, y)
  })
  return plot(box, "Distribution of the latency of each strategy; the table has its percentiles", {
    scales: { x: { time: false, distr: 3, range: () => range }, y: { range: () => [0, 102] } },
    axes: [
      axis("latency, ms (log)", log),
      axis("deliveries within it, %", { size: 52 }),
    ],
    series: [{}, ...curves.map(({ mark }) => ({
      stroke: () => colourOf(mark), width: 2, dash: mark.dash, spanGaps: true, points: { show: false },
    }))],
    hooks: { draw: [draw], setCursor: [tip(points)] },
  }, tables.length ? uPlot.join(tables) : [[]])
}

// Trade-offs: { mark, name, cost, latency (ms) } each, of which `items()` are drawn, with a line along those that
// `front(items())` names and a ring around each of them. A log axis has no place for 0, so it is drawn at `least`.
const drawTradeOff = (box, label, unit, least, items, front) => {
  const unitOf = typeof unit === "function" ? unit : () => unit
  const place = ({ cost }) => Math.max(cost, least)
  const scale = (of) => () => roomAround(items().map(of))
  const points = () => items().map((item) => ({
    x: place(item), y: item.latency, name: item.name, text: `${short(item.cost)} ${unitOf()}, p95 ${short(item.latency)} ms`,
  }))
  const drawFront = (u) => {
    const ratio = devicePixelRatio
    u.ctx.lineWidth = 1.5 * ratio
    u.ctx.strokeStyle = faintOf()
    u.ctx.setLineDash([])
    u.ctx.beginPath()
    let above
    for (const item of front(items())) {
      const [x, y] = [u.valToPos(place(item), "x", true), u.valToPos(item.latency, "y", true)]
      // A step, because between two settings there is nothing.
      if (above !== undefined) u.ctx.lineTo(x, above)
      u.ctx.lineTo(x, y)
      above = y
    }
    u.ctx.stroke()
    for (const item of front(items())) {
      u.ctx.beginPath()
      u.ctx.arc(u.valToPos(place(item), "x", true), u.valToPos(item.latency, "y", true), 11 * ratio, 0, 2 * Math.PI)
      u.ctx.stroke()
    }
  }
  const draw = (u) => {
    drawFront(u)
    for (const item of items()) drawMark(u, item.mark, place(item), item.latency)
    if (items().length <= NAMES_MAX) drawNames(u, items(), place)
  }
  const data = () => {
    const rising = points().sort((a, b) => a.x - b.x)
    return [rising.map(({ x }) => x), rising.map(({ y }) => y)]
  }
  const caption = element("p", { class: "hint" })
  const describeFront = () => {
    caption.textContent = `On the front: ${front(items()).map(({ name }) => name).join(", ") || "nothing"}.`
  }
  const made = plot(box, label, {
    scales: { x: { time: false, distr: 3, range: scale(place) }, y: { distr: 3, range: scale(({ latency }) => latency) } },
    axes: [axis(`${unitOf()} (log)`, log), axis("p95 latency, ms (log)", { ...log, size: 64 })],
    series: [{}, { paths: () => null, points: { show: false } }],
    hooks: { draw: [draw], setCursor: [tip(points)] },
  }, data())
  box.after(caption)
  describeFront()
  return () => {
    made.axes[0].label = `${unitOf()} (log)`
    made.setData(data())
    describeFront()
  }
}

// Latencies that differ by less than this share are alike.
const ALIKE = 0.05

// What nothing beats in both cost and latency, by rising cost.
const frontOf = (items) => {
  let least = Infinity
  return items.toSorted((a, b) => a.cost - b.cost || a.latency - b.latency).filter(({ latency }) => {
    const better = latency < least * (1 - ALIKE)
    if (better) least = latency
    return better
  })
}
