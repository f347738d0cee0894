// Lets a client that speaks XMPP over TCP (RFC 6120) talk to the gateway, which speaks it over WebSocket (RFC 7395). It changes the framing
// alone: the root of a stream is an element of its own, and each element a frame.
import { once } from "node:events"
import { createServer } from "node:net"
import Parser from "@xmpp/xml/lib/Parser.js"
import { WebSocket } from "ws"

const FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
const STREAM = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"

// The port of a server of TCP, which ends with the test. Each of its connections is a WebSocket to `url()`.
export async function tcpOf(context, url, domain) {
  const sockets = new Set()
  const server = createServer((tcp) => {
    sockets.add(tcp)
    bridge(tcp, new WebSocket(url(), "xmpp"), domain)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return server.address().port
}

function bridge(tcp, websocket, domain) {
  const isOpen = once(websocket, "open").catch(() => tcp.destroy())
  const send = async (frame) => {
    await isOpen
    websocket.send(frame)
  }
  let parser
  const begin = () => {
    parser = new Parser()
    parser.on("start", () => void send(`<open xmlns='${FRAMING}' to='${domain}' version='1.0'/>`))
    parser.on("element", (element) => {
      // Inherited from the root of the stream.
      element.attrs.xmlns ??= "jabber:client"
      void send(element.toString())
    })
    parser.on("end", () => void send(`<close xmlns='${FRAMING}'/>`))
    parser.on("error", () => tcp.destroy())
  }
  begin()
  tcp.setEncoding("utf8").on("data", (text) => parser.write(text))
  tcp.on("error", () => {})
  tcp.on("close", () => websocket.terminate())
  websocket.on("error", () => {})
  websocket.on("close", () => tcp.destroy())
  websocket.on("message", (data) => {
    const frame = data.toString()
    if (frame.startsWith("<open ")) tcp.write(`<?xml version='1.0'?><stream:stream ${STREAM} from='${domain}' id='1'>`)
    else if (frame.startsWith("<close ")) tcp.end("</stream:stream>")
    else tcp.write(frame)
    // The client opens another stream.
    if (frame.startsWith("<success")) begin()
  })
}
