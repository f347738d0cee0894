// A page of examples/ on a file server of its own.
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { extname } from "node:path"

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" }

// The gateway that the files name.
const NAMED = "http://127.0.0.1:4437"

// Serves the files of an example from an origin. The caller sets `gateway`, the URL that takes the place of the one in the files.
export async function serveExample(context, name) {
  const folder = new URL(`../../examples/${name}/`, import.meta.url)
  const example = { gateway: NAMED }
  const server = createServer(async (request, response) => {
    const [, path] = /^\/([\w.]*)/.exec(request.url)
    const file = path || "index.html"
    const text = await readFile(new URL(file, folder), "utf8").catch(() => undefined)
    if (text === undefined) return response.writeHead(404).end()
    response.setHeader("content-type", TYPES[extname(file)]).end(text.replaceAll(NAMED, example.gateway))
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return Object.assign(example, { origin: `http://127.0.0.1:${server.address().port}` })
}
