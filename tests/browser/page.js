// Runs in a page: a reader for each form of browsers. Each reads `count` messages of a JSON stream
// from an offset, leaves, and returns them with the offset behind them.

export function install() {
  // Reads envelopes until there are enough messages; `leave` closes the form.
  const collect = (count, leave, done) => {
    const read = { messages: [], offset: "" }
    return ({ data = [], streamNextOffset }) => {
      read.messages.push(...data)
      read.offset = streamNextOffset
      if (read.messages.length < count) return
      leave()
      done(read)
    }
  }

  globalThis.readers = {
    sse: (url, offset, count) =>
      new Promise((resolve, reject) => {
        const source = new EventSource(`${url}?live=sse&offset=${offset}`)
        const take = collect(count, () => source.close(), resolve)
        let data = []
        source.addEventListener("data", (event) => (data = JSON.parse(event.data)))
        source.addEventListener("control", (event) => {
          take({ data, ...JSON.parse(event.data) })
          data = []
        })
        source.onerror = () => reject(new Error("the event stream broke"))
      }),

    websocket: (url, offset, count) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`${url.replace("http", "ws")}?live=websocket&offset=${offset}`)
        const take = collect(count, () => socket.close(), resolve)
        socket.onmessage = (event) => take(JSON.parse(event.data))
        socket.onclose = (event) => reject(new Error(`closed with ${event.code}`))
      }),

    ndjson: async (url, offset, count) => {
      const answer = await fetch(`${url}?live=ndjson&offset=${offset}`)
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      let [read, left] = [null, ""]
      const take = collect(count, () => reader.cancel(), (all) => (read = all))
      while (!read) {
        const { value, done } = await reader.read()
        if (done) throw new Error("the lines ended")
        const lines = (left + value).split("\n")
        left = lines.pop()
        for (const line of lines) if (!read) take(JSON.parse(line))
      }
      return read
    },

    "long-poll": async (url, offset, count) => {
      let read = null
      const take = collect(count, () => {}, (all) => (read = all))
      while (!read) {
        const answer = await fetch(`${url}?live=long-poll&offset=${offset}`)
        if (!answer.ok) throw new Error(`answered ${answer.status}`)
        offset = answer.headers.get("stream-next-offset")
        take({ data: answer.status === 204 ? [] : await answer.json(), streamNextOffset: offset })
      }
      return read
    },
  }

  // Appends by a frame and returns the answer to it.
  globalThis.append = (url, value) =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}?live=websocket&offset=now`)
      socket.onopen = () => socket.send(JSON.stringify(value))
      socket.onmessage = (event) => {
        const answer = JSON.parse(event.data)
        if (answer.data) return
        socket.close()
        resolve(answer)
      }
      socket.onclose = (event) => reject(new Error(`closed with ${event.code}`))
    })
}
