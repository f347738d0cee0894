// The ways by which a token gets into a gateway: each tells whether the gateway accepts it.
import { Agent, request } from "node:http"
import { connect } from "node:net"

const agent = new Agent({ keepAlive: true, maxSockets: 8 })

// As a field of HTTP, if it can be one: `undefined` otherwise.
export async function byHttp(gateway, token) {
  if (!/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(token)) return undefined
  const status = await new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` }
    request(`${gateway.url}/v1/stream/news`, { agent, headers }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode))
    }).on("error", reject).end()
  })
  // A stream that is missing, or not granted.
  if ([403, 404].includes(status)) return true
  if (status === 401) return false
  throw new Error(`status ${status}`)
}

// As the password of MQTT, which may have any bytes.
export async function byMqtt(gateway, token) {
  const [host, port] = gateway.mqtt.split(":")
  const socket = connect(port, host)
  const text = (bytes) => Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
  const password = Buffer.from(token)
  const variable = [text(Buffer.from("MQTT")), Buffer.from([5, 0b1100_0010, 0, 60, 0]), text(Buffer.alloc(0)), text(Buffer.alloc(0)), text(password)]
  const rest = Buffer.concat(variable)
  const length = []
  for (let left = rest.length; ; left >>= 7) {
    length.push(left > 127 ? (left & 127) | 128 : left)
    if (left <= 127) break
  }
  socket.write(Buffer.concat([Buffer.from([0x10, ...length]), rest]))
  let answer = Buffer.alloc(0)
  for await (const bytes of socket) {
    answer = Buffer.concat([answer, bytes])
    if (answer.length >= 4) break
  }
  socket.destroy()
  // CONNACK: its length is one byte here, the flags and the reason follow.
  if (answer[0] === 0x20 && answer[3] === 0) return true
  if (answer[0] === 0x20 && [0x86, 0x87].includes(answer[3])) return false
  throw new Error(`answered ${answer.toString("hex")}`)
}
