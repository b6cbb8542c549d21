-- One page, all or nothing. Everything is checked before anything is written, and the first write is one that a server
-- without memory refuses: from there on Redis lets a script finish, so nothing is ever half written.
-- KEYS: the source's base; with a lease, its key.
-- ARGV: token and owner; nonce; where a new journal begins; ttl in ms; how many bytes of events; how many buckets, events
-- and cursor entries follow. A bucket: scope, name, how many fields, the fields, what is expected of
-- each ('-' nothing, '=...' this), what it shall be. An event: id, topic, time, body. A cursor entry: name, '-' or '=...'.
-- Then, if there are any, the expectations: how many are over and how many there are; of each that is over, the hash and
-- the field; of each other one also the time in base 36 and in decimals, and the number of its event, from the end if < 0.
local base, nonce, begin, ttl = KEYS[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local buckets, events, marks = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local state, journal, nonces = base .. ':s', base .. ':j', base .. ':n'

if KEYS[2] and redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
-- Always: also the first sending may come late, after a second one that was thought to be needed.
for _, done in ipairs(redis.call('LRANGE', nonces, 0, -1)) do
  if string.sub(done, 1, #nonce + 1) == nonce .. '=' then return tonumber(string.sub(done, #nonce + 2)) end
end

local at = 9
for _ = 1, buckets do
  local count = tonumber(ARGV[at + 2])
  local found = redis.call('HMGET', base .. ':b:' .. ARGV[at] .. ':' .. ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + count))
  for i = 1, count do
    if (found[i] and '=' .. found[i] or '-') ~= ARGV[at + 2 + count + i] then return -2 end
  end
  at = at + 3 + 3 * count
end

local known = redis.call('HGET', state, 'c')
local last = tonumber(known or 0)
if events > 0 then
  if not known then last = tonumber(begin) end
  local begins = last
  for i = 1, events do
    redis.call('XADD', journal, string.format('%d-0', last + i), 'i', ARGV[at], 't', ARGV[at + 1], 'w', ARGV[at + 2], 'b', ARGV[at + 3])
    at = at + 4
  end
  last = last + events
  redis.call('HSET', state, 'c', string.format('%d', last))
  if not known then
    redis.call('HSET', state, 'z', begin, 'r', begin, 'f', string.format('%d', begins + 1))
  end
  redis.call('HINCRBY', state, 'b', ARGV[5])
end

local function keep(key)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
local from = 9
for _ = 1, buckets do
  local scope, bucket, count = ARGV[from], ARGV[from + 1], tonumber(ARGV[from + 2])
  local values = {}
  for i = 1, count do
    values[2 * i - 1] = ARGV[from + 2 + i]
    values[2 * i] = ARGV[from + 2 + 2 * count + i]
  end
  local key, index = base .. ':b:' .. scope .. ':' .. bucket, base .. ':i:' .. scope
  redis.call('HSET', key, unpack(values))
  redis.call('SADD', index, bucket)
  keep(key)
  keep(index)
  from = from + 3 + 3 * count
end

for _ = 1, marks do
  if ARGV[at + 1] == '-' then
    redis.call('HDEL', base .. ':c', ARGV[at])
  else
    redis.call('HSET', base .. ':c', ARGV[at], string.sub(ARGV[at + 1], 2))
  end
  at = at + 2
end

if ARGV[at] then
  local index, over, open = base .. ':e', tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local change = 0
  at = at + 2
  for _ = 1, over do
    change = change - redis.call('HDEL', index .. ':' .. ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  local begins = open > 0 and tonumber(redis.call('HGET', state, 'z') or 0)
  for _ = 1, open do
    local key, number = index .. ':' .. ARGV[at], tonumber(ARGV[at + 4])
    if number < 0 then number = last + 1 + number end
    local rest, text = number - begins, ''
    repeat
      local digit = rest % 36
      text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
      rest = (rest - digit) / 36
    until rest < 1
    local kept = redis.call('HGET', key, ARGV[at + 1])
    if kept then
      redis.call('HSET', key, ARGV[at + 1], string.match(kept, '^(%w+)') .. ' ' .. text)
    else
      redis.call('HSET', key, ARGV[at + 1], ARGV[at + 2] .. ' ' .. text)
      redis.call('ZADD', index, 'LT', ARGV[at + 3], ARGV[at])
      change = change + 1
    end
    at = at + 5
  end
  if change ~= 0 then redis.call('HINCRBY', index .. ':', 'n', change) end
end

redis.call('LPUSH', nonces, nonce .. '=' .. string.format('%d', last))
redis.call('LTRIM', nonces, 0, 15)
return last
