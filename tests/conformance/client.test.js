// The protocol's official client, over a restart of the gateway too.
import { DurableStream, stream } from "@durable-streams/client"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, test } from "vitest"
import { start } from "./gateway.js"

let gateway

const url = () => `${gateway.url}/v1/stream/s`
const create = () => DurableStream.create({ url: url(), contentType: "application/json" })

afterEach(async () => {
  await gateway.stop()
})

// Reads JSON live until `count` items came; returns them and the offset behind them.
async function readLive(live, offset, count, whileWaiting) {
  const session = await stream({ url: url(), live, offset, json: true })
  const items = []
  const enough = new Promise((resolve) => {
    session.subscribeJson(async (batch) => {
      items.push(...batch.items)
      if (items.length >= count) resolve(batch.offset)
    })
  })
  await whileWaiting?.()
  const reached = await enough
  session.cancel()
  return { items, offset: reached }
}

for (const live of ["long-poll", "sse"]) {
  test(`creates, appends, reads live by ${live} and resumes from a saved offset`, async () => {
    gateway = await start()
    const handle = await create()
    await handle.append(JSON.stringify({ n: 1 }))
    const publish = async () => {
      await handle.append(JSON.stringify({ n: 2 }))
      await handle.append(JSON.stringify({ n: 3 }))
    }
    const first = await readLive(live, "-1", 3, publish)
    expect(first.items).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }])
    await handle.append(JSON.stringify({ n: 4 }))
    const rest = await readLive(live, first.offset, 1)
    expect(rest.items).toEqual([{ n: 4 }])
  })

  test(`goes on by ${live} over a kill of the gateway on disk`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
    gateway = await start(undefined, ["--store", folder])
    await (await create()).append(JSON.stringify({ n: 1 }))
    const { offset } = await readLive(live, "-1", 1)
    await gateway.stop()
    gateway = await start(gateway.address, ["--store", folder])
    await new DurableStream({ url: url(), contentType: "application/json" }).append(JSON.stringify({ n: 2 }))
    const rest = await readLive(live, offset, 1)
    expect(rest.items).toEqual([{ n: 2 }])
    await rm(folder, { recursive: true })
  })

  test(`learns by ${live} of the gap that a restart of the memory store leaves`, async () => {
    gateway = await start()
    await (await create()).append(JSON.stringify({ n: 1 }))
    const { offset } = await readLive(live, "-1", 1)
    await gateway.stop()
    gateway = await start(gateway.address)
    await expect(stream({ url: url(), live, offset, json: true })).rejects.toMatchObject({ status: 404 })
    await (await create()).append(JSON.stringify({ n: 2 }))
    await expect(stream({ url: url(), live, offset, json: true })).rejects.toMatchObject({ status: 410 })
    const anew = await readLive(live, "-1", 1)
    expect(anew.items).toEqual([{ n: 2 }])
  })
}
