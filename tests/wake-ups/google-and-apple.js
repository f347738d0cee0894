// Fakes of Google's token service, FCM and APNs in one HTTPS server, written from the documentation of the providers.
import { once } from "node:events"
import { createSecureServer } from "node:http2"
import { randomUUID } from "node:crypto"

const UNREGISTERED = {
  error: {
    code: 404, message: "Requested entity was not found.", status: "NOT_FOUND",
    details: [{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", errorCode: "UNREGISTERED" }],
  },
}

// Starts it. A device whose token begins with `dead` is gone. `requests` are what it has got.
export async function googleAndApple(context, { key, cert }) {
  const requests = []
  const server = createSecureServer({ key, cert, allowHTTP1: true })
  server.on("request", async (request, response) => {
    let body = ""
    for await (const part of request) body += part
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !name.startsWith(":")))
    requests.push({ method: request.method, url: request.url, version: request.httpVersion, headers, body })
    const answer = (status, fields, content) => response.writeHead(status, fields).end(content && JSON.stringify(content))
    const json = { "content-type": "application/json" }
    if (request.url.startsWith("/3/device/")) {
      const isDead = request.url.includes("/dead")
      const gone = { reason: "Unregistered", timestamp: Date.now() }
      answer(isDead ? 410 : 200, { "apns-id": randomUUID() }, isDead ? gone : undefined)
    } else if (request.url.endsWith("/messages:send")) {
      const isDead = JSON.parse(body).message.token.startsWith("dead")
      answer(isDead ? 404 : 200, json, isDead ? UNREGISTERED : { name: "projects/p/messages/1" })
    } else if (request.url.includes("token")) {
      answer(200, json, { access_token: "ya29.fake", expires_in: 3600, token_type: "Bearer" })
    } else {
      answer(404, {})
    }
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const sessions = new Set()
  server.on("session", (session) => sessions.add(session))
  context.after(() => {
    sessions.forEach((session) => session.destroy())
    server.close()
  })
  return { port: server.address().port, requests }
}
