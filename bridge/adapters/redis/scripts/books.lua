-- What every script of a sink's books begins with. KEYS[1] is the sink's base: all its keys lie in one hash slot.
-- A place is a position's text. Due: claimable from its score on. Held: behind another one in its partition. Dead: given up.
-- Scores stay the texts they came as: Lua would round them.
-- What ends deliveries, or moves them on, writes a removal first, be it of nothing: a server without memory allows that, and
-- from there on lets the script finish. Else nothing would ever give memory back.
local base = KEYS[1]
local DUE, HELD, DEAD = base .. ':due', base .. ':held', base .. ':dead'
local WHY, PARTITION, TRIES, BOOKS = base .. ':why', base .. ':lane', base .. ':tries', base .. ':books'
local ANSWERS = base .. ':answers'

local lowest = {}
local function bit_of(source, seq)
  local number = tonumber(seq)
  local chunk = math.floor(number / 65536)
  lowest[source] = math.min(lowest[source] or chunk, chunk)
  return base .. ':m:' .. source .. ':' .. string.format('%d', chunk), number - chunk * 65536
end

-- The bitmap that tells, of the settled ones, those that the sink's filter did not select.
local function filtered_bit_of(source, seq)
  return base .. ':f:' .. source .. ':' .. string.format('%d', math.floor(tonumber(seq) / 65536))
end

-- Why single ones ended unsent, by number: number, kind, time and mute.
local function unsent_of(source)
  return base .. ':u:' .. source
end
local function forget_unsent(source, from, upto)
  local key = unsent_of(source)
  while true do
    local records = redis.call('ZRANGEBYSCORE', key, from, upto, 'LIMIT', 0, 1000)
    if #records == 0 then return end
    redis.call('ZREM', key, unpack(records))
  end
end

local changes = {}
local function count(source, column, by)
  local field = column .. source
  changes[field] = (changes[field] or 0) + by
end
local function close_books()
  for field, by in pairs(changes) do
    if by ~= 0 then redis.call('HINCRBY', BOOKS, field, by) end
  end
  -- Where the marks of a source begin: `forget` goes on from there.
  for source, chunk in pairs(lowest) do redis.call('HSETNX', base .. ':low', source, string.format('%d', chunk)) end
end

-- Which of the three a place is in now: DUE, HELD, DEAD, or nothing.
local function where(place)
  for _, key in ipairs({DUE, HELD, DEAD}) do
    if redis.call('ZSCORE', key, place) then return key end
  end
end

-- Put a place at the end of its partition; true if nothing is before it.
local function enter(place, partition, due, held_due)
  if partition ~= '' then
    redis.call('HSET', PARTITION, place, partition)
    if redis.call('RPUSH', base .. ':l:' .. partition, place) > 1 then
      redis.call('ZADD', HELD, held_due, place)
      return false
    end
  end
  redis.call('ZADD', DUE, due, place)
  return true
end

-- Take a place out of its partition; answers the place behind it that became due by that.
local function leave(place, now)
  local partition = redis.call('HGET', PARTITION, place)
  if not partition then return nil end
  local list = base .. ':l:' .. partition
  if redis.call('LINDEX', list, 0) ~= place then
    redis.call('LREM', list, 1, place)
    return nil
  end
  redis.call('LPOP', list)
  local behind = redis.call('LINDEX', list, 0)
  if not behind then return nil end
  local due = redis.call('ZSCORE', HELD, behind)
  redis.call('ZREM', HELD, behind)
  if tonumber(due) > tonumber(now) then
    redis.call('ZADD', DUE, due, behind)
    return nil
  end
  redis.call('ZADD', DUE, now, behind)
  return behind
end

-- A try that is told again, because the answer to its telling was lost, is one try.
local function tried(place, attempt)
  if attempt == '' then return end
  local before = redis.call('HGET', TRIES, place)
  if before and string.sub(before, -#attempt) == attempt then return end
  redis.call('HSET', TRIES, place, before and before .. '\n' .. attempt or attempt)
end
