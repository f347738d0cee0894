// Pushpin as its documentation uses it: in front of an origin, which answers each request with an instruction to hold it (GRIP), keeps the
// messages, and publishes them through Pushpin's HTTP control API. The origin takes a message by a request, as from an application's backend.
// Arguments: the origin's port, the port of the control API, Pushpin's configuration.
import { spawn } from "node:child_process"
import { Agent, createServer, request } from "node:http"

const [port, control, configuration] = process.argv.slice(2)

// Messages of each stream; the id of a message is its number, from 1.
const streams = new Map()
const messagesOf = (stream) => streams.get(stream) ?? streams.set(stream, []).get(stream)

const agent = new Agent({ keepAlive: true })
const publish = (item) => new Promise((resolve, reject) => {
  const sent = request({ agent, host: "127.0.0.1", port: control, path: "/publish/", method: "POST" }, (answer) => {
    answer.resume().on("end", () => (answer.statusCode === 200 ? resolve() : reject(new Error(`answered ${answer.statusCode}`))))
  })
  sent.on("error", reject).end(JSON.stringify({ items: [item] }))
})

const eventOf = (id, message) => `id: ${id}\ndata: ${message}\n\n`

// Stores a message, publishes it, and answers when Pushpin has taken it.
const append = async (stream, message, response) => {
  const id = messagesOf(stream).push(message)
  await publish({
    channel: stream,
    id: String(id),
    "prev-id": String(id - 1),
    formats: {
      "http-response": { headers: { "Content-Type": "application/json", "Stream-Offset": String(id) }, body: `[${message}]` },
      "http-stream": { content: eventOf(id, message) },
      "ws-message": { content: message },
    },
  })
  response.writeHead(204).end()
}

// Answers with what is newer than `after`, and has the request held if nothing is, or if it is one that does not end. Pushpin requests a poll
// again if the last message of the channel is another than `prev-id`. It does that for responses that do not end, too, but what is
// published meanwhile then makes it request the next one, and messages take seconds.
const forms = {
  ready: (stream, after, seconds, response) => response.writeHead(204).end(),
  "long-poll": (stream, after, seconds, response) => {
    const newer = messagesOf(stream).slice(after)
    const offset = after + newer.length
    const held = newer.length ? {} : { "Grip-Hold": "response", "Grip-Channel": `${stream}; prev-id=${offset}`, "Grip-Timeout": seconds }
    response.writeHead(200, { "Content-Type": "application/json", "Stream-Offset": offset, ...held }).end(`[${newer.join()}]`)
  },
  sse: (stream, after, seconds, response) => {
    const newer = messagesOf(stream).slice(after)
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Grip-Hold": "stream",
      "Grip-Channel": stream,
    }).end(newer.map((message, index) => eventOf(after + index + 1, message)).join(""))
  },
  websocket: (stream, after, seconds, response) => {
    const subscribe = `c:${JSON.stringify({ type: "subscribe", channel: stream })}`
    const frames = messagesOf(stream).slice(after).map((message) => `m:${message}`)
    const events = [...frames, subscribe].map((text) => `TEXT ${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`)
    response.writeHead(200, { "Content-Type": "application/websocket-events", "Sec-WebSocket-Extensions": "grip" })
      .end(`OPEN\r\n${events.join("")}`)
  },
}

createServer((incoming, response) => {
  const { pathname, searchParams } = new URL(incoming.url, "http://origin")
  const [, form, stream] = pathname.split("/")
  let body = ""
  incoming.setEncoding("utf8")
  incoming.on("data", (part) => (body += part))
  incoming.on("end", () => {
    if (form === "publish") {
      append(stream, body, response).catch((error) => response.writeHead(502).end(error.message))
    } else if (form === "websocket" && !body.startsWith("OPEN")) {
      // The client closes, or sends what nobody needs.
      response.writeHead(200, { "Content-Type": "application/websocket-events" }).end(body.startsWith("CLOSE") ? "CLOSE\r\n" : "")
    } else {
      forms[form](stream, Number(searchParams.get("after") ?? 0), Number(searchParams.get("timeout") ?? 0), response)
    }
  })
}).listen(port, "127.0.0.1")

spawn("/usr/bin/pushpin", [`--config=${configuration}`], { stdio: "inherit" }).on("exit", (code) => process.exit(code ?? 1))
