-- A process says that it runs, and hears what operators order. KEYS: the roster's base.
-- ARGV: owner, what it says of itself, ttl in ms, for how many ms it is kept after that; then source, id and note of each
-- requested poll that it has begun. Answers the server's time in ms, all orders, and all processes, the last two as name
-- and value by turns.
-- The first write is a removal: a server without memory allows that, and from there on lets the script finish.
local members, orders = KEYS[1] .. ':members', KEYS[1] .. ':orders'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HDEL', members, ARGV[1])
local known = redis.call('HGETALL', members)
for i = 1, #known, 2 do
  local ends = tonumber(string.match(known[i + 1], '^(%d+) '))
  if ends + tonumber(ARGV[4]) < now then redis.call('HDEL', members, known[i]) end
end
local own = string.format('%d %d ', now + tonumber(ARGV[3]), now) .. ARGV[2]
redis.call('HSET', members, ARGV[1], own)
known[#known + 1] = ARGV[1]
known[#known + 1] = own
for i = 5, #ARGV, 3 do
  if redis.call('HGET', orders, 'poll/' .. ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', orders, 'poll/' .. ARGV[i])
    redis.call('HSET', orders, 'started/' .. ARGV[i], ARGV[i + 2])
  end
end
return {string.format('%d', now), redis.call('HGETALL', orders), known}
