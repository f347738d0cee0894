// Puts the figures on the page: the verdict, the table, legend, plots, bars, sweep, and how they were made.

const { runs, workload, machine } = report ?? { runs: [], workload: {}, machine: networks?.machine }
const marks = marksOf(runs)
const shown = runs.map(() => true)
const radios = [...new Set(runs.flatMap((run) => run.energy.map(({ radio }) => radio)))]
let radio = radios[0]

const kilobytes = (bytes) => (bytes ?? NaN) / 1000
const signed = (share) => (share === null ? "–" : `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`)
const memoryOf = ({ serverCost: cost }) => {
  const sum = cost && kilobytes(cost.userBytesPerClient) + kilobytes(cost.kernelBytesPerClient)
  return Number.isFinite(sum) ? sum : undefined
}
const batteryOf = (run) => run.energy.find((energy) => energy.radio === radio)?.batteryPerDay
const MICROS = 1000

// Name, unit, meaning, text, whether it is bad; then the name of the figure in the report, if strategies are ranked by it, and the
// divisor of its range.
const USUAL = [
  ["p50", "ms", "Half of the messages arrive within it, from the intended publish time to the receipt", ({ latency }) => milliseconds(latency?.p50), null, "p50", MICROS],
  ["p99", "ms", "99 of 100 messages arrive within it", ({ latency }) => milliseconds(latency?.p99), null, "p99", MICROS],
  ["lost", "messages", "Messages that did not arrive", ({ deliveries: d }) => whole(d.lost), ({ deliveries: d }) => d.lost > 0],
  ["requests", "a client-hour", "Requests of one client in an hour", ({ requests }) => whole(requests.perClientHour), null, "requests", 1],
  ["server CPU", "µs a client-second", "Processor time of the server for one client in a second", ({ serverCost }) => short(serverCost?.cpuPerClientSecond), null, "cpu", 1],
  ["memory", "kB a client", "Memory of the server for one client, with the kernel's buffers", (run) => short(memoryOf(run)), null, "memory", 1000],
  ["battery", () => `a day, ${radio}`, "Share of a 4000 mAh, 3.85 V battery that this radio takes in a day for this client alone", (run) => percent(batteryOf(run)), null, "battery", 0.01],
]
const FURTHER = [
  ["delivered", "of intended", "Messages that arrived, each counted once", ({ deliveries: d }) => `${whole(d.delivered)} / ${whole(d.intended)}`],
  ["duplicated", "", "Messages that arrived again", ({ deliveries: d }) => whole(d.doubled), ({ deliveries: d }) => d.doubled > 0],
  ["out of order", "", "Messages that arrived after a later one", ({ deliveries: d }) => whole(d.outOfOrder), ({ deliveries: d }) => d.outOfOrder > 0],
  ...["p90", "p95", "p999", "max"].map((name) =>
    [name === "p999" ? "p99.9" : name, "ms", "Further percentiles of the latency", ({ latency }) => milliseconds(latency?.[name])]),
  ["empty", "a client-hour", "Requests whose response held no message", ({ requests }) => whole(requests.emptyPerClientHour)],
  ["requests", "a delivery", "Requests for each message that arrived", ({ requests }) => short(requests.perDelivery ?? NaN)],
  ...(runs.some(({ wakes }) => wakes) ? [
    ["wakes", "a client-hour", "Wakes of a client that sleeps", ({ wakes }) => (wakes ? whole(wakes.perClientHour) : "–")],
    ["wake to poll p50", "ms", "From the arrival of a wake to the response of the poll after it", ({ wakes }) => milliseconds(wakes?.toPollP50)],
    ["wake to poll p99", "ms", "The 99th percentile of it", ({ wakes }) => milliseconds(wakes?.toPollP99)],
  ] : []),
  ["up", "kB a client-hour", "Bytes from one client, with the headers of packets", ({ bytes }) => short(bytes.upWithPackets / 1000)],
  ["down", "kB a client-hour", "Bytes to one client, with the headers of packets", ({ bytes }) => short(bytes.downWithPackets / 1000)],
  ["connections", "opened", "TCP connections of all clients", ({ connections }) => whole(connections)],
  ["opening", "bytes a connection", "Bytes of a connection until its client is ready, both ways, with the headers of packets", ({ opening }) => short(opening?.bytes ?? NaN)],
  ["opening", "µs a client", "Processor time of the server until a client is ready", ({ opening }) => short(opening?.cpu ?? NaN)],
  ["server CPU", "µs a delivery", "Processor time of the server for each message that arrived", ({ serverCost }) => short(serverCost?.cpuPerDelivery ?? NaN)],
  ["user memory", "kB a client", "Memory of the server's process for one client", ({ serverCost }) => short(kilobytes(serverCost?.userBytesPerClient))],
  ["kernel memory", "kB a client", "The kernel's socket buffers for one client", ({ serverCost }) => short(kilobytes(serverCost?.kernelBytesPerClient))],
  ...radios.map((radio) => [radio, "J a client-hour", "Energy of this radio above sleep, if nothing else wakes it", (run) => short(energyOf(run, radio))]),
  ["requests", "by formula", "Requests by formula, and how far the measured ones are from it", ({ prediction: p }) => (p ? `${whole(p.requestsPerClientHour)} (${signed(p.requestsDeviation)})` : "")],
  ["mean latency", "ms by formula", "Mean latency by formula, and how far the measured one is from it", ({ prediction: p }) => (p ? `${milliseconds(p.meanLatency)} (${signed(p.latencyDeviation)})` : "")],
  ["generator", "cores", "Processor time of the load generator", ({ generatorCores }) => short(generatorCores)],
  ["sent late", "of sends", "Messages that were sent late", ({ lateSends }) => percent(lateSends ?? NaN), ({ lateSends }) => lateSends > 0.01],
]
let columns = USUAL

const cellOf = (run, [, , , text, isBad, key, divisor]) => {
  const band = run.bands?.[key]
  const isBest = run.best?.includes(key)
  const range = band && `${short(band.least / divisor)} to ${short(band.greatest / divisor)} in ${whole(workload.repeat)} rounds`
  return element("td", {
    ...(isBad?.(run) ? { class: "bad" } : isBest ? { class: "best" } : {}), ...(range ? { title: range } : {}),
  }, text(run))
}

const fillTable = () => {
  const rows = runs.map((run, index) => element("tr", {},
    element("th", { scope: "row" }, markedName(marks[index], nameOf(run) + (run.interrupted ? " (cut short)" : ""))),
    ...columns.map((column) => cellOf(run, column))))
  byId("table").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "strategy"), ...columns.map(headOf))),
    element("tbody", {}, ...rows)))
  byId("meanings").replaceChildren(...columns.flatMap(([name, unit, meaning]) =>
    [element("dt", {}, `${name}, ${typeof unit === "function" ? unit() : unit}`), element("dd", {}, meaning)]))
}

const fillLegend = () => byId("legend").replaceChildren(...runs.map((run, index) => {
  const button = element("button", { type: "button", "aria-pressed": shown[index] }, swatchOf(marks[index]), nameOf(run))
  button.onclick = () => {
    shown[index] = !shown[index]
    button.setAttribute("aria-pressed", shown[index])
    refresh()
  }
  return button
}))

const BARS = [
  ["Requests", "a client-hour", ({ requests }) => requests.perClientHour, whole],
  ["Server CPU", "µs a client-second", ({ serverCost }) => serverCost?.cpuPerClientSecond, short],
  ["Server CPU", "µs a delivery", ({ serverCost }) => serverCost?.cpuPerDelivery, short],
  ["Server memory", "kB a client, user and kernel", memoryOf, short],
  ["Bytes", "kB a client-hour, both ways, with packet headers", ({ bytes }) =>
    (bytes.upWithPackets + bytes.downWithPackets) / 1000, short],
  ["Energy", () => `J a client-hour, ${radio}`, (run) => energyOf(run, radio), short],
]

const fillBars = () => byId("bars").replaceChildren(...BARS.map(([name, unit, value, text]) => {
  const most = Math.max(...runs.map((run, index) => (shown[index] ? value(run) ?? 0 : 0)), Number.MIN_VALUE)
  const rows = runs.flatMap((run, index) => {
    if (!shown[index]) return []
    const figure = value(run)
    const fill = element("div", { class: "fill" })
    fill.style.width = `${((figure ?? 0) / most) * 100}%`
    fill.style.borderColor = colourOf(marks[index])
    if (!marks[index].hollow) fill.style.background = colourOf(marks[index])
    fill.hidden = !figure
    return element("div", { class: "bar" }, element("span", {}, nameOf(run)), element("div", { class: "track" }, fill),
      element("span", { class: "value" }, figure === undefined ? "not measured" : text(figure)))
  })
  return element("figure", {}, element("h3", {}, `${name}, ${typeof unit === "function" ? unit() : unit}`), ...rows)
}))

// What loses more than 1 % of the messages is cheap and fast only because of what it does not deliver.
const isComparable = ({ delivered, lost, intended }) => delivered > 0 && lost * 100 <= intended
const tradeOff = (cost) => () => runs.flatMap((run, index) => {
  const item = { mark: marks[index], name: nameOf(run), cost: cost(run), latency: run.latency?.p95 / 1000 }
  return shown[index] && Number.isFinite(item.cost) && item.latency > 0 && isComparable(run.deliveries) ? [item] : []
})

const curves = runs.map((run, index) => ({
  mark: marks[index],
  name: nameOf(run),
  cdf: (run.latency?.cdf ?? []).filter(([micros]) => micros > 0).map(([micros, share]) => [micros / 1000, share * 100]),
  marks: [["p50", 50], ["p95", 95], ["p99", 99]].flatMap(([name, share]) =>
    run.latency?.[name] > 0 ? [[run.latency[name] / 1000, share]] : []),
}))

let fillSweepLegend = () => {}
const fillSweep = () => {
  if (!sweep) return
  byId("sweep").hidden = false
  const forms = [...new Set(sweep.rates.flatMap(({ points }) => points.map(({ strategy }) => formOf(strategy))))]
  const formMarks = marksOf(forms.map((strategy) => ({ server: OWN, strategy })))
  fillSweepLegend = () => byId("sweep-legend").replaceChildren(
    ...forms.map((form, index) => element("span", {}, swatchOf(formMarks[index]), ` ${form} `)))
  fillSweepLegend()
  for (const { rate, points, requestsFront, energyFront } of sweep.rates) {
    const pair = element("div", { class: "pair" })
    byId("sweep").append(element("h3", {}, `${short(rate)} messages a second to each stream`), pair)
    for (const [unit, cost, front] of [
      ["requests a client-hour", "requestsPerClientHour", requestsFront],
      [`J a client-hour, ${sweep.radio}`, "joulesPerClientHour", energyFront],
    ]) {
      const all = points.map((point) => ({
        mark: formMarks[forms.indexOf(formOf(point.strategy))], name: point.strategy, cost: point[cost], latency: point.p95 === null ? NaN : point.p95 / 1000,
      }))
      const drawn = all.filter(({ cost, latency }) => Number.isFinite(cost) && latency > 0)
      const box = element("div", { class: "plot" })
      pair.append(element("figure", {}, box))
      drawTradeOff(box, `p95 latency against ${unit}`, unit, 1, () => drawn, () =>
        front.map((index) => all[index]).filter((item) => drawn.includes(item)))
    }
  }
}

const fillFacts = () => {
  const list = (facts) => element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]))
  const all = [element("h3", {}, "Command"), element("pre", { tabindex: 0 }, command)]
  if (report) {
    const streams = workload.streamsShared === null ? "each its own" : `${whole(workload.streamsShared)} for all`
    all.push(element("h3", {}, "Workload"), list([
      ["clients", whole(workload.clients)], ["streams", streams],
      ["messages", `${short(workload.rate)} a second to each stream (Poisson), ${whole(workload.messageBytes)} bytes`],
      ["measured", `${short(workload.seconds)} s after ${short(workload.warmUpSeconds)} s of warm-up, ${workload.repeat === 1 ? "once" : `${whole(workload.repeat)} times, medians`}`],
      ["seed", String(workload.seed)], ["network", workload.network ?? "none between clients and server"], ["began", report.began],
    ]))
  }
  if (machine) {
    all.push(element("h3", {}, "Machine"), list([
      ["processor", `${machine.processor}, ${whole(machine.cores)} cores`],
      ["memory", `${short(machine.memoryBytes / 2 ** 30)} GiB`], ["kernel", machine.kernel], ...machine.versions,
    ]))
  }
  byId("facts").replaceChildren(...all)
}

const refresh = () => {
  runs.forEach((_, index) => latency?.setSeries(index + 1, { show: shown[index] }))
  for (const redraw of tradeOffs) redraw()
  fillBars()
}

const repaint = () => {
  fillLegend()
  fillSweepLegend()
  fillBars()
  fillTable()
  for (const again of repaints) again()
  for (const made of plots) made.redraw()
}

byId("verdict").textContent = verdict ?? ""
byId("theme").onclick = () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark"
  repaint()
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint)

// Paper is light, and nobody opens what is closed on it.
let onScreen
addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll("details:not([open])")]
  onScreen = { theme: document.documentElement.dataset.theme, closed }
  for (const details of closed) details.open = true
  document.documentElement.dataset.theme = "light"
  // A canvas that is wider than the paper would make everything smaller.
  for (const made of plots) made.setSize({ width: PAPER, height: HEIGHT })
  repaint()
})
addEventListener("afterprint", () => {
  for (const details of onScreen.closed) details.open = false
  if (onScreen.theme) document.documentElement.dataset.theme = onScreen.theme
  else delete document.documentElement.dataset.theme
  for (const made of plots) made.setSize({ width: made.root.parentNode.clientWidth, height: HEIGHT })
  repaint()
})

if (day) showDay(day)
if (networks) showNetworks(networks)
let latency
const tradeOffs = []
if (report) {
  byId("measured").hidden = false
  byId("plots").hidden = false
  byId("summary").textContent = `Measured: ${whole(workload.clients)} clients, ${short(workload.rate)} messages a second each stream, `
    + `${whole(workload.messageBytes)} bytes, ${short(workload.seconds)} s a run, ${workload.repeat === 1 ? "once" : `${whole(workload.repeat)} rounds`}.`
  byId("best").replaceChildren(...(runs.some(({ best }) => best?.length) ? [
    "Bold and underlined: the best of its column, or not told from it, since the ranges of the rounds overlap. ",
    element("span", { class: "on-screen" }, "Point at a figure for its range."),
  ] : []))
  byId("columns").onclick = () => {
    columns = columns === USUAL ? [...USUAL, ...FURTHER] : USUAL
    byId("columns").setAttribute("aria-pressed", columns !== USUAL)
    fillTable()
  }
  byId("notes").replaceChildren(...[
    ...report.notes, ...runs.flatMap((run) => run.notes.map((note) => `${nameOf(run)}: ${note}`)),
  ].map((note) => element("li", {}, note)))
  byId("radio").replaceChildren(...radios.map((radio) => element("option", {}, radio)))
  byId("radio").onchange = (event) => {
    radio = event.target.value
    fillTable()
    refresh()
  }
  fillTable()
  fillLegend()
  latency = drawDistributions(byId("latency"), curves, (index) => shown[index])
  tradeOffs.push(
    drawTradeOff(byId("by-requests"), "p95 latency against requests", "requests a client-hour", 1,
      tradeOff(({ requests }) => requests.perClientHour), frontOf),
    drawTradeOff(byId("by-energy"), "p95 latency against energy", () => `J a client-hour, ${radio}`, 0.1,
      tradeOff((run) => energyOf(run, radio)), frontOf),
  )
  fillBars()
  fillSweep()
}
fillFacts()
