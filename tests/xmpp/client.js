// A client of slixmpp, which is a process of its own.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const folder = dirname(fileURLToPath(import.meta.url))

export class Client {
  #process
  #exited
  #next = 0
  #answers = new Map()
  #waiting = []
  // What it was told, in order.
  heard = []

  // A client that has logged in. It ends with the test at the latest. The service is told that it is there, unless it is `silent`. One
  // that `resumes` manages its stream, and connects again whenever its connection is lost.
  static async connect(context, server, user, how = "announces") {
    const client = new Client([...server.login(user), how])
    context.after(() => client.end())
    client.jid = (await client.event(({ event }) => event === "connected")).jid
    return client
  }

  constructor(login) {
    const python = join(folder, ".venv/bin/python")
    this.#process = spawn(python, [join(folder, "slixmpp_client.py"), ...login], { stdio: ["pipe", "pipe", "inherit"] })
    this.#exited = once(this.#process, "exit")
    createInterface({ input: this.#process.stdout }).on("line", (line) => this.#take(JSON.parse(line)))
  }

  #take(said) {
    if (said.event === "answered") {
      const { event: _, number, ...answer } = said
      this.#answers.get(number)(answer)
      return
    }
    this.heard.push(said)
    for (const waiting of this.#waiting.splice(0)) waiting()
  }

  // Gives a command, and returns its answer.
  async tell(command, further = {}) {
    const number = this.#next++
    const answered = new Promise((resolve) => this.#answers.set(number, resolve))
    this.#process.stdin.write(`${JSON.stringify({ number, command, ...further })}\n`)
    return answered
  }

  // The same for a command that succeeds.
  async do(command, further) {
    const answer = await this.tell(command, further)
    assert.equal(answer.error, undefined, `${command} ${JSON.stringify(further)}: ${answer.error}`)
    return answer
  }

  // Sends an iq with this XML, and returns its answer.
  get(payload) {
    return this.tell("request", { kind: "get", payload })
  }
  set(payload) {
    return this.tell("request", { kind: "set", payload })
  }

  // Waits until something was said that `isWanted`, and returns it.
  async event(isWanted) {
    for (;;) {
      const found = this.heard.find(isWanted)
      if (found) return found
      await this.#more()
    }
  }

  // Waits until something was said behind which `isDone`.
  async until(isDone) {
    while (!isDone()) await this.#more()
  }

  // The items of which it was notified, each once by its id, in the order of their first notifications.
  get items() {
    const found = new Map()
    for (const { event, items } of this.heard) {
      if (event !== "notified") continue
      for (const item of items) if (!found.has(item.id)) found.set(item.id, item.content)
    }
    return found
  }

  // How often it was notified of each item, by its id.
  get notifications() {
    const found = new Map()
    for (const { event, items } of this.heard) {
      if (event !== "notified") continue
      for (const { id } of items) found.set(id, 1 + (found.get(id) ?? 0))
    }
    return found
  }

  // How often it was notified of an item of which it had been notified before.
  get repetitions() {
    return [...this.notifications.values()].reduce((sum, count) => sum + count - 1, 0)
  }

  // Waits until it was notified of `count` items, and returns their contents.
  async contents(count) {
    while (this.items.size < count) await this.#more()
    return [...this.items.values()]
  }

  #more() {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  async end() {
    this.#process.kill("SIGKILL")
    await this.#exited
  }
}
