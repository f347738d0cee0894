// The page: one message, published once, read by each form of delivery beside the others. Each panel has a client of its
// own behind a meter, which counts what goes over the network and can cut it.
import { MqttReader } from "./mqtt.js"
import { Client } from "./pollgate.js"
import { offerWakes } from "./sleep.js"

const CUT_SECONDS = 5
const PLOT_SECONDS = 60
const PLOT = { width: 300, height: 110, fastest: 0.5, slowest: 50_000 } // Units of the SVG, and milliseconds.

// Until a message that is acknowledged should have arrived, with the time between two short polls.
const LATE_SECONDS = 5

// `curl` is a command that reads the same, of `base`, the URL of this page, and of a stream.
const PANELS = [
  {
    name: "Fallback client", fallback: true,
    what: "Uses the best form that the network lets through, and tries better ones again later.",
    curl: (base, stream) => `curl '${base}v1/streams?stream=${stream}&from=last:5'`,
  },
  {
    form: "short-poll", name: "Short poll", what: "A request every 2 s, which is answered at once. Works wherever HTTP does.",
    curl: (base, stream) => `curl '${base}v1/stream/${stream}'`,
  },
  {
    form: "long-poll", name: "Long poll", what: "The gateway holds each request until there is a message.",
    curl: (base, stream) => `curl '${base}v1/stream/${stream}?offset=now&live=long-poll'`,
  },
  {
    form: "sse", name: "Server-sent events", what: "One response that does not end: an event for each update.",
    curl: (base, stream) => `curl -N '${base}v1/stream/${stream}?offset=now&live=sse'`,
  },
  {
    form: "ndjson", name: "NDJSON", what: "One response that does not end: a line of JSON for each update.",
    curl: (base, stream) => `curl -N '${base}v1/stream/${stream}?offset=now&live=ndjson'`,
  },
  {
    form: "websocket", name: "WebSocket", what: "One connection for both directions. Not every network lets it through.",
    curl: (base, stream) =>
      "curl -N -o - --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' " +
      `-H 'Sec-WebSocket-Key: cG9sbGdhdGUncyBwYWdlIQ==' '${base}v1/stream/${stream}?offset=now&live=websocket'`,
  },
  {
    form: "mqtt", name: "MQTT over WebSocket", what: "A session with QoS 2, on the topic with the name of the stream.",
    curl: (base, stream) => `curl -N -o - 'mqtt://${new URL(base).hostname}:1883/${stream}'`,
  },
]

const stream = `page/${crypto.getRandomValues(new Uint32Array(2)).join("-")}`
const element = (id) => document.getElementById(id)

/** Stands between a client and the network: counts, and cuts. */
class Meter {
  requests = 0
  bytes = 0
  #open = new Set() // How to end each request that is open.
  #openMs = 0
  #openSince = 0
  #began = performance.now()
  #cut = false
  heard = -1 // When bytes came last.
  blocked = new Set()

  /** The share of time in which something was open. */
  get waiting() {
    const now = performance.now()
    return (this.#openMs + (this.#open.size ? now - this.#openSince : 0)) / (now - this.#began)
  }

  cut(seconds) {
    this.#cut = true
    this.#endAll()
    setTimeout(() => (this.#cut = false), seconds * 1000)
  }

  block(what, blocked) {
    if (blocked) this.blocked.add(what)
    else this.blocked.delete(what)
    this.#endAll()
  }

  fetch = async (target, init) => {
    const live = new URL(target).searchParams.get("live")
    const leave = new AbortController()
    const end = this.#begin(() => leave.abort(new TypeError("cut")))
    init.signal?.addEventListener("abort", () => {
      leave.abort(init.signal.reason)
      end()
    })
    this.requests++
    this.bytes += target.length + HEAD_BYTES.up + (init.body?.length ?? 0)
    try {
      if (this.#cut) throw new TypeError("cut")
      if (this.blocked.has(live)) throw new TypeError("blocked")
      // Networks that buffer streams say nothing at all.
      if (this.blocked.has("streams") && (live === "sse" || live === "ndjson")) await aborted(leave.signal)
      const answer = await fetch(target, { ...init, signal: leave.signal })
      this.bytes += HEAD_BYTES.down
      const counted = answer.body?.pipeThrough(new TransformStream({
        transform: (chunk, controller) => {
          this.bytes += chunk.byteLength
          this.heard = performance.now()
          controller.enqueue(chunk)
        },
        flush: end,
      }))
      return new Response(counted, answer)
    } catch (error) {
      end()
      throw error
    }
  }

  /** A WebSocket as the client knows it. */
  get WebSocket() {
    const meter = this
    return class {
      #socket
      constructor(target, protocol = []) {
        meter.requests++
        meter.bytes += HEAD_BYTES.up + HEAD_BYTES.down
        this.end = meter.#begin(() => this.#closed({ code: 1006 }))
        if (meter.#cut || meter.blocked.has("websocket")) return void setTimeout(() => this.#closed({ code: 1006 }))
        this.#socket = new WebSocket(target, protocol)
        this.#socket.binaryType = "arraybuffer"
        this.#socket.onopen = () => this.onopen?.()
        this.#socket.onclose = (event) => this.#closed(event)
        this.#socket.onmessage = (event) => {
          const length = event.data.length ?? event.data.byteLength
          meter.bytes += length + (length < 126 ? 2 : 4)
          meter.heard = performance.now()
          this.onmessage?.(event)
        }
      }
      get readyState() {
        return this.#socket?.readyState ?? 3
      }
      send(data) {
        meter.bytes += (data.length ?? data.byteLength) + 8
        this.#socket?.send(data)
      }
      close() {
        this.end()
        this.#socket?.close()
      }
      #closed(event) {
        const { onclose } = this
        this.onclose = undefined
        this.close()
        onclose?.(event)
      }
    }
  }

  /** Something is open from now on; returns what to call at its end, `cut` is how to end it. */
  #begin(cut) {
    if (!this.#open.size) this.#openSince = performance.now()
    this.#open.add(cut)
    return () => {
      if (this.#open.delete(cut) && !this.#open.size) this.#openMs += performance.now() - this.#openSince
    }
  }

  #endAll() {
    for (const end of [...this.#open]) end()
  }
}

const aborted = (signal) => new Promise((_, reject) => {
  signal.addEventListener("abort", () => reject(signal.reason))
})

/** What heads of a browser's requests and of the gateway's answers are about. */
const HEAD_BYTES = { up: 550, down: 330 }

/** What has been published: number to when. */
const published = new Map()

/** What arrived at one panel. */
class Panel {
  #root = element("panel").content.firstElementChild.cloneNode(true)
  #meter = new Meter()
  #seen = new Set()
  #highest = 0
  #received = 0 // Of the numbers behind `skipped`.
  #skipped = 0 // The numbers up to here were published before this form could read.
  #canRead = true // Over MQTT not before the subscription.
  #next = 1 // The lowest number that has not arrived.
  #unreached = -1 // When the gateway was not reached last.
  #doubled = 0
  #latencies = []
  #dots = [] // Of {at, latency}.
  #cuts = [] // Of {from, to}.
  #late = null // The cut that is told about once all has arrived.
  #plot
  #events

  constructor({ form, name, what, curl, fallback }) {
    this.name = name
    this.#root.querySelector("h2").textContent = name
    this.#root.querySelector(".what").textContent = what
    this.#root.querySelector(".curl code").textContent = curl(new URL("./", location.href).href, stream)
    this.#root.dataset.form = form ?? "fallback"
    const cut = this.#root.querySelector(".cut")
    cut.setAttribute("aria-label", `Cut for ${CUT_SECONDS} s: ${name}`)
    cut.addEventListener("click", () => this.cut())
    this.#plot = new Plot(this.#root.querySelector(".plot"), name)
    const reader = form === "mqtt" ? this.#readMqtt() : this.#read(form)
    if (fallback) this.#showChanges(reader)
    for (const event of ["restart", "not_gateway"]) {
      reader.addEventListener(event, () => (this.#unreached = performance.now()))
    }
    element("panels").append(this.#root)
  }

  #read(form) {
    const client = new Client(location.href, {
      forms: form && [form], share: false, storage: null, fetch: this.#meter.fetch, WebSocket: this.#meter.WebSocket,
      // Sooner than a client should, so that there is something to see.
      settings: { interval: 2, reprobeAfter: 15, backoffMax: 4 },
    })
    client.subscribe(stream, { from: "earliest" }, ({ data }) => this.#receive(data))
    return client
  }

  #readMqtt() {
    const url = new URL("mqtt", new URL("./", location.href))
    url.protocol = url.protocol.replace("http", "ws")
    const onMessage = (text) => this.#receive(JSON.parse(text))
    const reader = new MqttReader({ url, topic: stream, password: token, WebSocket: this.#meter.WebSocket, onMessage })
    // A subscription begins with what is published behind it.
    this.#canRead = false
    reader.addEventListener("subscribed", () => {
      this.#skipped = published.size
      this.#canRead = true
    }, { once: true })
    return reader
  }

  /** Takes the network away for some seconds. */
  cut() {
    const now = performance.now()
    if (this.#isCut(now)) return
    this.#meter.cut(CUT_SECONDS)
    this.#cuts.push({ from: now, to: now + CUT_SECONDS * 1000 })
    this.#late = { before: this.#seen.size, until: now + CUT_SECONDS * 1000 }
    say(`${this.name} is cut for ${CUT_SECONDS} s; publishing goes on.`)
    publishFor(CUT_SECONDS)
  }

  draw(now) {
    const show = (selector, text) => {
      const target = this.#root.querySelector(selector)
      if (target.textContent !== text) target.textContent = text
    }
    const cut = this.#isCut(now)
    const missing = Math.max(this.#highest - this.#skipped, 0) - this.#received
    const acknowledged = [...published.values()].filter((message) => message.acknowledged).length
    show(".requests", `${this.#meter.requests}`)
    show(".bytes", bytes(this.#meter.bytes))
    show(".waiting", `${Math.round(100 * Math.min(this.#meter.waiting, 1))} %`)
    show(".received", `${this.#received}/${published.size - this.#skipped}`)
    show(".missing", `${missing}`)
    show(".doubled", `${this.#doubled}`)
    const [state, kind] = cut ? ["cut", "bad"] : this.#state(now)
    show(".state", state)
    const { classList } = this.#root.querySelector(".state")
    classList.toggle("good", kind === "good")
    classList.toggle("bad", kind === "bad")
    this.#root.querySelector(".cut").setAttribute("aria-disabled", `${cut}`)
    for (const [name, count] of [["missing", missing], ["doubled", this.#doubled]]) {
      const { classList } = this.#root.querySelector(`.${name}`)
      classList.toggle("bad", count > 0)
      classList.toggle("good", count === 0 && this.#seen.size > 0)
    }
    this.#reportCut(now, missing, acknowledged)
    this.#dots = this.#dots.filter(({ at }) => now - at < PLOT_SECONDS * 1000)
    this.#cuts = this.#cuts.filter(({ to }) => now - to < PLOT_SECONDS * 1000)
    this.#plot.draw(now, this.#dots, this.#cuts)
  }

  /** What it does, and whether that is good or bad. */
  #state(now) {
    while (this.#seen.has(this.#next) || this.#next <= this.#skipped) this.#next++
    const awaited = published.get(this.#next)?.acknowledged
    if (this.#unreached > this.#meter.heard) return ["not reached", "bad"]
    if (awaited && now - Math.max(awaited, this.#cuts.at(-1)?.to ?? 0) > LATE_SECONDS * 1000) return ["nothing arrives", "bad"]
    return this.#meter.heard < 0 || !this.#canRead ? ["connecting"] : [this.form ?? "reading", "good"]
  }

  #receive({ n, text }) {
    if (this.#seen.has(n)) this.#doubled++
    else if (n > this.#skipped) this.#received++
    this.#seen.add(n)
    this.#highest = Math.max(this.#highest, n)
    const now = performance.now()
    const latency = now - published.get(n).at
    this.#latencies = [...this.#latencies.slice(-199), latency]
    this.#dots.push({ at: now, latency })
    const sorted = this.#latencies.toSorted((one, other) => one - other)
    this.#root.querySelector(".message").textContent = `${n}: ${text}`
    this.#root.querySelector(".latency").textContent = milliseconds(latency)
    this.#root.querySelector(".p50").textContent = milliseconds(sorted[Math.floor((sorted.length - 1) / 2)])
  }

  /** Once what was published during a cut has arrived, or should have. */
  #reportCut(now, missing, acknowledged) {
    if (!this.#late || now < this.#late.until || this.#seen.size + this.#skipped < acknowledged) return
    const since = this.#seen.size - this.#late.before
    say(`${this.name} was cut for ${CUT_SECONDS} s: ${since} messages since, ${missing || "none"} missing, ${this.#doubled || "none"} duplicated.`)
    this.#late = null
  }

  #isCut(now) {
    return this.#cuts.some(({ to }) => now < to)
  }

  /** Which form is in use, and what the network lets through. */
  #showChanges(client) {
    const parts = element("fallback").content.cloneNode(true)
    this.#events = parts.querySelector(".events")
    for (const box of parts.querySelectorAll("input")) {
      box.addEventListener("change", () => this.#meter.block(box.value, !box.checked))
    }
    this.#root.querySelector(".cut").before(parts)
    client.addEventListener("form", ({ detail: { from, to, reason } }) => {
      this.form = to
      this.#log(from ? `${from} → ${to}: ${reason.replaceAll("_", " ")}` : to)
    })
    client.addEventListener("restart", ({ detail: { wait } }) => this.#log(`not reached, again in ${wait.toFixed(1)} s`))
  }

  #log(text) {
    const entry = document.createElement("li")
    const time = document.createElement("time")
    time.textContent = new Date().toLocaleTimeString()
    entry.append(time, ` ${text}`)
    this.#events.prepend(entry)
    while (this.#events.children.length > 20) this.#events.lastChild.remove()
  }
}

/** Latencies over the last minute on a logarithmic scale, with the cuts behind them. */
class Plot {
  #dots
  #gone
  #svg

  constructor(svg, name) {
    this.#svg = svg
    svg.setAttribute("aria-label", `Latency of ${name} over the last ${PLOT_SECONDS} s`)
    const frame = document.createElement("div")
    frame.className = "frame"
    svg.replaceWith(frame)
    frame.append(svg)
    this.#gone = this.#add("path", { class: "gone" })
    for (const [at, label] of [[1, "1 ms"], [10, "10 ms"], [100, "100 ms"], [1000, "1 s"], [10_000, "10 s"]]) {
      this.#add("line", { x1: 0, x2: PLOT.width, y1: this.#y(at), y2: this.#y(at) })
      const text = document.createElement("span")
      text.textContent = label
      text.ariaHidden = "true"
      text.style.top = `${(100 * this.#y(at)) / PLOT.height}%`
      frame.append(text)
    }
    this.#dots = this.#add("path", { class: "dots" })
  }

  draw(now, dots, cuts) {
    const x = (at) => (PLOT.width * (1 - (now - at) / (PLOT_SECONDS * 1000))).toFixed(1)
    this.#dots.setAttribute("d", dots.map(({ at, latency }) => `M${x(at)} ${this.#y(latency).toFixed(1)}h.01`).join(""))
    const area = ({ from, to }) => `M${x(from)} 0H${x(Math.min(to, now))}V${PLOT.height}H${x(from)}Z`
    this.#gone.setAttribute("d", cuts.map(area).join(""))
  }

  #y(latency) {
    const { height, fastest, slowest } = PLOT
    const within = Math.min(Math.max(latency, fastest), slowest)
    return height * (1 - Math.log(within / fastest) / Math.log(slowest / fastest))
  }

  #add(name, attributes) {
    const child = document.createElementNS("http://www.w3.org/2000/svg", name)
    for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value)
    this.#svg.append(child)
    return child
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Publishing

const publisher = new Client(location.href, { share: false, storage: null })
let publishingUntil = 0

async function publish() {
  const n = published.size + 1
  const message = { at: performance.now(), acknowledged: 0 }
  published.set(n, message)
  element("published").textContent = `${n}`
  try {
    await publisher.publish(stream, { n, text: element("text").value }, { create: true })
    message.acknowledged = performance.now()
  } catch (error) {
    say(`Message ${n} was refused: ${error.message}`)
  }
}

/** One a second for so long, whether or not it is switched on. */
function publishFor(seconds) {
  publishingUntil = Math.max(publishingUntil, performance.now() + seconds * 1000)
}

function say(text) {
  element("news").textContent = text
}

function milliseconds(value) {
  if (value < 10) return `${value.toFixed(1)} ms`
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`
}

function bytes(count) {
  const [value, unit] = count < 1e6 ? [count / 1e3, "kB"] : [count / 1e6, "MB"]
  return `${value.toFixed(1)} ${unit}`
}

// ---------------------------------------------------------------------------------------------------------------------

element("stream").textContent = stream

// The token of this visit, for MQTT, whose password it is; everything else uses the cookie.
let token

/** Waits for a token that the gateway takes, and puts it into its cookie. */
async function signIn() {
  const section = element("sign-in")
  section.hidden = false
  for (;;) {
    const form = section.querySelector("form")
    await new Promise((submitted) => form.addEventListener("submit", (event) => (event.preventDefault(), submitted()), { once: true }))
    token = element("token").value.trim()
    const headers = { authorization: `Bearer ${token}` }
    const answer = await fetch(new URL("v1/cookie", location.href), { method: "POST", headers }).catch((error) => error)
    if (answer.status === 204) break
    say(`The token was refused: ${answer.status ? (await answer.json()).detail : answer.message}`)
  }
  section.hidden = true
}

// What this page leaves behind on the gateway is small, and gone after an hour. The URL is absolute, as a relative one inherits a
// password of the page's URL, which fetch refuses.
const create = () => fetch(new URL(`v1/stream/${stream}`, location.href), {
  method: "PUT",
  headers: { "content-type": "application/json", "stream-ttl": "3600", "stream-max-messages": "10000" },
}).catch(() => say("The gateway is not to be reached; publishing is tried again."))
while ((await create())?.status === 401) await signIn()

const panels = PANELS.map((panel) => new Panel(panel))
offerWakes(element("sleep"), stream).catch((error) => say(`Whether this browser can be woken is not known: ${error.message}`))

element("publish").addEventListener("submit", (event) => {
  event.preventDefault()
  publish()
})
element("cut-all").addEventListener("click", () => {
  for (const panel of panels) panel.cut()
  say(`All are cut for ${CUT_SECONDS} s; publishing goes on.`)
})

// Not exactly, or messages would keep step with the short polls.
function everySecond() {
  if (element("every-second").checked || performance.now() < publishingUntil) publish()
  setTimeout(everySecond, 700 + 600 * Math.random())
}

everySecond()
setInterval(() => {
  for (const panel of panels) panel.draw(performance.now())
}, 250)
