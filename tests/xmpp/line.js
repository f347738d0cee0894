// A line between clients and a gateway, which can be cut or stand still.
import { once } from "node:events"
import { connect, createServer } from "node:net"

export class Line {
  #pairs = new Set()
  #isClosed = false
  #gateway

  // A line to a gateway, which ends with the test.
  static async to(context, gateway) {
    const line = new Line()
    line.#gateway = gateway
    const server = createServer((near) => {
      if (line.#isClosed) return near.destroy()
      const [host, port] = line.#gateway.address.split(":")
      const far = connect(Number(port), host)
      const pair = [near, far]
      line.#pairs.add(pair)
      for (const [from, to] of [pair, pair.toReversed()]) {
        from.on("data", (data) => to.write(data))
        from.on("error", () => {})
        from.on("close", () => {
          if (line.#pairs.delete(pair)) to.destroy()
        })
      }
    }).listen(0, "127.0.0.1")
    await once(server, "listening")
    context.after(() => {
      line.cut()
      server.close()
    })
    line.xmpp = `ws://127.0.0.1:${server.address().port}/v1/xmpp`
    return line
  }

  // New connections go to this gateway.
  lead(gateway) {
    this.#gateway = gateway
  }

  // Both sides learn that their connection is gone.
  cut() {
    for (const [near, far] of this.#pairs) {
      near.destroy()
      far.destroy()
    }
    this.#pairs.clear()
  }

  // Only the clients learn it: the gateway is left with connections that nobody is at the other end of.
  cutNear() {
    for (const pair of this.#pairs) {
      this.#pairs.delete(pair)
      pair[1].removeAllListeners("data")
      pair[0].destroy()
    }
  }

  // No new connections until it opens again.
  close() {
    this.#isClosed = true
    this.cut()
  }
  open() {
    this.#isClosed = false
  }
}
