// The push service of a browser: browsers register over a WebSocket (the protocol of Mozilla's autopush), senders POST messages.
import { once } from "node:events"
import { createServer } from "node:http"
import { randomBytes, randomUUID } from "node:crypto"
import { WebSocketServer } from "ws"

// Starts it. `posted` are the requests of senders, `acked` what the browser says about messages: 100 is delivered.
export async function pushService(context) {
  const posted = []
  const acked = []
  let browser
  const sockets = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: (offered) => offered.values().next().value })
  const http = createServer(async (request, response) => {
    const parts = []
    for await (const part of request) parts.push(part)
    const body = Buffer.concat(parts)
    posted.push({ method: request.method, url: request.url, headers: request.headers, body })
    const channelID = request.url.split("/").pop()
    browser?.send(JSON.stringify({
      messageType: "notification", channelID, version: randomBytes(8).toString("hex"), ttl: Number(request.headers.ttl),
      data: body.toString("base64url"), headers: { encoding: request.headers["content-encoding"] },
    }))
    response.writeHead(201, { location: `/m/${posted.length}`, ttl: request.headers.ttl }).end()
  }).listen(0, "127.0.0.1")
  await Promise.all([once(sockets, "listening"), once(http, "listening")])
  const url = `http://127.0.0.1:${http.address().port}`
  const replies = {
    hello: ({ uaid }) => ({ uaid: uaid || randomUUID().replaceAll("-", ""), status: 200, use_webpush: true, broadcasts: {} }),
    register: ({ channelID }) => ({ channelID, status: 200, pushEndpoint: `${url}/wpush/${channelID}` }),
    unregister: ({ channelID }) => ({ channelID, status: 200 }),
  }
  sockets.on("connection", (socket) => {
    browser = socket
    socket.on("message", (text) => {
      const message = JSON.parse(text)
      acked.push(...(message.messageType === "ack" ? message.updates : []))
      const reply = replies[message.messageType]?.(message)
      if (reply) socket.send(JSON.stringify({ messageType: message.messageType, ...reply }))
    })
  })
  context.after(() => {
    sockets.close()
    sockets.clients.forEach((socket) => socket.terminate())
    http.close()
    http.closeAllConnections()
  })
  return { url, socketUrl: `ws://127.0.0.1:${sockets.address().port}/`, posted, acked }
}
