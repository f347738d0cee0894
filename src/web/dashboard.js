// The dashboard: shows the admin listener's own server-sent events. They are read by fetch, as an EventSource sends no token. All text
// of the gateway is set as text, never as HTML.

const HISTORY = 300 // Overviews that are kept, one a second.
const LATENCY_WINDOW = 60
const IS_NARROW = matchMedia("(max-width: 48rem)").matches
const PAGE = IS_NARROW ? 10 : 25
const CLIENTS = PAGE
const MESSAGES = 20
const SEARCH_DELAY_MS = 250
const RETRY_MS = [1000, 2000, 5000, 10_000]
const TOKEN = "pollgate-admin-token"

const FORMS = {
  "short-poll": "Short poll", "long-poll": "Long poll", sse: "SSE", ndjson: "NDJSON", websocket: "WebSocket", mqtt: "MQTT", xmpp: "XMPP",
}
const READERS = {
  longPoll: ["long poll", "long polls"], sse: ["SSE", "SSE"], ndjson: ["NDJSON", "NDJSON"], websocket: ["WebSocket", "WebSockets"],
  subscriptions: ["subscription", "subscriptions"],
}
const STATES = {
  ready: ["ready", "good"], draining: ["draining", "bad"], "store-failed": ["the store has failed", "bad"],
  "store-damaged": ["ready, but the store is damaged", "bad"], "upstream-unreachable": ["ready, but the upstream gateway cannot be reached", "bad"],
}

const element = (id) => document.getElementById(id)
const make = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children)
  return made
}
const svg = (name, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

const whole = new Intl.NumberFormat("en")
const short = (number) => (number < 10 ? number.toFixed(1).replace(/\.0$/, "") : whole.format(Math.round(number)))
const bytes = (number) => {
  const power = Math.max(0, Math.min(4, Math.floor(Math.log2(Math.max(1, number)) / 10)))
  return `${short(number / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`
}
const seconds = (number) => {
  if (number < 1e-3) return `${short(number * 1e6)} µs`
  if (number < 1) return `${short(number * 1e3)} ms`
  if (number < 120) return `${short(number)} s`
  if (number < 7200) return `${short(number / 60)} min`
  return number < 172_800 ? `${short(number / 3600)} h` : `${short(number / 86_400)} days`
}

// Sets a text only if it differs, so that nothing is laid out and nothing is announced again.
const setText = (at, text) => {
  if (at.textContent !== text) at.textContent = text
}

// Fills a description list with [name, value, whether it is bad] in place.
function facts(list, entries) {
  while (list.children.length > entries.length) list.lastChild.remove()
  entries.forEach(([name, value, bad], at) => {
    const row = list.children[at] ?? list.appendChild(make("div", {}, make("dt"), make("dd")))
    setText(row.firstChild, name)
    setText(row.lastChild, value)
    row.lastChild.className = bad ? "bad" : ""
  })
}

// Fills the body of a table. Rows with the same key stay, and so does the focus in them.
function rows(body, items, key, columns) {
  const kept = new Map([...body.children].map((row) => [row.dataset.key, row]))
  items.forEach((item, at) => {
    const row = kept.get(key(item)) ?? make("tr", {}, ...columns.map(([label]) => make("td")))
    kept.delete(key(item))
    row.dataset.key = key(item)
    columns.forEach(([label, fill], column) => {
      row.children[column].dataset.label = label
      fill(row.children[column], item)
    })
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null)
  })
  for (const row of kept.values()) row.remove()
}

// --- Requests ---

let token = sessionStorage.getItem(TOKEN)

async function request(path, init = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {}
  const answer = await fetch(path, { ...init, headers: { ...init.headers, ...headers }, cache: "no-store", redirect: "error" })
  if (answer.status === 401) {
    signIn()
    throw new Error("the token was refused")
  }
  return answer
}

/** Reads the events of a view until it is stopped, and again when they have ended. A hidden page reads none. */
class Live {
  #path
  #take
  #failed
  #stop = null

  constructor(take, failed = () => {}) {
    this.#take = take
    this.#failed = failed
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#leave()
      else if (this.#path) this.read(this.#path)
    })
  }

  read(path) {
    this.#leave()
    this.#path = path
    if (document.hidden || !path) return
    this.#stop = new AbortController()
    this.#run(path, this.#stop.signal)
  }

  stop() {
    this.#leave()
    this.#path = null
  }

  #leave() {
    this.#stop?.abort()
    this.#stop = null
  }

  async #run(path, signal) {
    for (let failures = 0; !signal.aborted && this.#path; failures++) {
      try {
        const answer = await request(path, { signal })
        if (!answer.ok) throw new Error((await answer.text()).trim())
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
        for (let left = ""; ; ) {
          const { value, done } = await reader.read()
          if (done || signal.aborted) break
          const events = (left + value).split("\n\n")
          left = events.pop()
          for (const event of events) {
            const [, failure, data] = event.match(/^(event: failure\n)?data: (.*)$/s) ?? []
            if (failure) this.#failed(data)
            else this.#take(JSON.parse(data))
          }
          failures = 0
        }
        if (!signal.aborted) this.#failed("the gateway has ended the connection")
      } catch (error) {
        if (signal.aborted) return
        this.#failed(error.message)
      }
      await new Promise((wait) => setTimeout(wait, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]))
    }
  }
}

function signIn() {
  for (const live of [overview, streams, clients, messages]) live.stop()
  element("sign-in-failure").textContent = token ? "The gateway refused this token." : ""
  sessionStorage.removeItem(TOKEN)
  token = null
  for (const open of document.querySelectorAll("dialog[open]")) open.close()
  element("board").hidden = true
  element("drain").hidden = true
  element("sign-in").hidden = false
  setText(element("state"), "needs a token")
  element("token").focus()
}

element("sign-in").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault()
  token = element("token").value.trim()
  sessionStorage.setItem(TOKEN, token)
  element("token").value = ""
  begin()
})

// --- Overview ---

const history = []

const overview = new Live(showOverview, (why) => {
  element("state").className = "state bad"
  setText(element("state"), `not reached: ${why}`)
})

function showOverview(now) {
  // A busy gateway computes an overview less often, and sends the last one again.
  if (now.uptime === history.at(-1)?.uptime) return
  // After a restart, totals begin again.
  if (history.length && now.uptime < history.at(-1).uptime) history.length = 0
  history.push(now)
  if (history.length > HISTORY) history.shift()
  if (element("board").hidden) {
    element("sign-in").hidden = true
    element("board").hidden = false
    element("drain").hidden = false
    readStreams()
    readClients()
  }
  const before = history.at(-2)
  const rate = (of) => (before ? Math.max(0, of(now) - of(before)) / Math.max(0.1, now.uptime - before.uptime) : 0)
  const { counts, memory, totals } = now
  const [text, kind] = STATES[now.state] ?? [now.state, "bad"]
  element("state").className = `state ${kind}`
  setText(element("state"), text)
  setText(element("about"), `${now.version}, up for ${seconds(now.uptime)}`)
  facts(element("now"), [
    ["Streams", whole.format(counts.streams)],
    ["Held polls", whole.format(counts.heldPolls)],
    ["Connections", whole.format(totals.connections)],
    ["Messages in", `${short(rate(({ totals }) => totals.messagesIn))}/s`],
    ["Messages out", `${short(rate(({ totals }) => totals.messagesOut))}/s`],
    ["Bytes out", `${bytes(rate(({ totals }) => totals.bytesOut))}/s`],
    ["Processor", `${short(100 * rate(({ totals }) => totals.cpuSeconds))} %`],
  ])
  showForms(totals, rate)
  showLatency(now)
  showHealth(now)
  showMemory(memory)
}

function showForms(totals, rate) {
  const sent = (form) => rate(({ totals }) => totals.forms.find((one) => one.form === form)?.sent ?? 0)
  const swatch = (form) => svg("svg", { class: "swatch", viewBox: "0 0 22 8", "aria-hidden": "true" }, svg("line", { class: form, x1: 0, y1: 4, x2: 22, y2: 4 }))
  const body = element("forms")
  totals.forms.forEach(({ form, open }, at) => {
    const row = body.children[at] ?? body.appendChild(make("tr", {}, make("th", { scope: "row" }, swatch(form), FORMS[form] ?? form), make("td"), make("td")))
    setText(row.children[1], open === null ? "–" : whole.format(open))
    setText(row.children[2], short(sent(form)))
  })
  const open = (now, form) => now.totals.forms.find((one) => one.form === form)?.open ?? 0
  const shown = totals.forms.filter(({ form, open: isConnected }) => isConnected !== null && history.some((now) => open(now, form) > 0))
  const most = Math.max(1, ...history.flatMap((now) => shown.map(({ form }) => open(now, form))))
  const x = (at) => (300 * (at + HISTORY - history.length)) / (HISTORY - 1)
  const line = (form) => history.map((now, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${(96 - (90 * open(now, form)) / most).toFixed(1)}`).join("")
  element("forms-plot").replaceChildren(...shown.map(({ form }) => svg("path", { class: form, d: line(form) })))
  setText(element("forms-since"), `5 min ago; the top is ${whole.format(most)}`)
}

// The upper bound of the bucket in which a share of the counts lies.
function quantile(share, { firstSeconds }, counts, total) {
  let below = 0
  const at = counts.findIndex((count) => (below += count) >= share * total)
  return at === counts.length - 1 ? `> ${seconds(firstSeconds * 2 ** (at - 1))}` : `≤ ${seconds(firstSeconds * 2 ** at)}`
}

function showLatency(now) {
  const then = history.at(-1 - LATENCY_WINDOW) ?? history[0]
  const { publishToAnswer: all } = now.totals
  const counts = all.counts.map((count, at) => count - then.totals.publishToAnswer.counts[at])
  const total = counts.reduce((sum, count) => sum + count, 0)
  const most = Math.max(1, ...counts)
  const width = 300 / counts.length
  const bars = counts.map((count, at) => svg("rect", { x: at * width + 0.5, width: width - 1, y: 98 - (94 * count) / most, height: (94 * count) / most }))
  element("latency-plot").replaceChildren(...bars)
  facts(element("latency"), [
    ["Readers woken", whole.format(total)],
    ["p50", total ? quantile(0.5, all, counts, total) : "–"],
    ["p99", total ? quantile(0.99, all, counts, total) : "–"],
    ["Slowest", total ? quantile(1, all, counts, total) : "–"],
  ])
}

function showHealth({ state, counts, totals }) {
  const { store, engine, stalls, descriptors } = totals
  const entries = [["Store", state.startsWith("store-") ? STATES[state][0] : "works", state.startsWith("store-")]]
  if (store.fileBytes) {
    const reads = store.readsFromMemory + store.readsFromDisk
    entries.push(
      ["Log files", bytes(store.fileBytes)], ["In use", bytes(store.liveBytes)], ["Damaged", bytes(store.damagedBytes), store.damagedBytes > 0],
      ["Reads from memory", reads ? `${Math.round((100 * store.readsFromMemory) / reads)} %` : "–"],
    )
  }
  if (engine.calls) {
    const total = engine.call.counts.reduce((sum, count) => sum + count, 0)
    entries.push(
      ["Engine calls", whole.format(engine.calls)], ["Call, p99", quantile(0.99, engine.call, engine.call.counts, total)],
      ["Failed calls", whole.format(engine.failures), engine.failures > 0], ["Blind partitions", whole.format(engine.blindPartitions), engine.blindPartitions > 0],
    )
  }
  const [open, max] = descriptors
  entries.push(
    ["Stalls of 10 ms", whole.format(stalls[0])], ["Longest stall", stalls[1] ? seconds(stalls[1]) : "none", stalls[1] > 1],
    ["Descriptors", open === null ? "–" : `${whole.format(open)}${max ? ` of ${whole.format(max)}` : ""}`, max && open > 0.9 * max],
    ["Connections refused", whole.format(totals.connectionsRefused), totals.connectionsRefused > 0],
    ["Subscriptions", whole.format(counts.subscriptions)],
  )
  const [connected, woken, pending, asleep] = counts.devices
  if (connected + woken + pending + asleep) entries.push(["Devices", `${connected + woken} awake, ${pending} to wake, ${asleep} asleep`])
  facts(element("health"), entries)
}

function showMemory({ max, resident, accounts, refused }) {
  const held = accounts.reduce((sum, [, size]) => sum + size, 0)
  const used = Math.max(held, resident)
  setText(element("memory-text"), `${bytes(used)} of ${bytes(max)}`)
  element("memory-meter").value = Math.min(1, used / max)
  element("memory-meter").textContent = `${Math.round((100 * used) / max)} %`
  const refusals = refused.filter(([, count]) => count).map(([why, count]) => [`Refused: ${why}`, whole.format(count), true])
  const shown = accounts.filter(([, size]) => size).sort(([, one], [, other]) => other - one)
  facts(element("memory"), [["Resident", bytes(resident)], ...shown.map(([account, size]) => [account, bytes(size)]), ...refusals])
}

// --- Streams ---

let after = null
let next = null
let tails = new Map()

const position = (offset) => Number(`0x${offset.split("_")[1]}`)
const epoch = (offset) => offset.split("_")[0]

const streams = new Live(showStreams, (why) => setText(element("streams-news"), why))

function readStreams() {
  const query = new URLSearchParams({ live: "sse", limit: PAGE, contains: element("streams-contains").value.trim() })
  if (after) query.set("after", after)
  streams.read(`streams?${query}`)
}

function showStreams({ streams: found, next: following }) {
  next = following
  element("streams-first").disabled = !after
  element("streams-next").disabled = !next
  const at = performance.now() / 1000
  const before = tails
  tails = new Map(found.map(({ stream, tail }) => [stream, { tail, at }]))
  const rate = ({ stream, tail, messages }) => {
    const then = before.get(stream)
    if (!then || epoch(then.tail) !== epoch(tail)) return "–"
    const perSecond = (position(tail) - position(then.tail)) / Math.max(0.1, at - then.at)
    return messages === undefined ? `${bytes(perSecond)}/s` : `${short(perSecond)}/s`
  }
  const readers = ({ readersByForm }) =>
    Object.entries(readersByForm).filter(([, count]) => count)
      .map(([form, count]) => `${whole.format(count)} ${READERS[form][count === 1 ? 0 : 1]}`).join(", ") || "none"
  const retention = ({ maxMessages, maxBytes, maxAge, ttl, expiresAt, closed }) => [
    closed && "closed", maxMessages && `${whole.format(maxMessages)} messages`, maxBytes && bytes(maxBytes), maxAge && seconds(maxAge),
    ttl && `removed after ${seconds(ttl)} unused`, expiresAt && `until ${expiresAt}`,
  ].filter(Boolean).join(", ") || "everything"
  const kept = ({ messages, bytes: size }) => (messages === undefined ? bytes(size) : `${whole.format(messages)} ${messages === 1 ? "message" : "messages"}`)
  rows(element("streams"), found, ({ stream }) => stream, [
    ["Stream", (cell, { stream }) => {
      if (cell.firstChild) return
      cell.append(make("button", { type: "button", textContent: stream, onclick: () => openMessages(stream) }))
    }],
    ["Type", (cell, { contentType }) => setText(cell, contentType)],
    ["Kept", (cell, stream) => setText(cell, kept(stream))],
    ["Rate", (cell, stream) => setText(cell, rate(stream))],
    ["Readers", (cell, stream) => setText(cell, readers(stream))],
    ["Retention", (cell, stream) => setText(cell, retention(stream))],
  ])
  const more = next ? "; there are more" : ""
  setText(element("streams-news"), found.length ? `${found.length} shown${after ? `, behind ${after}` : ""}${more}` : next ? "Nothing here yet; the search goes on with the next page" : "No stream")
}

function searchAfterTyping(input, search) {
  let timer
  input.addEventListener("input", () => {
    clearTimeout(timer)
    timer = setTimeout(search, SEARCH_DELAY_MS)
  })
  input.form.addEventListener("submit", (event) => {
    event.preventDefault()
    clearTimeout(timer)
    search()
  })
}

function firstStreams() {
  after = null
  tails = new Map()
  readStreams()
}

searchAfterTyping(element("streams-contains"), firstStreams)
element("streams-first").addEventListener("click", firstStreams)
element("streams-next").addEventListener("click", () => {
  if (!next) return
  after = next
  readStreams()
})

// --- Clients ---

const clients = new Live(showClients, (why) => setText(element("clients-news"), why))
const readClients = () => clients.read(`clients?${new URLSearchParams({ live: "sse", limit: CLIENTS, contains: element("clients-contains").value.trim() })}`)

function showClients(found) {
  const until = (deadline) => `for another ${seconds(Math.max(0, (new Date(deadline) - new Date(history.at(-1)?.time ?? Date.now())) / 1000))}`
  const held = (poll) => `${poll.stream ?? `${poll.streams} streams`} ${until(poll.deadline)}`
  const some = (list) => (list.length > 3 ? `${list.slice(0, 3).join(", ")} and ${list.length - 3} more` : list.join(", "))
  const waits = ({ held: polls, subscribed }) => [
    polls.length && `holds ${some(polls.map(held))}`, subscribed && `subscribed to ${some(subscribed.filters) || "nothing"}`,
  ].filter(Boolean).join("; ") || "nothing now"
  rows(element("clients"), found, ({ client }) => client, [
    ["Client", (cell, { client }) => setText(cell, client)],
    ["Held polls and subscriptions", (cell, client) => setText(cell, waits(client))],
    ["Answered", (cell, { answered, subscribed }) => setText(cell, whole.format(answered + (subscribed?.delivered ?? 0)))],
    ["Last", (cell, { lastSeen, lastStream }) => setText(cell, lastSeen ? `${lastSeen.slice(0, 19).replace("T", " ")} ${lastStream ?? ""}` : "now")],
  ])
  const more = found.length === CLIENTS ? "; search for others" : ""
  setText(element("clients-news"), found.length ? `${found.length} shown${more}` : "No client")
}

searchAfterTyping(element("clients-contains"), readClients)

// --- Messages of one stream ---

let browsed = null
let earlier = null

const messages = new Live(showMessages, (why) => setText(element("messages-about"), why))

function openMessages(stream) {
  browsed = stream
  setText(element("messages-heading"), stream)
  setText(element("messages-about"), "")
  setText(element("publish-news"), "")
  element("message-list").replaceChildren()
  // What is behind the dialog need not move.
  streams.stop()
  clients.stop()
  element("messages").showModal()
  readMessages()
}

const messagesPath = (more) => `messages?${new URLSearchParams({ stream: browsed, limit: MESSAGES, ...more })}`
const readMessages = () => messages.read(messagesPath({ live: "sse" }))

function showMessages({ contentType, messages: found, tail, closed, before }) {
  earlier = before
  element("messages-earlier").disabled = !before
  setText(element("messages-about"), `${contentType}; tail ${tail}${closed ? "; closed" : ""}`)
  const list = element("message-list")
  const newest = found.map(({ offset }) => offset).toReversed()
  if (newest.join() === [...list.children].map((item) => item.dataset.offset).join()) return
  list.replaceChildren(...found.toReversed().map(({ offset, at, bytes: size, text, isWhole, isUtf8 }) => {
    const about = [at.replace("T", " "), bytes(size), !isUtf8 && "not UTF-8", !isWhole && "only the beginning is shown"].filter(Boolean).join(", ")
    const item = make("li", {}, make("span", { className: "quiet", textContent: about }), make("pre", { textContent: text }))
    item.dataset.offset = offset
    return item
  }))
  if (!found.length) list.append(make("li", { textContent: "No message is kept." }))
}

element("messages-last").addEventListener("click", readMessages)
element("messages-earlier").addEventListener("click", async () => {
  if (!earlier) return
  const path = messagesPath({ before: earlier })
  messages.stop()
  try {
    const answer = await request(path)
    if (answer.ok) showMessages(await answer.json())
    else setText(element("messages-about"), (await answer.text()).trim())
  } catch (error) {
    setText(element("messages-about"), error.message)
  }
})

element("publish").addEventListener("submit", async (event) => {
  event.preventDefault()
  const news = element("publish-news")
  try {
    const path = `messages?${new URLSearchParams({ stream: browsed })}`
    const answer = await request(path, { method: "POST", body: element("publish-text").value })
    news.className = answer.ok ? "" : "failure"
    news.textContent = answer.ok ? "Published" : (await answer.text()).trim()
    if (answer.ok) readMessages()
  } catch (error) {
    news.className = "failure"
    news.textContent = error.message
  }
})

element("messages").addEventListener("close", () => {
  messages.stop()
  if (element("board").hidden) return
  readStreams()
  readClients()
})

// --- Drain ---

element("drain").addEventListener("click", () => {
  element("drain-news").textContent = ""
  element("drain-dialog").showModal()
})

element("drain-now").addEventListener("click", async () => {
  try {
    const answer = await request("drain", { method: "POST" })
    if (!answer.ok) throw new Error((await answer.text()).trim())
    element("drain-dialog").close()
  } catch (error) {
    element("drain-news").textContent = error.message
  }
})

for (const close of document.querySelectorAll("dialog .close")) close.addEventListener("click", () => close.closest("dialog").close())

function begin() {
  history.length = 0
  overview.read("overview?live=sse")
}

begin()
