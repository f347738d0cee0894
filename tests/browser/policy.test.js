// The decisions of the JavaScript client without a network: events are the input, the next step is the output.
import assert from "node:assert/strict"
import { test } from "node:test"
import { FORMS, Policy, SETTINGS } from "../../clients/js/src/pollgate.js"

const ROUND_TRIP = 0.05

// A policy and a clock. A network returns for each step how long it lasts and how it ends.
class Trial {
  now = 0
  events = []
  opened = []

  constructor(options = {}) {
    const emit = (name, detail) => this.events.push([name, detail, this.now])
    this.policy = new Policy({ random: () => 1, emit, ...options, settings: { ...SETTINGS, ...options.settings } })
  }

  // Follows the policy on a network until a time.
  run(until, network) {
    while (this.now < until) {
      const step = this.policy.next(this.now)
      if (step.wait) {
        this.now += step.wait
        continue
      }
      this.opened.push({ ...step, at: this.now })
      const [began, end] = [this.now, network(step, this)]
      if (!end) return
      this.now = began + end.after
      this.policy.ended(this.now, end)
    }
  }

  // An envelope after this delay.
  envelope(after, further = {}) {
    this.now += after
    this.policy.envelope(this.now, further)
  }

  changes() {
    return this.events.filter(([name]) => name === "form").map(([, { from, to, reason }]) => `${from} ${to} ${reason}`)
  }

  forms() {
    return this.opened.map(({ form }) => form)
  }
}

// Answers polls; live forms behave as given.
const polls = (live) => (step, trial) => {
  if (step.hold === undefined) return live(step, trial)
  trial.envelope(step.hold + ROUND_TRIP, { empty: true })
  return { kind: "answered", after: step.hold + ROUND_TRIP }
}

test("a network that buffers everything: each live form is followed by a poll, and the client stays with the best kind of poll", () => {
  const trial = new Trial()
  trial.run(50, polls((step) => ({ kind: "no_envelope", after: step.envelopeWithin })))
  assert.deepEqual(trial.forms().slice(0, 7),
    ["websocket", "short-poll", "sse", "short-poll", "ndjson", "short-poll", "long-poll"])
  assert(trial.opened[1].at <= 2)
  assert.deepEqual(trial.changes(), ["null websocket start", "websocket sse no_envelope", "sse ndjson no_envelope", "ndjson long-poll no_envelope"])
})

test("a WebSocket that is killed after 200 ms is given up at its third try, and found again when the network heals", () => {
  const trial = new Trial()
  let healed = false
  const network = polls((step, trial) => {
    trial.envelope(ROUND_TRIP)
    if (step.form === "websocket" && !healed) return { kind: "cut", after: 0.2 }
    return { kind: "stopped", after: Math.min(step.leaveAfter, 60) }
  })
  trial.run(30, network)
  assert.deepEqual(trial.forms().slice(0, 5), ["websocket", "websocket", "websocket", "short-poll", "sse"])
  healed = true
  trial.run(80, network)
  assert.deepEqual(trial.changes(), ["null websocket start", "websocket sse cut", "sse websocket better"])
  assert(trial.events.at(-1)[2] < 65 + 2, `${trial.events.at(-1)[2]}`)
})

test("a form that stays blocked is tried at doubling intervals", () => {
  const trial = new Trial({ forms: ["websocket", "sse"] })
  trial.run(2000, polls((step, trial) => {
    if (step.form === "websocket") return { kind: "not_upgraded", after: ROUND_TRIP }
    trial.envelope(ROUND_TRIP)
    return { kind: "stopped", after: Math.min(step.leaveAfter, 60) }
  }))
  const tries = trial.opened.filter(({ form }) => form === "websocket").map(({ at }) => at)
  const gaps = tries.slice(1).map((at, index) => Math.round((at - tries[index]) / 10) * 10)
  assert.deepEqual(gaps, [60, 130, 250, 500, 630])
  assert.equal(trial.policy.form, "sse")
})

test("a silent form is tried again at once if it had worked, else given up, and gets twice the time at the next try", () => {
  const lived = new Trial()
  lived.run(40, polls((step, trial) => {
    trial.envelope(ROUND_TRIP)
    trial.envelope(1)
    return { kind: "mute", after: 1 + step.muteAfter }
  }))
  assert.deepEqual(lived.changes(), ["null websocket start"])
  assert.equal(lived.opened[0].muteAfter, 1.5 * SETTINGS.heartbeatMin)

  const silent = new Trial({ forms: ["sse", "short-poll"] })
  silent.run(100, polls((step, trial) => {
    trial.envelope(ROUND_TRIP)
    return { kind: "mute", after: step.muteAfter }
  }))
  assert.deepEqual(silent.changes().slice(0, 2), ["null sse start", "sse short-poll mute"])
  const [, again] = silent.opened.filter(({ form }) => form === "sse")
  assert.equal(again.envelopeWithin, 2 * SETTINGS.envelopeTimeout)
})

// A proxy that cuts polls after `limit` seconds.
const cutsAfter = (limit) => (step, trial) => {
  if (step.hold >= limit) return { kind: "refused", status: 504, after: limit }
  trial.envelope(step.hold + 0.01, { empty: true })
  return { kind: "answered", after: step.hold + 0.01 }
}

test("the hold is 0.8 of what a proxy cuts at, after one error, and remembered", () => {
  const trial = new Trial({ forms: ["long-poll", "short-poll"] })
  trial.run(500, cutsAfter(10))
  const holds = trial.opened.filter(({ form }) => form === "long-poll").map(({ hold }) => hold)
  assert.deepEqual(holds.slice(0, 4), [25, 8, 8, 8])
  const later = new Trial({ forms: ["long-poll", "short-poll"], memory: trial.policy.memory() })
  assert.equal(later.policy.next(0).hold, 8)
})

test("a poll that is cut earlier than others were answered is a fluke, twice is not", () => {
  const trial = new Trial({ forms: ["long-poll", "short-poll"], settings: { hold: 20 } })
  // For each long poll, whether it is cut after 5 s.
  let cuts = [false, true, false, true, false]
  const network = (step, trial) => {
    if (step.hold && !cuts.length) return null
    return step.hold && cuts.shift() ? { kind: "cut", after: 5 } : cutsAfter(30)(step, trial)
  }
  trial.run(1000, network)
  assert.equal(trial.policy.memory().networks[0].hold, undefined)
  cuts = [true, true, false]
  trial.run(1000, network)
  assert.equal(trial.policy.memory().networks[0].hold, 4)
})

test("long polls that are cut at once, three in a row, are given up for short polls", () => {
  const trial = new Trial({ forms: ["long-poll", "short-poll"] })
  trial.run(20, (step, trial) => (step.hold ? { kind: "cut", after: 0.1 } : polls()(step, trial)))
  assert.deepEqual(trial.changes(), ["null long-poll start", "long-poll short-poll cut"])
  assert.equal(trial.opened.filter(({ form }) => form === "long-poll").length, 3)
})

test("short polls come at their interval, and at once while there is more", () => {
  const trial = new Trial({ forms: ["short-poll"] })
  let more = 3
  trial.run(12, (step, trial) => {
    trial.envelope(0, { upToDate: --more < 0 })
    return { kind: "answered", after: 0 }
  })
  assert.deepEqual(trial.opened.map(({ at }) => at), [0, 0, 0, 0, 5, 10])
})

test("a restart blames no form: the client waits as requested, or for doubling times up to 30 s", () => {
  const trial = new Trial()
  trial.run(3, () => ({ kind: "restart", retryAfter: 3, after: 0 }))
  assert.deepEqual(trial.events.at(-1).slice(0, 2), ["restart", { wait: 3 }])
  trial.run(200, () => ({ kind: "restart", after: 0 }))
  const waits = trial.events.filter(([name]) => name === "restart").slice(1).map(([, { wait }]) => wait)
  assert.deepEqual(waits.slice(0, 9), [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30])
  assert.deepEqual(trial.changes(), ["null websocket start"])
})

for (const [kind, reason] of [["restart", "refused"], ["not_gateway", "no_envelope"]]) {
  test(`a form that alone is answered so is given up, after another try: ${kind}`, () => {
    const trial = new Trial({ forms: ["sse", "short-poll"] })
    trial.run(10, polls(() => ({ kind, after: 0.01 })))
    assert.deepEqual(trial.changes(), ["null sse start", `sse short-poll ${reason}`])
    assert.deepEqual(trial.forms().slice(0, 6), ["sse", "sse", "sse", "short-poll", "sse", "short-poll"])
  })
}

test("a proxy that passes bursts and then nothing is recognized at the third time", () => {
  const trial = new Trial({ forms: ["sse", "short-poll"] })
  trial.run(90, polls((step, trial) => {
    trial.envelope(ROUND_TRIP)
    trial.envelope(1)
    return { kind: "mute", after: 1 + step.muteAfter }
  }))
  assert.deepEqual(trial.changes(), ["null sse start", "sse short-poll mute"])
  assert.equal(trial.forms().filter((form) => form === "sse").length, 3)
})

test("a proxy that cuts an idle WebSocket does so once", () => {
  const trial = new Trial()
  let cuts = 0
  trial.run(5000, (step, trial) => {
    trial.envelope(ROUND_TRIP)
    if (step.heartbeat >= 60) return ++cuts, { kind: "cut", after: ROUND_TRIP + 60 }
    trial.now += step.heartbeat
    return trial.policy.received(trial.now) ? { kind: "stopped", after: ROUND_TRIP + step.heartbeat } : null
  })
  assert.equal(cuts, 1)
  assert.deepEqual(trial.changes(), ["null websocket start"])
  assert.deepEqual([trial.opened.at(-1).heartbeat, trial.policy.memory().networks[0].heartbeatHi], [51, 60])
})

test("an idle WebSocket that the gateway has cut by going away says nothing of heartbeats", () => {
  const trial = new Trial()
  const ends = [{ kind: "cut", after: 40 }, { kind: "restart", after: 0.01 }]
  trial.run(100, nat(1000))
  trial.run(trial.now + 40, (step, trial) => {
    if (ends.length === 2) trial.envelope(ROUND_TRIP)
    return ends.shift()
  })
  assert.equal(trial.policy.memory().networks[0].heartbeatHi, undefined)
})

test("polls without a response get a longer timeout each time", () => {
  const trial = new Trial({ forms: ["short-poll"] })
  trial.run(70, (step) => ({ kind: "mute", after: step.muteAfter }))
  assert.deepEqual(trial.opened.map(({ muteAfter }) => muteAfter).slice(0, 5), [5, 10, 20, 30, 30].slice(0, trial.opened.length))
})

test("a failure that a browser cannot tell from a block is no block if a short poll fails, too", () => {
  const trial = new Trial()
  trial.run(30, (step) => ({ kind: step.hold === undefined ? "not_upgraded" : "cut", after: 0.01 }))
  assert.equal(trial.policy.form, "websocket")
  trial.run(40, polls((step, trial) => (trial.envelope(ROUND_TRIP), { kind: "clean", after: 60 })))
  assert.deepEqual(trial.changes(), ["null websocket start"])
})

test("a form that has worked may fail to open once after a restart of the gateway", () => {
  const trial = new Trial()
  const ends = [{ kind: "cut", after: 10 }, { kind: "not_upgraded", after: 0.01 }, { kind: "clean", after: 60 }]
  trial.run(30, polls((step, trial) => {
    const end = ends.shift()
    if (end.kind !== "not_upgraded") trial.envelope(ROUND_TRIP)
    return end
  }))
  assert.deepEqual(trial.changes(), ["null websocket start"])
})

test("behind a captive portal no form is blamed", () => {
  const trial = new Trial()
  trial.run(100, () => ({ kind: "not_gateway", after: 0.01 }))
  assert.deepEqual(trial.changes(), ["null websocket start"])
  assert(trial.events.filter(([name]) => name === "not_gateway").length > 5)
})

test("without WebSocket that form is skipped, and the event tells why", () => {
  const trial = new Trial({ webSocket: false })
  assert.deepEqual(trial.changes(), ["websocket sse not_supported"])
})

// A NAT that forgets connections that were idle for longer than this; nothing is published.
const nat = (limit) => (step, trial) => {
  trial.envelope(ROUND_TRIP)
  if (step.heartbeat >= limit) return { kind: "mute", after: ROUND_TRIP + step.muteAfter }
  for (let beats = 0; beats < 4; beats++) {
    trial.now += step.heartbeat
    if (trial.policy.received(trial.now)) return { kind: "stopped", after: ROUND_TRIP + (beats + 1) * step.heartbeat }
    trial.policy.envelope(trial.now, { empty: true })
  }
  return null
}

for (const [limit, connections] of [[60, 10], [61, 13], [100, 12], [240, 10], [250, 11]]) {
  test(`the heartbeat finds a NAT of ${limit} s within ${connections} connections, and stays below`, () => {
    const trial = new Trial()
    trial.run(1e6, nat(limit))
    const { heartbeat } = trial.opened.at(-1)
    assert(trial.opened.length - 1 <= connections, trial.opened.map(({ heartbeat }) => heartbeat).join())
    assert(heartbeat >= 0.8 * limit && heartbeat < limit, `${heartbeat}`)
    assert.deepEqual(trial.changes(), ["null websocket start"])
    const later = new Trial({ memory: trial.policy.memory() })
    assert.equal(later.policy.next(0).heartbeat, heartbeat)
  })
}

test("a heartbeat that fails while the network is down proves nothing", () => {
  const trial = new Trial()
  trial.run(60, nat(300))
  const { heartbeatLo } = trial.policy.memory().networks[0]
  trial.run(trial.now + 200, (step, trial) => {
    trial.envelope(ROUND_TRIP)
    trial.envelope(0.1)
    return { kind: "mute", after: step.muteAfter }
  })
  assert.deepEqual(trial.policy.memory().networks[0], { label: "", form: "websocket", heartbeatLo })
})

test("the heartbeat stays below what is known to cut, and below 300 s", () => {
  for (const [idleClock, most] of [[100, 95], [null, 300]]) {
    const trial = new Trial({ settings: { idleClock } })
    trial.run(1e6, nat(1e6))
    const all = trial.opened.map(({ heartbeat }) => heartbeat)
    assert(Math.max(...all) <= most, `${all}`)
    assert(all.at(-1) >= 0.8 * most, `${all}`)
  }
})

test("each network has its own memory, and the 21st label takes the place of the one unused for longest", () => {
  const trial = new Trial({ forms: FORMS, network: "home" })
  trial.run(10, polls((step, trial) => {
    if (step.form === "websocket") return { kind: "no_envelope", after: 2 }
    trial.envelope(ROUND_TRIP)
    return { kind: "clean", after: 60 }
  }))
  assert.equal(trial.policy.form, "sse")
  trial.policy.networkChanged(trial.now, "train")
  assert.equal(trial.policy.form, "websocket")
  trial.policy.networkChanged(trial.now, "home")
  assert.equal(trial.policy.next(trial.now).form, "sse")
  // The same label again: forms that were given up are tried at once.
  trial.policy.networkChanged(trial.now)
  assert.equal(trial.policy.next(trial.now).form, "websocket")
  assert.deepEqual(trial.changes().slice(1), ["websocket sse no_envelope", "sse websocket network_changed", "websocket sse network_changed", "sse websocket network_changed"])
  for (let n = 0; n < 20; n++) trial.policy.networkChanged(trial.now, `${n}`)
  const labels = trial.policy.memory().networks.map(({ label }) => label)
  assert.deepEqual([labels.length, labels[0], labels.includes("home")], [20, "19", false])
  assert.deepEqual(new Policy({ memory: trial.policy.memory(), network: "19" }).memory(), trial.policy.memory())
})
