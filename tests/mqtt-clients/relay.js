// A way to the gateway that can break, and that treats requests as hostile networks do. For gateways with TLS it is a proxy that
// reads what it relays, as those of companies do: it has the gateway's certificate and key.
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { connect as connectPlain, createServer } from "node:net"
import { connect as connectTls, TLSSocket } from "node:tls"

const { GATEWAY_TLS_TOKENS: folder } = process.env
const identity = folder && { cert: readFileSync(`${folder}/tls.pem`), key: readFileSync(`${folder}/tls.key`) }
const connect = identity ? connectTls : connectPlain
const accept = (socket) => (identity ? new TLSSocket(socket, { isServer: true, ...identity }) : socket)

// What a rule can say of a request: nothing, or `answer`, a text that it is answered instead; `pieces`, how many of
// those that the gateway's answer comes in get through, the rest being swallowed; `cut`, after how many milliseconds the
// connection breaks, from the first piece on if any gets through.
export class Relay {
  #server
  #sockets = new Set()

  // A way to that address. `rule(method, target)` is asked about each request.
  static async to(address, rule = () => ({})) {
    const relay = new Relay()
    relay.rule = rule
    relay.requests = []
    const [host, port] = address.split(":")
    relay.#server = createServer((socket) => {
      const [client, gateway] = [accept(socket), connect(Number(port), host)]
      let [left, breaks] = [Infinity, undefined]
      const breakSoon = () => {
        if (breaks !== undefined) setTimeout(() => socket.resetAndDestroy(), breaks)
        breaks = undefined
      }
      relay.#join(client, gateway, (chunk) => {
        const [, method, target] = /^([A-Z]+) (\S+) HTTP/.exec(chunk.subarray(0, 4096).toString("latin1")) ?? []
        if (!method) return chunk
        relay.requests.push(`${method} ${target}`)
        const { answer, pieces = Infinity, cut } = relay.rule(method, target) ?? {}
        left = pieces
        breaks = cut
        if (left === 0) breakSoon()
        if (answer === undefined) return chunk
        client.write(answer)
        return null
      })
      relay.#join(gateway, client, (chunk) => {
        breakSoon()
        return left-- > 0 ? chunk : null
      })
    })
    relay.#server.listen(0, "127.0.0.1")
    await once(relay.#server, "listening")
    relay.address = `127.0.0.1:${relay.#server.address().port}`
    relay.url = `${identity ? "https" : "http"}://${relay.address}`
    return relay
  }

  // Breaks what is open. Who comes after that gets through.
  cut() {
    for (const socket of this.#sockets) socket.destroy()
  }

  async close() {
    this.cut()
    this.#server.close()
    await once(this.#server, "close")
  }

  #join(from, to, through) {
    this.#sockets.add(from)
    from.on("data", (chunk) => {
      const left = through(chunk)
      if (!left || to.write(left)) return
      from.pause()
      to.once("drain", () => from.resume())
    })
    from.on("end", () => to.end())
    // A connection that breaks ends the other one, too.
    from.on("error", () => to.destroy())
    from.on("close", () => {
      this.#sockets.delete(from)
      to.destroy()
    })
  }
}

// An answer as HTTP writes it.
export const answerOf = (status, headers, body = "") =>
  [`HTTP/1.1 ${status} -`, `content-length: ${body.length}`, ...headers, "", body].join("\r\n")
