package redis

import (
	goredis "github.com/redis/go-redis/v9"
)

// put writes one row, or its tombstone, if nothing as new is there: that and the write are one step for every reader.
//
// Versions are compared as strings of 19 digits, for Lua's numbers are doubles. The version is written last: a script
// that fails midway is then repeated in full. DEL goes before HSET so that no old column survives and
// a key of another type is no obstacle.
//
//	KEYS row, index, versions, floors
//	ARGV id, version, origin, "d" | "h" column value ... | "j" document
//	returns 1 if applied, 0 if the store already has that version or a newer one
var put = goredis.NewScript(`
local floor = redis.call('HGET', KEYS[4], ARGV[3])
if floor and ARGV[2] < floor then return 0 end
local have = redis.call('HGET', KEYS[3], ARGV[1])
if have and string.sub(have, 1, 19) >= ARGV[2] then return 0 end
local live = '+'
if ARGV[4] == 'd' then
  live = '-'
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[1])
else
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
  redis.call('DEL', KEYS[1])
  if ARGV[4] == 'h' then
    redis.call('HSET', KEYS[1], unpack(ARGV, 5))
  else
    redis.call('SET', KEYS[1], ARGV[5])
  end
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. live .. ARGV[3])
return 1
`)

// raise lifts an origin's floor, below which put writes nothing.
//
//	KEYS floors
//	ARGV origin, version
var raise = goredis.NewScript(`
local floor = redis.call('HGET', KEYS[1], ARGV[1])
if not floor or floor < ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
`)

// purge removes one row of an origin that lies below its floor, tombstone included: the floor stands for it.
//
//	KEYS row, index, versions
//	ARGV id, version of the floor, origin
var purge = goredis.NewScript(`
local have = redis.call('HGET', KEYS[3], ARGV[1])
if not have or string.sub(have, 1, 19) >= ARGV[2] or string.sub(have, 21) ~= ARGV[3] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
`)
