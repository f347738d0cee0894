// A client that is a process of its own.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"

export class Child {
  #process
  #lines

  // Starts a command, which ends with the test at the latest.
  constructor(context, command, ...commandArguments) {
    this.#process = spawn(command, commandArguments, { stdio: ["pipe", "pipe", "inherit"] })
    this.exited = once(this.#process, "exit").then(([code]) => code)
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]()
    context.after(async () => {
      this.#process.kill("SIGKILL")
      await this.exited
    })
  }

  // The next line that it says; undefined once it says nothing more.
  async line() {
    return (await this.#lines.next()).value
  }

  // Says something to it.
  say(line) {
    this.#process.stdin.write(`${line}\n`)
  }

  // Ends what is said to it.
  finish() {
    this.#process.stdin.end()
  }

  kill(signal) {
    this.#process.kill(signal)
  }
}
