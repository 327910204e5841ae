// postgres.js: it pipelines whatever it can and prepares everything; what it does is printed, so that two servers can be compared.
const postgres = require('postgres')

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
const options = { max: 1, onnotice: (n) => say('notice', n.severity, n.message) }

async function values(sql) {
  say('numbers', await sql`select ${-7}::int2 a, ${42}::int4 b, ${'9007199254740993'}::int8 c, ${1.5}::float8 d, ${'123.4560'}::numeric e`)
  say('text', await sql`select ${'žluťoučký 🐎 \t\\'}::text a, ${null}::text b, ${Buffer.from([0, 1, 255])}::bytea c, ${true}::bool d`)
  say('times', await sql`select ${new Date(0)}::timestamptz a, ${'2024-02-29'}::date b`)
  say('documents', await sql`select ${sql.json({ a: [1, null] })}::jsonb a, ${'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'}::uuid b`)
  say('arrays', await sql`select ${[1, 2, 3]}::int[] a, ${['a', 'c "d"']}::text[] b`)
  say('several statements', await sql.unsafe("select 1 as a; select 'two' as b"))
  say('simple', await sql`select 1 as v`.simple())
  say('raw', (await sql`select 'abc' as v`.raw()).map((r) => r.map(String)))
  say('described', (await sql`select ${1}::int as v, name from customers where id = ${2}`.describe()).columns.map((c) => [c.name, c.type]))
}

async function transactions(sql) {
  await sql.begin(async (tx) => {
    await tx`insert into customers ${tx({ id: 1, name: 'one' })}`
    await fails('duplicate', tx.savepoint((sp) => sp`insert into customers values (1, 'again')`))
    await tx`update customers set name = name || '!' where id = ${1}`
  })
  say('committed', await sql`select name from customers where id = ${1}`)
  await fails('rolled back', sql.begin(async (tx) => {
    await tx`update customers set name = 'lost' where id = ${1}`
    await tx`select 1/${0}::int`
  }))
  say('kept', await sql`select name from customers where id = ${1}`)
  // All of a transaction in one go, without a wait between.
  say('pipelined', await sql.begin((tx) => [1, 2, 3].map((i) => tx`insert into orders values (7, ${i}, ${i * 1.5}) returning id, total`)))
  await fails('syntax', sql`selec 1`)
  await fails('no table', sql`select * from nowhere where id = ${1}`)
  await fails('bad value', sql`select ${'x'}::int`)
  say('sum', await sql`select sum(total) from orders where customer_id = 7`)
}

async function prepared(sql) {
  for (let i = 0; i < 300; i++) {
    const [r] = await sql.unsafe(`select $1::int + ${i} as v`, [i], { prepare: true })
    if (r.v !== 2 * i) throw new Error('churn ' + i)
  }
  say('queued', (await Promise.all(Array.from({ length: 50 }, (_, i) => sql`select ${i}::int as v`))).map((r) => r[0].v))
  const mixed = await Promise.allSettled([sql`select 1 as v`, sql`select 1/${0}::int`, sql`select 2 as v`])
  say('an error between', mixed.map((r) => (r.status === 'fulfilled' ? r.value : r.reason.code)))
}

async function copy(sql) {
  const inlet = await sql`copy customers (id, name) from stdin`.writable()
  inlet.write('10\tten\n11\tel')
  inlet.end('even\n')
  await new Promise((resolve, reject) => inlet.on('finish', resolve).on('error', reject))
  say('copied', await sql`select * from customers where id = 11`)
  let out = ''
  for await (const chunk of await sql`copy (select g from generate_series(1, 3) g) to stdout`.readable()) out += chunk
  say('copy out', out)
}

async function cursors(sql) {
  const sizes = []
  await sql`select g from generate_series(1, ${250}) g`.cursor(100, (rows) => sizes.push(rows.length))
  say('cursor', sizes)
  let first
  await sql`select g from generate_series(1, 1000) g`.cursor(10, (rows) => {
    first = rows.length
    return sql.CLOSE
  })
  say('closed early', first)
  let sum = 0
  await sql`select g from generate_series(1, 1000) g`.forEach((r) => { sum += r.g })
  say('each', sum)
}

async function cancel(sql) {
  const q = sql`select pg_sleep(60)`
  const failed = fails('cancelled', q)
  setTimeout(() => q.cancel(), 300)
  await failed
  say('after', await sql`select 1 as v`)
}

async function notifications(sql) {
  let hear
  const heard = new Promise((resolve) => { hear = resolve })
  const { unlisten } = await sql.listen('news', hear)
  await sql.notify('news', 'číslo 1')
  say('notified', await heard)
  await unlisten()
}

async function large(sql) {
  const text = 'ž'.repeat(1 << 20)
  const [r] = await sql`select ${text}::text as v, length(${text}::text) as n`
  say('large', r.v === text, r.n)
}

async function main() {
  for (const part of [values, transactions, prepared, copy, cursors, cancel, notifications, large]) {
    const sql = postgres(dsn, options)
    await part(sql).catch((e) => say('FAILED ' + part.name, e.code, e.message))
    await sql.end({ timeout: 5 })
  }
  const sql = postgres(dsn, { ...options, max: 3, prepare: false, fetch_types: false, connection: { application_name: 'mine', TimeZone: 'Asia/Tokyo' } })
  say('unprepared', await sql`select name from customers where id = ${1}`)
  say('settings', await sql`select current_setting('application_name') a, current_setting('timezone') t`)
  await sql.end()
}

main().catch((e) => {
  console.log('FAILED', e)
  process.exit(1)
})
