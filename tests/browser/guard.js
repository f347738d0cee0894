// A proxy that checks credentials, in front of a gateway without authorization.
import { once } from "node:events"
import { createServer, request as send } from "node:http"

// Starts one that is closed with the test. `check(request)` returns the status that a request is refused with, if it is.
// `requests` are those that were not preflights, with their headers.
export async function guard(context, gateway, check = () => undefined) {
  const [host, port] = gateway.address.split(":")
  const guarded = { check, requests: [] }
  // A client may use an idle connection at the moment at which it would be closed.
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => {
    const { method, url: path, headers } = request
    // A preflight has no credentials.
    const refused = method === "OPTIONS" ? undefined : guarded.check(request)
    if (method !== "OPTIONS") guarded.requests.push({ method, path, headers })
    if (refused) {
      const fields = { "content-type": "text/plain", "access-control-allow-origin": "*" }
      return void response.writeHead(refused, fields).end("not with these credentials")
    }
    const further = send({ host, port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    further.on("error", () => response.destroy())
    response.on("close", () => further.destroy())
    request.pipe(further)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    server.close()
    server.closeAllConnections()
  })
  guarded.url = `http://127.0.0.1:${server.address().port}`
  // Closes all connections.
  guarded.cut = () => server.closeAllConnections()
  return guarded
}
