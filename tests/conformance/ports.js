// Ports of 127.0.0.1 that belong to this process until it ends.
//
// Servers of other programs cannot be given a listening socket, so their port has to be known before they listen, and a server that
// was killed has to get its port again. Port 0 serves neither: the kernel gives a port that is free at the moment to another
// connection. These ports are below those that the kernel gives away, in blocks of 16. A process owns a block while it listens at the
// block's first port, and uses the others. tests/world/ports.rs does the same.
import { once } from "node:events"
import { createServer } from "node:net"

const [FIRST_BLOCK, BLOCKS, BLOCK_SIZE] = [10_000, 1375, 16]

// Processes that start one after the other begin with different blocks.
let nextBlock = (process.pid * 7) % BLOCKS
// Ports of this process that are not in use yet.
const left = []

// Listens at a port, if no other socket does.
async function tryListen(port) {
  const server = createServer().listen(port, "127.0.0.1")
  return once(server, "listening").then(() => server, () => undefined)
}

// The ports of another block.
async function reserveBlock() {
  for (let tries = 0; tries < BLOCKS; tries++) {
    const first = FIRST_BLOCK + nextBlock * BLOCK_SIZE
    nextBlock = (nextBlock + 1) % BLOCKS
    const reservation = await tryListen(first)
    if (!reservation) continue
    reservation.unref()
    return Array.from({ length: BLOCK_SIZE - 1 }, (_, index) => first + 1 + index)
  }
  throw new Error("no block of ports is free")
}

// A port at which nothing listens, and which no other caller gets.
export async function reservedPort() {
  for (;;) {
    if (left.length === 0) left.push(...(await reserveBlock()))
    const port = left.shift()
    // A program outside these tests may have taken it.
    const probe = await tryListen(port)
    if (!probe) continue
    await new Promise((closed) => probe.close(closed))
    return port
  }
}
