// OpenWhisk's official JavaScript client against a server, case by case. Each result is one line of JSON on standard output:
// {"case", "passed", "detail"}. Between the cases, lines of base64 on standard input are sealed requests: each is invoked, and answered
// with {"response"} or {"error"}. When that ends, the last cases follow.
'use strict'

const assert = require('node:assert')
const readline = require('node:readline')
const openwhisk = require('openwhisk')

const { CONFORMANCE_HOST: apihost, CONFORMANCE_KEY: key, CONFORMANCE_IMAGE: image } = process.env
const name = 'conformance'
const ow = openwhisk({ apihost, api_key: key })
const action = {
  exec: { kind: 'blackbox', image },
  limits: { memory: 512, timeout: 60000, concurrency: 2 },
  parameters: [{ key: 'bound', value: { 'κλειδί': '☃' } }]
}

const say = line => process.stdout.write(JSON.stringify(line) + '\n')

async function tried (what, body) {
  try {
    say({ case: what, passed: true, detail: String(await body()) })
  } catch (error) {
    say({ case: what, passed: false, detail: String(error && error.message) })
  }
}

// What a call that must fail fails with.
async function failure (status, call) {
  let error
  try {
    await call()
  } catch (caught) {
    error = caught
  }
  assert(error, 'it did not fail')
  assert.strictEqual(error.statusCode, status, error.message)
  return error
}

async function eventually (call) {
  for (let left = 600; ; left -= 1) {
    try {
      return await call()
    } catch (error) {
      if (error.statusCode !== 404 || left === 0) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

async function first () {
  let accepted
  await tried('namespaces.list', async () => {
    const namespaces = await ow.namespaces.list()
    assert(namespaces.length === 1)
    return namespaces[0]
  })
  await tried('actions.create', async () => {
    const made = await ow.actions.create({ name, action })
    assert.strictEqual(made.version, '0.0.1')
    assert.strictEqual(made.exec.image, image)
    return made.version
  })
  await tried('actions.create of one that is there: 409', async () =>
    (await failure(409, () => ow.actions.create({ name, action }))).message)
  await tried('actions.create of an image nobody registered: 400', async () => {
    const exec = { kind: 'blackbox', image: '/bin/sh' }
    return (await failure(400, () => ow.actions.create({ name: 'other', action: { exec } }))).message
  })
  await tried('actions.update', async () => {
    const made = await ow.actions.update({ name, action })
    assert.strictEqual(made.version, '0.0.2')
    return made.version
  })
  await tried('actions.get', async () => {
    const told = await ow.actions.get({ name })
    assert.deepStrictEqual(told.parameters, action.parameters)
    assert.strictEqual(told.limits.concurrency, 2)
    return told.name
  })
  await tried('actions.list', async () => {
    const listed = await ow.actions.list({ limit: 10, skip: 0 })
    assert.deepStrictEqual(listed.map(it => it.name), [name])
    return listed.length
  })
  await tried('actions.invoke, blocking: an application error is 502', async () => {
    const error = await failure(502, () =>
      ow.actions.invoke({ name, blocking: true, params: { request: 'AAAA' } }))
    assert.strictEqual(error.error.response.status, 'application error')
    return error.error.response.result.error.code
  })
  await tried('actions.invoke, not blocking', async () => {
    accepted = await ow.actions.invoke({ name, params: { request: 'AAAA' } })
    assert.match(accepted.activationId, /^[0-9a-f]{32}$/)
    return accepted.activationId
  })
  await tried('activations.get', async () => {
    const record = await eventually(() => ow.activations.get({ name: accepted.activationId }))
    assert.strictEqual(record.activationId, accepted.activationId)
    assert.strictEqual(record.version, '0.0.2')
    assert.strictEqual(record.response.success, false)
    assert(record.end >= record.start)
    return record.response.status
  })
  await tried('activations.result', async () => {
    const result = await ow.activations.result({ name: accepted.activationId })
    assert.strictEqual(result.success, false)
    return result.status
  })
  await tried('activations.logs', async () => {
    const { logs } = await ow.activations.logs({ name: accepted.activationId })
    assert(Array.isArray(logs))
    return `${logs.length} lines`
  })
  await tried('activations.list', async () => {
    const listed = await ow.activations.list({ limit: 10 })
    assert(listed.some(it => it.activationId === accepted.activationId))
    const none = await ow.activations.list({ since: Date.now() + 3600000 })
    assert.strictEqual(none.length, 0)
    return `${listed.length} records`
  })
  await tried('activations.get of one that never was: 404', async () =>
    (await failure(404, () => ow.activations.get({ name: '0'.repeat(32) }))).message)
  await tried('actions.invoke of one that is not there: 404', async () =>
    (await failure(404, () => ow.actions.invoke({ name: 'nothing', blocking: true }))).message)
  await tried('actions.invoke with more than 1 MiB: 413', async () =>
    (await failure(413, () =>
      ow.actions.invoke({ name, blocking: true, params: { x: 'x'.repeat(1 << 20) } }))).message)
  await tried('a wrong key: 401', async () => {
    const stranger = openwhisk({ apihost, api_key: `${key.split(':')[0]}:wrong` })
    return (await failure(401, () => stranger.actions.list())).message
  })
  await tried('another namespace: 403', async () =>
    (await failure(403, () => ow.actions.list({ namespace: 'somebody' }))).message)
}

async function sealed (request) {
  try {
    const { response } = await ow.actions.invoke({
      name, blocking: true, result: true, params: { request }
    })
    say({ response })
  } catch (error) {
    say({ error: error.message })
  }
}

async function last () {
  await tried('actions.delete', async () => {
    const gone = await ow.actions.delete({ name })
    assert.strictEqual(gone.name, name)
    return gone.version
  })
  await tried('actions.get of a deleted one: 404', async () =>
    (await failure(404, () => ow.actions.get({ name }))).message)
  await tried('actions.delete of a deleted one: 404', async () =>
    (await failure(404, () => ow.actions.delete({ name }))).message)
}

async function main () {
  await first()
  say({ ready: true })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await sealed(line)
  }
  await last()
}

main().catch(error => {
  say({ case: 'the client', passed: false, detail: String(error) })
  process.exitCode = 1
})
