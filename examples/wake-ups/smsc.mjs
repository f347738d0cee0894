// A message centre for trying SMS on one machine: accepts a bind by SMPP 3.4 and prints what it would send to phones. Needs Node 20
// and no packages.
//
//   node smsc.mjs PORT
import { createServer } from "node:net"

const [BIND, SUBMIT, ENQUIRE, UNBIND] = [0x09, 0x04, 0x15, 0x06]
const RESPONSE = 0x80000000

// The number and the text of a submission: texts end with a zero.
function submission(body) {
  let at = 0
  const text = () => body.subarray(at, (at = body.indexOf(0, at) + 1) - 1).toString()
  text()
  at += 2
  text()
  at += 2
  const number = text()
  at += 3
  text()
  const validity = text()
  return { number, validity, text: body.subarray(at + 5).toString() }
}

createServer((socket) => {
  let received = Buffer.alloc(0)
  const answer = (command, sequence, body) => {
    const packet = Buffer.concat([Buffer.alloc(16), Buffer.from(body)])
    const words = [packet.length, RESPONSE + command, 0, sequence]
    words.forEach((word, index) => packet.writeUInt32BE(word, 4 * index))
    socket.write(packet)
  }
  socket.on("error", () => {}).on("data", (bytes) => {
    received = Buffer.concat([received, bytes])
    while (received.length >= 16 && received.length >= received.readUInt32BE(0)) {
      const packet = received.subarray(0, received.readUInt32BE(0))
      received = received.subarray(packet.length)
      const [command, sequence] = [packet.readUInt32BE(4), packet.readUInt32BE(12)]
      if (command === BIND) answer(command, sequence, "smsc\0")
      if (command === ENQUIRE || command === UNBIND) answer(command, sequence, "")
      if (command !== SUBMIT) continue
      const { number, validity, text } = submission(packet.subarray(16))
      console.log(`SMS to +${number}, valid ${validity}: ${text.replace(/[0-9a-f]{16}/, "WAKE")}`)
      answer(command, sequence, "id-1\0")
    }
  })
}).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"))
