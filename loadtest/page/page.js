// Puts the report on the page: table, legend, plots, bars, sweep, and how it was measured.

const { runs, workload, machine } = report
const marks = marksOf(runs)
const shown = runs.map(() => true)
const radios = [...new Set(runs.flatMap((run) => run.energy.map(({ radio }) => radio)))]
let radio = radios[0]
const byId = (id) => document.getElementById(id)

const COLUMNS = [
  ["delivered", "of intended", ({ deliveries: d }) => `${whole(d.delivered)} / ${whole(d.intended)}`],
  ["lost", "", ({ deliveries: d }) => whole(d.lost), ({ deliveries: d }) => d.lost > 0],
  ["duplicated", "", ({ deliveries: d }) => whole(d.doubled), ({ deliveries: d }) => d.doubled > 0],
  ["out of order", "", ({ deliveries: d }) => whole(d.outOfOrder), ({ deliveries: d }) => d.outOfOrder > 0],
  ...["p50", "p90", "p95", "p99", "p999", "max"].map((name) =>
    [name === "p999" ? "p99.9" : name, "ms", ({ latency }) => milliseconds(latency?.[name])]),
  ["requests", "a client-hour", ({ requests }) => whole(requests.perClientHour)],
  ["empty", "a client-hour", ({ requests }) => whole(requests.emptyPerClientHour)],
  ["requests", "a delivery", ({ requests }) => short(requests.perDelivery ?? NaN)],
  ...(runs.some(({ wakes }) => wakes) ? [
    ["wakes", "a client-hour", ({ wakes }) => (wakes ? whole(wakes.perClientHour) : "–")],
    ["wake to poll p50", "ms", ({ wakes }) => milliseconds(wakes?.toPollP50)],
    ["wake to poll p99", "ms", ({ wakes }) => milliseconds(wakes?.toPollP99)],
  ] : []),
  ["up", "kB a client-hour", ({ bytes }) => short(bytes.upWithPackets / 1000)],
  ["down", "kB a client-hour", ({ bytes }) => short(bytes.downWithPackets / 1000)],
  ["connections", "opened", ({ connections }) => whole(connections)],
  ["server CPU", "µs a client-second", ({ serverCost }) => short(serverCost?.cpuPerClientSecond)],
  ["server CPU", "µs a delivery", ({ serverCost }) => short(serverCost?.cpuPerDelivery)],
  ["user memory", "kB a client", ({ serverCost }) => short(serverCost?.userBytesPerClient / 1000)],
  ["kernel memory", "kB a client", ({ serverCost }) => short(kilobytes(serverCost?.kernelBytesPerClient))],
  ...radios.map((radio) => [radio, "J a client-hour", (run) => short(energyOf(run, radio))]),
  ["battery", () => `a day, ${radio}`, (run) => percent(run.energy.find((energy) => energy.radio === radio)?.batteryPerDay)],
  ["requests", "by formula", ({ prediction: p }) => (p ? `${whole(p.requestsPerClientHour)} (${signed(p.requestsDeviation)})` : "")],
  ["mean latency", "ms by formula", ({ prediction: p }) => (p ? `${milliseconds(p.meanLatency)} (${signed(p.latencyDeviation)})` : "")],
  ["generator", "cores", ({ generatorCores }) => short(generatorCores)],
  ["sent late", "of sends", ({ lateSends }) => percent(lateSends ?? NaN), ({ lateSends }) => lateSends > 0.01],
]
const kilobytes = (bytes) => (bytes ?? NaN) / 1000
const signed = (share) => `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`

const fillTable = () => {
  const heads = COLUMNS.map(([name, unit]) =>
    element("th", { scope: "col" }, name, element("small", {}, typeof unit === "function" ? unit() : unit)))
  const rows = runs.map((run) => element("tr", {},
    element("th", { scope: "row" }, nameOf(run) + (run.interrupted ? " (cut short)" : "")),
    ...COLUMNS.map(([, , text, isBad]) => element("td", isBad?.(run) ? { class: "bad" } : {}, text(run)))))
  byId("table").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "strategy"), ...heads)),
    element("tbody", {}, ...rows)))
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
  ["Server memory", "kB a client, user and kernel", ({ serverCost: cost }) =>
    (cost ? (cost.userBytesPerClient + (cost.kernelBytesPerClient ?? NaN)) / 1000 : undefined), short],
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
  const streams = workload.streamsShared === null ? "each its own" : `${whole(workload.streamsShared)} for all`
  byId("facts").replaceChildren(
    element("h3", {}, "Command"), element("pre", { tabindex: 0 }, report.command),
    element("h3", {}, "Workload"), list([
      ["clients", whole(workload.clients)], ["streams", streams],
      ["messages", `${short(workload.rate)} a second to each stream (Poisson), ${whole(workload.messageBytes)} bytes`],
      ["measured", `${short(workload.seconds)} s after ${short(workload.warmUpSeconds)} s of warm-up, ${workload.repeat === 1 ? "once" : `${whole(workload.repeat)} times, medians`}`],
      ["seed", String(workload.seed)], ["network", workload.network ?? "none between clients and server"], ["began", report.began],
    ]),
    element("h3", {}, "Machine"), list([
      ["processor", `${machine.processor}, ${whole(machine.cores)} cores`],
      ["memory", `${short(machine.memoryBytes / 2 ** 30)} GiB`], ["kernel", machine.kernel], ...machine.versions,
    ]))
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
  for (const made of plots) made.redraw()
}

byId("summary").textContent = `${whole(workload.clients)} clients, ${short(workload.rate)} messages a second each stream, `
  + `${whole(workload.messageBytes)} bytes, ${short(workload.seconds)} s a run.`
byId("notes").replaceChildren(...[
  ...report.notes, ...runs.flatMap((run) => run.notes.map((note) => `${nameOf(run)}: ${note}`)),
].map((note) => element("li", {}, note)))
byId("radio").replaceChildren(...radios.map((radio) => element("option", {}, radio)))
byId("radio").onchange = (event) => {
  radio = event.target.value
  fillTable()
  refresh()
}
byId("theme").onclick = () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark"
  repaint()
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint)

fillTable()
fillLegend()
const latency = drawDistributions(byId("latency"), curves, (index) => shown[index])
const tradeOffs = [
  drawTradeOff(byId("by-requests"), "p95 latency against requests", "requests a client-hour", 1,
    tradeOff(({ requests }) => requests.perClientHour), frontOf),
  drawTradeOff(byId("by-energy"), "p95 latency against energy", "J a client-hour", 0.1,
    tradeOff((run) => energyOf(run, radio)), frontOf),
]
fillBars()
fillSweep()
fillFacts()
