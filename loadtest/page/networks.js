// Readers through hostile networks: a row for each network, a column for each reader.

const showNetworks = (rows) => {
  byId("networks").hidden = false
  const readers = [...new Set(rows.rows.map(({ reader }) => reader))]
  const networks = [...new Set(rows.rows.map(({ network }) => network))]
  byId("networks-summary").textContent = "95 of 100 messages arrive within the time of a cell; a cell in bold lost messages. "
    + `All times are those of a real network times ${short(rows.scale)}: 1 s stands for ${short(1 / rows.scale)} s.`
  const of = (network, reader) => rows.rows.find((row) => row.network === network && row.reader === reader)
  const text = ({ deliveries: d, p95Millis }) => {
    if (!d.delivered) return "nothing arrived"
    if (d.lost) return `lost ${short((100 * d.lost) / d.intended)} %`
    return d.doubled ? `${clock(p95Millis / 1000)}, ${whole(d.doubled)} twice` : clock(p95Millis / 1000)
  }
  const told = ({ deliveries: d, longestMillis, passed, form }) => `${whole(d.delivered)} of ${whole(d.intended)} arrived, `
    + `${longestMillis === null ? "" : `the last after ${clock(longestMillis / 1000)}, `}${whole(passed.faults)} faults of the network`
    + `${form ? `, read by ${form} in the end` : ""}`
  const cell = (row) => (row
    ? element("td", { title: told(row), ...(row.deliveries.lost || row.deliveries.doubled || !row.deliveries.delivered ? { class: "bad" } : {}) }, text(row))
    : element("td", {}, "–"))
  byId("networks-table").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "network"),
      ...readers.map((reader) => element("th", { scope: "col" }, markedName(markOf(OWN, reader), reader))))),
    element("tbody", {}, ...networks.map((network) => element("tr", {},
      element("th", { scope: "row", title: rows.rows.find((row) => row.network === network).source }, network),
      ...readers.map((reader) => cell(of(network, reader))))))))
  const changed = rows.rows.filter(({ changes }) => changes.length)
  byId("networks-changes").replaceChildren(...changed.map(({ network, reader, changes }) => element("details", {},
    element("summary", {}, `${reader} behind ${network}: ${whole(changes.length)} events`),
    element("ul", {}, ...changes.map((change) => element("li", {}, change))))))
  if (!changed.length) byId("networks-changes").previousElementSibling.hidden = true
}
