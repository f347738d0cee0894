// The simulated day: its table, and delay against battery.

const clock = (seconds) => {
  if (!Number.isFinite(seconds)) return "–"
  if (seconds < 1) return `${short(seconds * 1000)} ms`
  return seconds < 120 ? `${short(seconds)} s` : `${short(seconds / 60)} min`
}
const isWhole = ({ published, lost, doubled }) => published > 0 && lost + doubled === 0

const DAY_COLUMNS = [
  ["half arrive", "within", "Half of the messages arrive within it, from publishing to the app", ({ delays }) => clock(delays?.[0])],
  ["95 of 100", "within", "95 of 100 messages arrive within it", ({ delays }) => clock(delays?.[1])],
  ["longest", "delay", "The longest delay, such as that of a tunnel without a network", ({ delays }) => clock(delays?.[2])],
  ["lost", "or twice", "Messages that did not arrive, or that came twice or in the wrong order", (row) => whole(row.lost + row.doubled), (row) => !isWhole(row)],
  ["requests", "of a phone", "HTTP requests of one phone in the day", ({ requests }) => short(requests)],
  ["forgotten", "connections", "Connections of one phone that a network dropped in silence", ({ forgotten }) => short(forgotten)],
  ["battery", "all radios", "Share of a 4000 mAh, 3.85 V battery that the radios take in the day for this alone", ({ battery }) => percent(battery ?? NaN)],
]

const showDay = (day) => {
  byId("day").hidden = false
  byId("day-summary").textContent = `Simulated: ${whole(day.phones)} phones, ${short(day.hours)} hours, `
    + `a message every ${clock(day.secondsBetweenMessages)} to each. The code of gateway and client is real; networks and radios are models.`
  const rows = day.rows.map((row) => {
    const radios = row.joules.map(([radio, joules]) => `${radio}: ${joules === null ? "no profile" : `${short(joules)} J`}`).join(", ")
    return [row, radios]
  })
  byId("day-table").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "strategy"), ...DAY_COLUMNS.map(headOf))),
    element("tbody", {}, ...rows.map(([row, radios]) => element("tr", {},
      element("th", { scope: "row" }, markedName(markOf(OWN, row.strategy), row.strategy)),
      ...DAY_COLUMNS.map(([name, , , text, isBad]) => element("td", {
        ...(isBad?.(row) ? { class: "bad" } : {}), ...(name === "battery" ? { title: radios } : {}),
      }, text(row))))))))
  const items = () => day.rows.filter((row) => isWhole(row) && row.delays && row.battery > 0).map((row) => ({
    mark: markOf(OWN, row.strategy), name: row.strategy, cost: row.battery * 100, latency: row.delays[1] * 1000,
  }))
  drawTradeOff(byId("day-plot"), "p95 delay against battery", "% of a battery a day", 0.01, items, frontOf)
  repaints.push(() => showDayMarks(day))
}

const showDayMarks = (day) => byId("day-table").querySelectorAll("tbody th").forEach((head, index) =>
  head.replaceChildren(markedName(markOf(OWN, day.rows[index].strategy), day.rows[index].strategy)))
