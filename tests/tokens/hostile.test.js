// A gateway refuses each token that another library refuses, and each that is known to be hostile; and it accepts what all accept.
import assert from "node:assert/strict"
import { test } from "node:test"
import { byHttp, byMqtt } from "./doors.js"
import { cases, issuer, mutants } from "./hostile.js"
import { judge } from "./judges.js"
import { ALGORITHMS } from "./keys.js"
import { gatewayOf } from "./world.js"

const PATIENCE = { timeout: 120_000 }
const MUTANTS = 150
const AT_ONCE = 8

// Calls `act` with each item, some at once.
async function each(items, act) {
  const left = items.entries()
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (const [index, item] of left) await act(item, index)
  }))
}

for (const algorithm of ALGORITHMS) {
  test(`no library refuses what the gateway accepts (${algorithm})`, PATIENCE, async (context) => {
    const of = issuer(algorithm)
    const gateway = await gatewayOf(context, [of])
    const known = cases(of)
    const all = [...known, ...mutants(known[0].token, MUTANTS)]
    const opinions = await judge(of, all.map(({ token }) => token))
    const wrong = []
    await each(all, async ({ name, token, expected }, index) => {
      const strict = Object.entries(opinions[index]).filter(([, why]) => why !== null)
      for (const [door, enter] of Object.entries({ HTTP: byHttp, MQTT: byMqtt })) {
        const accepted = await enter(gateway, token)
        if (accepted === undefined) continue
        if (accepted !== expected && expected !== undefined) wrong.push(`${name}: ${accepted ? "accepted" : "refused"} by ${door}`)
        if (accepted && strict.length > 0) wrong.push(`${name}: accepted by ${door}, but not by ${strict.join("; ")}`)
      }
    })
    assert.deepEqual(wrong, [])
  })
}
