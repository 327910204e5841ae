// node-postgres: what it does, printed, so that two servers can be compared.
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')

const dsn = process.argv[2]
const say = (name, ...values) => console.log(name + ':', ...values.map((v) => JSON.stringify(v)))
const fails = async (name, promise) => {
  try {
    await promise
    say(name, 'no error')
  } catch (e) {
    say(name, e.code, e.message)
  }
}
const connect = async () => {
  const c = new Client({ connectionString: dsn })
  await c.connect()
  return c
}

async function values(c) {
  const types = ['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'text', 'bytea', 'bool', 'date', 'timestamp', 'uuid', 'json', 'jsonb', 'int4[]', 'text[]']
  const samples = [-7, 42, '9007199254740993', 1.5, -0.1, '12345678901234567890.0123', 'žluťoučký 🐎 \t\\', Buffer.from([0, 1, 255]), true, '2024-02-29', '2024-02-29 12:34:56.789',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', { a: [1, null] }, { b: '€' }, [1, 2, 3], ['a', null, 'c "d"']]
  for (let i = 0; i < types.length; i++) {
    const r = await c.query(`select $1::${types[i]} as v, $2::${types[i]} as n`, [samples[i], null])
    say(types[i], r.rows[0], r.fields.map((f) => f.dataTypeID))
  }
  const r = await c.query("select 1 as a; select 'two' as b; insert into notes values (900, 'n') returning id")
  say('several statements', r.map((x) => [x.command, x.rowCount, x.rows]))
  say('empty', (await c.query('')).rowCount)
  say('array mode', (await c.query({ text: 'select 1, 2 union all select 3, 4', rowMode: 'array' })).rows)
}

async function transactions(c) {
  await c.query('begin')
  await c.query('insert into customers values ($1, $2)', [1, 'one'])
  await c.query('savepoint a')
  await fails('duplicate', c.query('insert into customers values ($1, $2)', [1, 'again']))
  await fails('aborted', c.query('select 1'))
  await c.query('rollback to a')
  await c.query('update customers set name = name || $2 where id = $1', [1, '!'])
  await c.query('commit')
  say('committed', (await c.query('select name from customers where id = $1', [1])).rows)
  await fails('syntax', c.query('selec 1'))
  await fails('division', c.query('select 1/$1::int', [0]))
  await fails('no table', c.query('select * from nowhere where id = $1', [1]))
  await fails('bad value', c.query('select $1::int', ['x']))
}

async function prepared(c) {
  for (let i = 0; i < 300; i++) {
    const r = await c.query({ name: 'churn' + i, text: `select $1::int + ${i} as v`, values: [i] })
    if (r.rows[0].v !== 2 * i) throw new Error('churn ' + i)
  }
  for (let i = 0; i < 3; i++) say('prepared', (await c.query({ name: 'by key', text: 'select name from customers where id = $1', values: [1] })).rows)
  // All of these are sent before the first answer comes.
  say('queued', await Promise.all([1, 2, 3].map(async (i) => (await c.query('select $1::int as v', [i])).rows[0].v)))
}

async function copy(c) {
  await pipeline(Readable.from(['10\tten\n11\tel', 'even\n12\t\\N\n']), c.query(copyFrom('copy customers (id, name) from stdin')))
  for (const id of [10, 11, 12]) say('copied', (await c.query('select * from customers where id = $1', [id])).rows)
  await fails('bad copy', pipeline(Readable.from(['x\ty\n']), c.query(copyFrom('copy notes from stdin'))))
  let out = ''
  for await (const chunk of c.query(copyTo('copy (select g, repeat(\'x\', g) from generate_series(1, 3) g) to stdout'))) out += chunk
  say('copy out', out)
}

async function cursors(c) {
  await c.query('begin')
  const cursor = c.query(new Cursor('select g from generate_series(1, $1) g', [250]))
  let sum = 0
  let reads = 0
  for (;;) {
    const rows = await cursor.read(100)
    if (rows.length === 0) break
    reads++
    sum += rows.reduce((a, r) => a + r.g, 0)
  }
  say('cursor', reads, sum)
  const early = c.query(new Cursor('select g from generate_series(1, 1000) g'))
  say('first', await early.read(2))
  await early.close()
  await c.query('commit')
}

async function cancel(c) {
  const canceller = new Client({ connectionString: dsn })
  const failed = fails('cancelled', c.query('select pg_sleep(60)'))
  await new Promise((resolve) => setTimeout(resolve, 300))
  const port = Number(new URL(dsn).port)
  await new Promise((resolve, reject) => {
    canceller.connection.on('connect', () => canceller.connection.cancel(c.processID, c.secretKey))
    canceller.connection.on('end', resolve)
    canceller.connection.on('error', reject)
    canceller.connection.connect(port, '127.0.0.1')
  })
  await failed
  say('after', (await c.query('select 1 as v')).rows)
}

async function notifications(c) {
  const heard = new Promise((resolve) => c.once('notification', (n) => resolve([n.channel, n.payload])))
  await c.query('listen news')
  const other = await connect()
  await other.query("select pg_notify('news', $1)", ['číslo 1'])
  await other.end()
  say('notified', await heard)
  await c.query('unlisten *')
}

async function large(c) {
  const text = 'ž'.repeat(1 << 20)
  const r = await c.query('select $1::text as v, length($1::text) as n', [text])
  say('large', r.rows[0].v === text, r.rows[0].n)
  await c.query('insert into notes values ($1, $2)', [5, text])
  say('stored', (await c.query('select length(body), octet_length(body) from notes where id = 5')).rows)
}

async function pools(c) {
  const pool = new Pool({ connectionString: dsn, max: 4 })
  const all = await Promise.all(Array.from({ length: 40 }, (_, i) => pool.query('select $1::int as v', [i])))
  say('pool', all.map((r) => r.rows[0].v).join() === Array.from({ length: 40 }, (_, i) => i).join())
  const one = await pool.connect()
  await one.query("set application_name = 'mine'; set timezone = 'Asia/Tokyo'")
  say('settings', (await one.query("select current_setting('application_name') as a, current_setting('timezone') as t")).rows)
  one.release(true)
  await pool.end()
}

// A server process that ends under the pool: the statement fails, and the pool goes on.
async function ended() {
  const pool = new Pool({ connectionString: dsn, max: 1 })
  pool.on('error', () => {})
  await pool.query('select pg_terminate_backend(pg_backend_pid())').then(
    () => say('ended', 'no error'),
    () => say('ended', 'an error'), // which one is a matter of who is quicker, the error or the end of the connection
  )
  say('again', (await pool.query('select $1::int as v', [7])).rows)
  await pool.end()
}

async function main() {
  for (const part of [values, transactions, prepared, copy, cursors, cancel, notifications, large, pools, ended]) {
    const c = await connect()
    await part(c).catch((e) => say('FAILED ' + part.name, e.code, e.message))
    await c.end()
  }
}

main().catch((e) => {
  console.log('FAILED', e)
  process.exit(1)
})
